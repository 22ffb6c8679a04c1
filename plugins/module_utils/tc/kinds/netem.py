# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network emulation (linux/pkt_sched.h, net/sched/sch_netem.c, tc-netem(8)).

Everything is always sent: netem's change keeps what a request leaves out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from ... import schema, units
from ...errors import MissingCapability
from ...netlink import attribute, attributes, integer, nested, s64, u32, u64
from ...schema import Parser, leaf
from .base import Kind, words

(
    TCA_NETEM_CORR,
    _DELAY_DIST,
    TCA_NETEM_REORDER,
    TCA_NETEM_CORRUPT,
    TCA_NETEM_LOSS,
    TCA_NETEM_RATE,
    TCA_NETEM_ECN,
    TCA_NETEM_RATE64,
    _PAD,
    TCA_NETEM_LATENCY64,
    TCA_NETEM_JITTER64,
    TCA_NETEM_SLOT,
    _SLOT_DIST,
    TCA_NETEM_PRNG_SEED,
) = range(1, 15)
NETEM_LOSS_GI, NETEM_LOSS_GE = 1, 2
QOPT = struct.Struct("=6I")  # tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter (times in ticks)
CORR = struct.Struct("=3I")  # tc_netem_corr: delay, loss, duplicate
PROBABILITY = struct.Struct("=2I")  # tc_netem_reorder and tc_netem_corrupt: probability, correlation
RATE = struct.Struct("=IiIi")  # tc_netem_rate: rate, packet overhead, cell size, cell overhead
SLOT = struct.Struct("=qqiiqq")  # tc_netem_slot: min and max delay, packets, bytes, distribution's delay and jitter
DEFAULT_LIMIT = 1000
JITTER_MAX = 2**31 - 1  # ns


class Chance(NamedTuple):
    """A probability and its correlation with the packet before, in 1/(2^32 - 1)."""

    probability: int = 0
    correlation: int = 0


class GilbertElliott(NamedTuple):
    """Gilbert-Elliott loss as the kernel holds it: p good to bad, r bad to good, h delivery in bad, k1 loss in good."""

    p: int
    r: int
    h: int
    k1: int


class FourState(NamedTuple):
    """4-state Markov loss: transition probabilities, in the order of tc_netem_gimodel."""

    p13: int
    p31: int
    p32: int
    p14: int
    p23: int


class Slot(NamedTuple):
    """Packets gathered into slots: times in ns, 0 packets or bytes: no bound."""

    min_delay: int = 0
    max_delay: int = 0
    packets: int = 0
    bytes: int = 0
    distribution_delay: int = 0
    distribution_jitter: int = 0


class Netem(NamedTuple):
    """Times in ns, rate in bytes per second (0: none), probabilities in 1/(2^32 - 1), limit in packets."""

    delay: int = 0
    jitter: int = 0
    delay_correlation: int = 0
    loss: Chance | GilbertElliott | FourState = Chance()
    duplicate: Chance = Chance()
    reorder: Chance = Chance()
    gap: int = 0
    corrupt: Chance = Chance()
    rate: int = 0
    packet_overhead: int = 0
    cell_size: int = 0
    cell_overhead: int = 0
    slot: Slot = Slot()
    limit: int = DEFAULT_LIMIT
    ecn: bool = False
    seed: int | None = None  # None: the kernel's choice


