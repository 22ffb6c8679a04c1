# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of a netem as users and tc(8) write them (tc-netem(8))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import schema, units
from ...schema import Parser, leaf
from .base import words
from .netem_options import JITTER_MAX, UNIFORM, Chance, Distribution, FourState, GilbertElliott, Netem, Slot

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
    """`{min, max, packets, bytes}`, or `{distribution, delay, jitter, packets, bytes}`.

    The time between slots lies evenly between min and max, or about delay as the distribution says.
    """
    bound = leaf(lambda number: units.parse_integer(number, 1, 2**31 - 2))  # INT_MAX is how it says none
    if isinstance(value, dict) and "distribution" in value:
        return _distributed_slot(value, path, bound)
    found = schema.mapping({"min": TIME, "max": TIME, "packets": bound, "bytes": bound}, required=["min"])(value, path)
    most = found.get("max", found["min"])
    if most < found["min"]:
        raise schema.InvalidInput(f"{path}.max", units.time_text(most), "write a time not below min")
    if not most:
        raise schema.InvalidInput(f"{path}.min", "0ns", "write a time above 0, or a max")
    return Slot(found["min"], most, found.get("packets", 0), found.get("bytes", 0))


def _distributed_slot(value: dict[str, object], path: str, bound: Parser) -> Slot:
    fields = {"distribution": parse_distribution, "delay": TIME, "jitter": leaf(parse_jitter)}
    fields |= {"packets": bound, "bytes": bound}
    found = schema.mapping(fields, required=["distribution"])(value, path)
    distribution = found["distribution"]
    if distribution == UNIFORM:  # slots know no uniform distribution without a table
        from .distribution import named

        distribution = named("uniform")
    delay, jitter = found.get("delay", distribution.mean), found.get("jitter", distribution.deviation)
    if not delay or not jitter:
        raise schema.InvalidInput(path, value, "write delay and jitter, both above 0")
    return Slot(0, 0, found.get("packets", 0), found.get("bytes", 0), delay, jitter, distribution)


def parse_distribution(value: object, path: str) -> Distribution:
    """`uniform`, `normal`, `pareto`, `paretonormal`, or a list of measured delays."""
    if value == "uniform":
        return UNIFORM
    from .distribution import parse

    return parse(value, path)


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
    distribution = given.get("distribution", UNIFORM)
    given.setdefault("delay", distribution.mean)
    given.setdefault("jitter", distribution.deviation)
    options = Netem(**given, reorder=reorder, gap=gap if reorder.probability else 0)
    if options.reorder.probability and not options.delay:
        raise ValueError("reorder needs a delay: what is reordered overtakes the packets that wait")
    if options.jitter and not options.delay:
        raise ValueError("jitter needs a delay")
    if distribution != UNIFORM:
        _check_distribution(options)
    if options.delay_correlation and not options.jitter:
        raise ValueError("delay_correlation needs a jitter")
    if not options.rate and (options.packet_overhead or options.cell_size or options.cell_overhead):
        raise ValueError("packet_overhead, cell_size and cell_overhead need a rate")
    if options.ecn and options.loss == Chance():
        raise ValueError("ecn needs a loss: it marks the packets that would be lost")
    return options


def _check_distribution(options: Netem) -> None:
    if not options.jitter:
        raise ValueError("distribution needs a jitter: it says how the delays lie about their mean")
    random = (options.corrupt, options.reorder, options.duplicate, options.loss)
    if all(isinstance(chance, Chance) and chance.probability for chance in random):
        raise ValueError(
            "a distribution beside corrupt, reorder, duplicate and random loss at once leaves the kernel no field that "
            "tells which one stands; leave one of them out"
        )


# Shared with the impairment vocabulary: the same words mean the same.
IMPAIRMENTS: dict[str, Parser] = {
    "delay": TIME,
    "jitter": leaf(parse_jitter),
    "delay_correlation": PERCENT,
    "loss": parse_loss,
    "duplicate": chance("percent"),
    "corrupt": chance("percent"),
    "reorder": parse_reorder,
    "distribution": parse_distribution,
    "slot": parse_slot,
    "seed": leaf(lambda value: units.parse_integer(value, 0, 2**64 - 1)),
    "ecn": leaf(units.parse_boolean),
}


def render(options: Netem) -> str:
    """tc's words, in the order of its man page."""
    percent = units.percent_text
    delay = [units.time_text(options.delay)]
    if options.jitter or options.delay_correlation:
        delay += [units.time_text(options.jitter)]
    if options.delay_correlation:
        delay += [percent(options.delay_correlation)]
    if options.distribution != UNIFORM:
        delay += ["distribution", options.distribution.text]
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
        about = f"{units.time_text(slot.distribution_delay)} {units.time_text(slot.distribution_jitter)}"
        times = f"distribution {slot.distribution.text} {about}"
    else:
        times = f"{units.time_text(slot.min_delay)} {units.time_text(slot.max_delay)}"
    return f"{times} {bounds}".strip()
