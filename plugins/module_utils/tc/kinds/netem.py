# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network emulation (linux/pkt_sched.h, net/sched/sch_netem.c, tc-netem(8)).

Everything is always sent: netem's change keeps what a request leaves out.

But for tables of distributions (8 kB each), which no dump shows. A table's identity stands in a field of the same
qdisc that the kernel dumps and does not use: the correlation of an impairment whose probability is 0, or max_delay of
slots that follow a distribution. So it lives and dies with the table, tc(8) does not show it, what stands can be read
and compared as ever, and another table, or none, is one change message.
"""

from __future__ import annotations

import struct
from typing import Any

from ... import units
from ...errors import MissingCapability
from ...netlink import attribute, attributes, integer, nested, s64, u32, u64
from ...schema import leaf
from .base import Kind
from .netem_options import Chance, Distribution, FourState, GilbertElliott, Netem, Slot
from .netem_words import COUNT, IMPAIRMENTS, build, render

(
    TCA_NETEM_CORR,
    TCA_NETEM_DELAY_DIST,
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
    TCA_NETEM_SLOT_DIST,
    TCA_NETEM_PRNG_SEED,
) = range(1, 15)
NETEM_LOSS_GI, NETEM_LOSS_GE = 1, 2
QOPT = struct.Struct("=6I")  # tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter (times in ticks)
CORR = struct.Struct("=3I")  # tc_netem_corr: delay, loss, duplicate
PROBABILITY = struct.Struct("=2I")  # tc_netem_reorder and tc_netem_corrupt: probability, correlation
RATE = struct.Struct("=IiIi")  # tc_netem_rate: rate, packet overhead, cell size, cell overhead
SLOT = struct.Struct("=qqiiqq")  # tc_netem_slot: min and max delay, packets, bytes, distribution's delay and jitter


def encode(options: Netem) -> bytes:
    """For a netem that is made."""
    return change(options, Netem())


def change(options: Netem, old: Netem) -> bytes:
    """For one that stands: with the tables that it does not have yet."""
    data = _encode(_marked(options))
    tables = []
    if options.distribution.identity != old.distribution.identity:
        tables.append((TCA_NETEM_DELAY_DIST, options.distribution))
    if options.slot.distribution_jitter and options.slot.distribution.identity != old.slot.distribution.identity:
        tables.append((TCA_NETEM_SLOT_DIST, options.slot.distribution))
    for kind, distribution in tables:
        from .distribution import table

        data += attribute(kind, table(distribution))
    return data


def _place(options: Netem) -> str:
    """The impairment that is not asked for, and whose correlation keeps the identity of the distribution."""
    places = ("corrupt", "reorder", "duplicate", "loss")
    free = (name for name in places if isinstance(found := getattr(options, name), Chance) and not found.probability)
    return next(free, "")


def _with(options: Netem, name: str, chance: Any) -> Netem:
    return options._replace(**{name: chance})


def _marked(options: Netem) -> Netem:
    if place := _place(options):
        options = _with(options, place, Chance(0, options.distribution.identity))
    if options.slot.distribution_jitter:
        options = options._replace(slot=options.slot._replace(max_delay=options.slot.distribution.identity))
    return options


def _unmarked(options: Netem) -> Netem:
    identities = [0, 0]
    if place := _place(options):
        identities[0] = getattr(options, place).correlation
        options = _with(options, place, Chance())
    if options.slot.distribution_jitter:
        identities[1] = options.slot.max_delay
        options = options._replace(slot=options.slot._replace(max_delay=0))
    if any(identities) or options.slot.distribution_jitter:
        from .distribution import known

        if identities[0]:
            options = options._replace(distribution=known(identities[0]))
        if options.slot.distribution_jitter:
            options = options._replace(slot=options.slot._replace(distribution=known(identities[1])))
    return options


def _encode(options: Netem) -> bytes:
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
    data += attribute(TCA_NETEM_ECN, u32(options.ecn)) + attribute(TCA_NETEM_SLOT, SLOT.pack(*options.slot[:6]))
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
    options = Netem(
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
    return _unmarked(options)


def _decode_loss(data: bytes, random: Chance) -> Chance | GilbertElliott | FourState:
    models = attributes(data)
    if NETEM_LOSS_GE in models:
        return GilbertElliott(*struct.unpack_from("=4I", models[NETEM_LOSS_GE]))
    if NETEM_LOSS_GI in models:
        return FourState(*struct.unpack_from("=5I", models[NETEM_LOSS_GI]))
    return random


def same(desired: Netem, observed: Netem) -> bool:
    """A seed that nobody asked for is the kernel's business; a kernel that has seeds shows one in every dump."""
    if desired.seed is not None and observed.seed is None:
        raise MissingCapability("a netem seed", "Linux 6.6 or later (TCA_NETEM_PRNG_SEED)", "leave seed out")
    if desired.seed is None and observed.seed is not None:
        observed = observed._replace(seed=None)
    return desired == observed or _shape(desired) == _shape(observed)


def _shape(options: Netem) -> Netem:
    """With distributions that are told by their identity alone."""
    slot = options.slot._replace(distribution=Distribution("", options.slot.distribution.identity))
    return options._replace(distribution=Distribution("", options.distribution.identity), slot=slot)


def _unchangeable(old: Netem, new: Netem) -> str:
    stays = old.slot.distribution_jitter and not new.slot.distribution_jitter
    return "slots follow their distribution for as long as the netem stands" if stays else ""


NETEM = Kind(
    "netem",
    {
        **IMPAIRMENTS,
        "rate": leaf(units.parse_rate),
        "packet_overhead": leaf(lambda value: units.parse_integer(value, -(2**31), 2**31 - 1)),
        "cell_size": COUNT,
        "cell_overhead": leaf(lambda value: units.parse_integer(value, -(2**31), 2**31 - 1)),
        "limit": leaf(lambda value: units.parse_integer(value, 1)),
    },
    build,
    encode,
    decode,
    render,
    same,
    _unchangeable,
    change,
    slots=lambda _options: 1,
)