def encode(options: Netem) -> bytes:
    loss = options.loss
    random = loss if isinstance(loss, Chance) else Chance()
    limit_of_ticks = 2**32 - 1  # the 64-bit attributes below carry the exact times
    data = QOPT.pack(
        min(options.delay // units.TICK_NS, limit_of_ticks),
        options.limit,
        random.probability,
        options.gap,
        options.duplicate.probability,
        min(options.jitter // units.TICK_NS, limit_of_ticks),
    )
    data += attribute(TCA_NETEM_LATENCY64, s64(options.delay)) + attribute(TCA_NETEM_JITTER64, s64(options.jitter))
    data += attribute(
        TCA_NETEM_CORR, CORR.pack(options.delay_correlation, random.correlation, options.duplicate.correlation)
    )
    data += attribute(TCA_NETEM_REORDER, PROBABILITY.pack(*options.reorder))
    data += attribute(TCA_NETEM_CORRUPT, PROBABILITY.pack(*options.corrupt))
    data += attribute(
        TCA_NETEM_RATE,
        RATE.pack(min(options.rate, 2**32 - 1), options.packet_overhead, options.cell_size, options.cell_overhead),
    )
    if options.rate >= 2**32:
        data += attribute(TCA_NETEM_RATE64, u64(options.rate))
    data += attribute(TCA_NETEM_ECN, u32(options.ecn)) + attribute(TCA_NETEM_SLOT, SLOT.pack(*options.slot))
    if isinstance(loss, GilbertElliott):
        data += nested(TCA_NETEM_LOSS, attribute(NETEM_LOSS_GE, struct.pack("=4I", *loss)))
    elif isinstance(loss, FourState):
        data += nested(TCA_NETEM_LOSS, attribute(NETEM_LOSS_GI, struct.pack("=5I", *loss)))
    if options.seed is not None:
        data += attribute(TCA_NETEM_PRNG_SEED, u64(options.seed))
    return data


def decode(data: bytes) -> Netem:
    latency, limit, loss, gap, duplicate, jitter = QOPT.unpack_from(data)
    found = attributes(data, QOPT.size)
    correlations = CORR.unpack_from(found.get(TCA_NETEM_CORR, bytes(CORR.size)))
    rate, packet_overhead, cell_size, cell_overhead = RATE.unpack_from(found.get(TCA_NETEM_RATE, bytes(RATE.size)))
    return Netem(
        delay=integer(found.get(TCA_NETEM_LATENCY64, s64(latency * units.TICK_NS))),
        jitter=integer(found.get(TCA_NETEM_JITTER64, s64(jitter * units.TICK_NS))),
        delay_correlation=correlations[0],
        loss=_decode_loss(found.get(TCA_NETEM_LOSS, b""), Chance(loss, correlations[1])),
        duplicate=Chance(duplicate, correlations[2]),
        reorder=Chance(*PROBABILITY.unpack_from(found.get(TCA_NETEM_REORDER, bytes(8)))),
        gap=gap,
        corrupt=Chance(*PROBABILITY.unpack_from(found.get(TCA_NETEM_CORRUPT, bytes(8)))),
        rate=integer(found.get(TCA_NETEM_RATE64, u32(rate))),
        packet_overhead=packet_overhead,
        cell_size=cell_size,
        cell_overhead=cell_overhead,
        slot=Slot(*SLOT.unpack_from(found.get(TCA_NETEM_SLOT, bytes(SLOT.size)))),
        limit=limit,
        ecn=bool(integer(found.get(TCA_NETEM_ECN, u32(0)))),
        seed=integer(found[TCA_NETEM_PRNG_SEED]) if TCA_NETEM_PRNG_SEED in found else None,
    )


def _decode_loss(data: bytes, random: Chance) -> Chance | GilbertElliott | FourState:
    models = attributes(data)
    if NETEM_LOSS_GE in models:
        return GilbertElliott(*struct.unpack_from("=4I", models[NETEM_LOSS_GE]))
    if NETEM_LOSS_GI in models:
        return FourState(*struct.unpack_from("=5I", models[NETEM_LOSS_GI]))
    return random


def render(options: Netem) -> str:
    """tc's words, in the order of its man page."""
    percent = units.percent_text
    delay = [units.time_text(options.delay)]
    if options.jitter or options.delay_correlation:
        delay += [units.time_text(options.jitter)]
    if options.delay_correlation:
        delay += [percent(options.delay_correlation)]
    rate = [units.rate_text(options.rate), options.packet_overhead, options.cell_size, options.cell_overhead]
    while len(rate) > 1 and not rate[-1]:
        rate.pop()
    return words(
        limit=options.limit,
        delay=" ".join(delay) if options.delay or options.jitter else None,
        loss=_render_loss(options.loss),
        duplicate=_render_chance(options.duplicate),
        corrupt=_render_chance(options.corrupt),
        reorder=_render_chance(options.reorder),
        gap=options.gap if options.gap and options.reorder.probability else None,
        rate=" ".join(map(str, rate)) if options.rate else None,
        slot=_render_slot(options.slot),
        seed=options.seed,
    ) + (" ecn" if options.ecn else "")


def _render_chance(chance: Chance) -> str | None:
    if not chance.probability:
        return None
    shown = [units.percent_text(part) for part in chance]
    return " ".join(shown if chance.correlation else shown[:1])


def _render_loss(loss: Chance | GilbertElliott | FourState) -> str | None:
    percent, all_of_it = units.percent_text, units.PERCENT_MAX
    if isinstance(loss, GilbertElliott):
        return f"gemodel {percent(loss.p)} {percent(loss.r)} {percent(all_of_it - loss.h)} {percent(loss.k1)}"
    if isinstance(loss, FourState):
        return "state " + " ".join(percent(part) for part in (loss.p13, loss.p31, loss.p32, loss.p23, loss.p14))
    return _render_chance(loss)


def _render_slot(slot: Slot) -> str | None:
    if slot == Slot():
        return None
    bounds = words(packets=slot.packets or None, bytes=slot.bytes or None)
    if slot.distribution_jitter:
        times = f"distribution {units.time_text(slot.distribution_delay)} {units.time_text(slot.distribution_jitter)}"
    else:
        times = f"{units.time_text(slot.min_delay)} {units.time_text(slot.max_delay)}"
    return f"{times} {bounds}".strip()


def same(desired: Netem, observed: Netem) -> bool:
    """A seed that nobody asked for is the kernel's business; a kernel that has seeds shows one in every dump."""
    if desired.seed is not None and observed.seed is None:
        raise MissingCapability("a netem seed", "Linux 6.6 or later (TCA_NETEM_PRNG_SEED)", "leave seed out")
    return desired == observed or (desired.seed is None and desired == observed._replace(seed=None))


PERCENT = leaf(units.parse_percent)
TIME = leaf(units.parse_time)
COUNT = leaf(units.parse_integer)


def chance(word: str) -> Callable[[object, str], Chance]:
    """`1%`, or a mapping of the probability under `word` with its correlation."""
    long = schema.mapping({word: PERCENT, "correlation": PERCENT}, required=[word])

    def parsed(value: object, path: str) -> Chance:
        if not isinstance(value, dict):
            return Chance(PERCENT(value, path))
        found = long(value, path)
        return Chance(found[word], found.get("correlation", 0))

    return parsed


def parse_jitter(value: object) -> int:
    """Nanoseconds. Larger ones the kernel cuts without a word (net/sched/sch_netem.c, netem_change)."""
    jitter = units.parse_time(value)
    if jitter > JITTER_MAX:
        raise ValueError("the kernel holds a jitter of 2147483647ns (2.1s) at most")
    return jitter


def parse_loss(value: object, path: str) -> Chance | GilbertElliott | FourState:
    """A percentage, `{random, correlation}`, `{gemodel: {p, r, 1-h, 1-k}}` or `{state: {p13, p31, p32, p23, p14}}`."""
    if not isinstance(value, dict) or "random" in value:
        return chance("random")(value, path)
    models = {
        "random": PERCENT,
        "correlation": PERCENT,
        "gemodel": schema.mapping(dict.fromkeys(("p", "r", "1-h", "1-k"), PERCENT), required=["p"]),
        "state": schema.mapping(dict.fromkeys(("p13", "p31", "p32", "p23", "p14"), PERCENT), required=["p13"]),
    }
    found = schema.mapping(models)(value, path)
    if len(found) != 1 or "correlation" in found:
        raise schema.InvalidInput(path, value, "write one of random (with correlation), gemodel and state")
    whole = units.PERCENT_MAX
    if "gemodel" in found:
        model = found["gemodel"]
        # The defaults of tc-netem(8): r = 1 - p, everything is lost in the bad state, nothing in the good one.
        return GilbertElliott(
            model["p"],
            model.get("r", _rest(value, "gemodel", "p")),
            whole - model.get("1-h", whole),
            model.get("1-k", 0),
        )
    model = found["state"]
    return FourState(
        model["p13"],
        model.get("p31", _rest(value, "state", "p13")),
        model.get("p32", 0),
        model.get("p14", 0),
        model.get("p23", whole),
    )


def _rest(value: Any, model: str, key: str) -> int:
    """What tc takes for the way back where only the way there is written."""
    return units.parse_complement(value[model][key])


def parse_slot(value: object, path: str) -> Slot:
    """`{min, max, packets, bytes}`: the time between slots lies evenly between min and max.

    The kernel's delay and jitter of slots count only with a distribution's table (get_slot_next): not offered.
    """
    bound = leaf(lambda number: units.parse_integer(number, 1, 2**31 - 2))  # INT_MAX is how it says none
    found = schema.mapping({"min": TIME, "max": TIME, "packets": bound, "bytes": bound}, required=["min"])(value, path)
    most = found.get("max", found["min"])
    if most < found["min"]:
        raise schema.InvalidInput(f"{path}.max", units.time_text(most), "write a time not below min")
    if not most:
        raise schema.InvalidInput(f"{path}.min", "0ns", "write a time above 0, or a max")
    return Slot(found["min"], most, found.get("packets", 0), found.get("bytes", 0))


def parse_reorder(value: object, path: str) -> tuple[Chance, int]:
    """(chance, gap): `25%` or `{percent, correlation, gap}`; with gap n only every nth packet is a candidate."""
    if not isinstance(value, dict):
        return Chance(PERCENT(value, path)), 1
    gap = leaf(lambda number: units.parse_integer(number, 1))
    fields = {"percent": PERCENT, "correlation": PERCENT, "gap": gap}
    found = schema.mapping(fields, required=["percent"])(value, path)
    return Chance(found["percent"], found.get("correlation", 0)), found.get("gap", 1)


def build(**given: Any) -> Netem:
    """Options of parsed parameters; contradictions raise ValueError as tc(8) refuses them."""
    reorder, gap = given.pop("reorder", (Chance(), 0))
    options = Netem(**given, reorder=reorder, gap=gap if reorder.probability else 0)
    if options.reorder.probability and not options.delay:
        raise ValueError("reorder needs a delay: what is reordered overtakes the packets that wait")
    if options.jitter and not options.delay:
        raise ValueError("jitter needs a delay")
    if options.delay_correlation and not options.jitter:
        raise ValueError("delay_correlation needs a jitter")
    if not options.rate and (options.packet_overhead or options.cell_size or options.cell_overhead):
        raise ValueError("packet_overhead, cell_size and cell_overhead need a rate")
    if options.ecn and options.loss == Chance():
        raise ValueError("ecn needs a loss: it marks the packets that would be lost")
    return options


# Shared with the impairment vocabulary: the same words mean the same.
IMPAIRMENTS: dict[str, Parser] = {
    "delay": TIME,
    "jitter": leaf(parse_jitter),
    "delay_correlation": PERCENT,
    "loss": parse_loss,
    "duplicate": chance("percent"),
    "corrupt": chance("percent"),
    "reorder": parse_reorder,
    "slot": parse_slot,
    "seed": leaf(lambda value: units.parse_integer(value, 0, 2**64 - 1)),
}
NETEM = Kind(
    "netem",
    {
        **IMPAIRMENTS,
        "rate": leaf(units.parse_rate),
        "packet_overhead": leaf(lambda value: units.parse_integer(value, -(2**31), 2**31 - 1)),
        "cell_size": COUNT,
        "cell_overhead": leaf(lambda value: units.parse_integer(value, -(2**31), 2**31 - 1)),
        "limit": leaf(lambda value: units.parse_integer(value, 1)),
        "ecn": leaf(units.parse_boolean),
    },
    build,
    encode,
    decode,
    render,
    same,
    slots=lambda _options: 1,
)
