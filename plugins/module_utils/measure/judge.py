# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judging what was measured. Plain figures in, verdicts out; nothing here knows how they were measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

STRICT = 3.29  # a right loss fails once in a thousand runs
SHOWN = 1.96  # the 95 % interval in the table
NARROW = 1.25  # a path or an offer below so many times the asked rate cannot show that rate


class Verdict(NamedTuple):
    """How one quantity came out."""

    ok: bool
    got: str
    tolerance: str
    samples: int
    note: str = ""


def joined(*notes: str) -> str:
    """Notes as one; empty ones are left out."""
    return "; ".join(note for note in notes if note)


class Nth(NamedTuple):
    """Which packets are missing, held against `every n-th`."""

    ok: bool
    phase: int  # 0-based place in each group of n, counted from the first packet captured; -1: none fits
    missing: int
    unexpected: int  # missing outside the phase
    spared: int  # arrived although the phase says dropped


def nth(order: Sequence[int | None], arrived: frozenset[int] | set[int], every: int) -> Nth:
    """Hold a sequence of packets against `drop every n-th`.

    `order` has the class's packets as they were counted: our packet's number, or None for somebody else's packet,
    which takes part in the count and whose own fate is not judged.
    """
    places: dict[int, int] = {}
    missing = 0
    for position, number in enumerate(order):
        if number is not None and number not in arrived:
            missing += 1
            places[position % every] = places.get(position % every, 0) + 1
    if not missing:
        return Nth(False, -1, 0, 0, len(order) // every)
    phase = max(places, key=lambda place: places[place])
    due = [number for number in order[phase::every] if number is not None]
    spared = sum(number in arrived for number in due)
    unexpected = missing - places[phase]
    return Nth(not spared and not unexpected, phase, missing, unexpected, spared)


def judge_nth(order: Sequence[int | None], arrived: set[int], every: int) -> Verdict:
    """Exactly the n-th packets are missing, and no other."""
    ours = sum(number is not None for number in order)
    found = nth(order, arrived, every)
    notes = []
    if len(order) - ours:
        notes.append(f"{len(order) - ours} foreign packets in the count")
    enough = len(order) >= 3 * every
    if not enough:
        notes.append(f"too few packets: {3 * every} at least are needed")
    if found.unexpected:
        notes.append(f"{found.unexpected} missing out of turn")
    if found.spared:
        notes.append(f"{found.spared} arrived that should be missing")
    got = f"{found.missing} of {ours} missing"
    if found.ok:
        got += f", each {every}. (place {found.phase} of the captured order)"
    return Verdict(found.ok and enough, got, "exact", ours, "; ".join(notes))


class Turns(NamedTuple):
    """Which packets are chosen, held against a pattern that may begin anywhere."""

    place: int  # of the first packet captured in the pattern that explains most
    chosen: int
    unexpected: int  # chosen at a 0
    spared: int  # not chosen at a 1

    @property
    def ok(self) -> bool:
        return not self.unexpected and not self.spared


def turns(order: Sequence[int | None], chosen: AbstractSet[int], pattern: str) -> Turns:
    """Hold a sequence of packets against a pattern of 0 and 1, repeated. `order` as nth() has it."""
    hit, rest = (
        _bits(number is not None and (number in chosen) is wanted for number in order) for wanted in (True, False)
    )
    repeated = _bits(digit == "1" for digit in pattern * (len(order) // len(pattern) + 2))
    best = Turns(0, hit.bit_count(), hit.bit_count(), rest.bit_count() + 1)
    for place in range(len(pattern)):
        due = repeated >> place
        unexpected, spared = (hit & ~due).bit_count(), (rest & due).bit_count()
        if unexpected + spared < best.unexpected + best.spared:
            best = Turns(place, hit.bit_count(), unexpected, spared)
    return best


def _bits(flags: Iterable[bool]) -> int:
    """A number whose bit n is flag n."""
    return int("".join("01"[flag] for flag in flags)[::-1] or "0", 2)


def judge_turns(order: Sequence[int | None], chosen: AbstractSet[int], pattern: str, word: str = "missing") -> Verdict:
    """Exactly the packets at a 1 of the pattern are chosen, and no other. `word`: what became of those."""
    ours = sum(number is not None for number in order)
    found = turns(order, chosen, pattern)
    least = max(20, 2 * len(pattern))
    notes = [
        f"{len(order) - ours} foreign packets in the count" if len(order) > ours else "",
        f"too few packets: {least} at least are needed" if len(order) < least else "",
        f"{found.unexpected} {word} out of turn" if found.unexpected else "",
        f"{found.spared} not {word} that should be" if found.spared else "",
    ]
    got = f"{found.chosen} of {ours} {word}"
    if found.ok:
        got += f" (the first captured is at place {found.place} of the pattern)"
    return Verdict(found.ok and len(order) >= least, got, "exact", ours, joined(*notes))


def judge_number(pattern: str, numbers: range, order: Sequence[int | None], word: str) -> Verdict:
    """As many packets as the pattern chooses, wherever it began; which ones is not known, nor the number quite."""
    ours = sum(number is not None for number in order)
    whole, rest = divmod(len(order), len(pattern))
    windows = [(pattern + pattern)[place : place + rest].count("1") for place in range(len(pattern))]
    low, high = (whole * pattern.count("1") + extreme for extreme in (min(windows), max(windows)))
    low = max(0, low - (len(order) - ours))  # the others' fate is not known
    least = max(20, 2 * len(pattern))
    note = f"too few packets: {least} at least are needed" if len(order) < least else ""
    ok = numbers[0] <= high and numbers[-1] >= low and not note
    said = f"{numbers[-1]} of {ours} {word}"
    if len(numbers) > 1:
        said += f", of which {len(numbers) - 1} may be somebody else's"
    return Verdict(ok, said, f"{low} to {high}" if low < high else "exact", ours, note)


def interval(count: int, total: int, z: float = SHOWN) -> tuple[float, float]:
    """Wilson's interval for a share."""
    if not total:
        return 0.0, 1.0
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def judge_share(asked: float, count: int, total: int, memory: float = 0.0, least: int = 20) -> Verdict:
    """A random share of packets. None and all are judged exactly.

    `memory` is the correlation of one packet's fate with the next one's: it makes fewer independent samples.
    """
    if total < least:
        return Verdict(False, f"{count} of {total}", "", total, "too few packets to judge a share")
    low, high = interval(count, total)
    got = f"{100 * count / total:.2f}% ({count} of {total}; 95% interval {100 * low:.2f}–{100 * high:.2f}%)"
    if asked in (0.0, 1.0):
        return Verdict(count == round(asked * total), got, "exact", total)
    effective = total * (1 - memory) / (1 + memory)
    if effective * min(asked, 1 - asked) < 3:
        return Verdict(False, got, "", total, "too few packets to judge this share")
    within = STRICT * math.sqrt(asked * (1 - asked) / effective) + 0.5 / total
    return Verdict(abs(count / total - asked) <= within, got, f"±{100 * within:.2f}%", total)


def judge_delay(
    asked: float, through: Sequence[float], base: Sequence[float], jitter: float = 0.0, inside: float | None = None
) -> Verdict:
    """Median of the round trips through the class less that of the unimpaired ones; all in seconds.

    `inside` is the delay by the impaired node's own clock. It decides only where the unimpaired round trips scatter
    so much (a busy machine) that their median says nothing within the tolerance; the note says so.
    """
    if len(through) < 5 or len(base) < 5:
        return Verdict(False, "", "", len(through), f"too few answers: {len(through)} impaired, {len(base)} unimpaired")
    reference = statistics.median(base)
    scatter = statistics.median(abs(one - reference) for one in base)
    got = statistics.median(through) - reference
    tolerance = max(0.001, 0.02 * asked) + STRICT * jitter / math.sqrt(len(through))
    note = f"unimpaired round trip {1000 * reference:.2f}ms"
    ok = abs(got - asked) <= tolerance
    if not ok and inside is not None and scatter > tolerance / 3 and abs(inside - asked) <= tolerance:
        note += f" ± {1000 * scatter:.2f}ms, too unsteady; by the node's own clock {1000 * inside:.2f}ms"
        ok = True
    return Verdict(ok, f"{1000 * got:.2f}ms", f"±{1000 * tolerance:.2f}ms", len(through), note)


def judge_jitter(asked: float, took: Sequence[float], spread: float = 1.0) -> Verdict:
    """The delay's spread, from its quartiles, which a few late packets do not move.

    netem's jitter is half the width of a uniform spread, which is also the distance of its quartiles. Those of another
    distribution are `spread` jitters apart: 1.349 of a normal one.
    """
    if len(took) < 20:
        return Verdict(False, "", "", len(took), "too few answers to judge a spread")
    low, _middle, high = statistics.quantiles(took, n=4)
    got = (high - low) / spread
    tolerance = 0.001 + STRICT * asked / math.sqrt(len(took))  # a quartile distance scatters by about jitter / √n
    return Verdict(abs(got - asked) <= tolerance, f"{1000 * got:.2f}ms", f"±{1000 * tolerance:.2f}ms", len(took))


class Arrival(NamedTuple):
    at: int  # ns
    length: int  # bytes, layer 2


def settled(arrivals: Sequence[Arrival], skip: int) -> Sequence[Arrival]:
    """Arrivals behind the first `skip` bytes, which a burst may have let through at once."""
    passed = start = 0
    while start < len(arrivals) and passed < skip:
        passed += arrivals[start].length
        start += 1
    return arrivals[start:]


def rate_of(arrivals: Sequence[Arrival]) -> float:
    """bit/s: what came between the first arrival and the last over the time between them; 0 for too few."""
    if len(arrivals) < 2 or arrivals[-1].at <= arrivals[0].at:
        return 0.0
    return sum(one.length for one in arrivals[1:]) * 8e9 / (arrivals[-1].at - arrivals[0].at)


def usual_rate(arrivals: Sequence[Arrival], windows: int = 20) -> float:
    """bit/s of the middle one of up to 20 windows of equally many packets, if six in ten are within 3 % of it; or 0."""
    size = max(10, len(arrivals) // windows)
    rates = [rate_of(arrivals[start : start + size + 1]) for start in range(0, len(arrivals) - size, size)]
    middle = statistics.median(rates) if len(rates) >= 5 else 0.0
    return middle if sum(abs(one - middle) <= 0.03 * middle for one in rates) >= 0.6 * len(rates) else 0.0


class Path(NamedTuple):
    """What a rate is held against besides the asked one; bit/s, 0: not known."""

    capacity: float = 0.0  # what the same path carries unimpaired
    offered: float = 0.0  # what reached the class


NOTHING_KNOWN = Path()


def judge_rate(asked: float, arrivals: Sequence[Arrival], path: Path = NOTHING_KNOWN) -> Verdict:
    """The receiver's layer 2 rate under overload, within 2 %.

    A path that carries hardly more than asked is judged by _judge_narrow. Where a machine halts now and then (a
    virtual node on a busy host), the mean is too low although the class holds its rate whenever the node runs: then
    the middle one of twenty windows decides, and the note says so.
    """
    got, samples = rate_of(arrivals), len(arrivals)
    text = rate_text(got)
    if samples < 20:
        return Verdict(False, text, "", samples, "too few packets arrived to judge a rate")
    if path.capacity and path.capacity < NARROW * asked:
        return _judge_narrow(asked, got, samples, path.capacity)
    note = ""
    if path.offered and path.offered < NARROW * asked:
        return Verdict(False, text, "±2%", samples, f"offered only {rate_text(path.offered)}: too little to judge")
    if path.capacity and path.capacity < 1.45 * asked:
        note = f"the path carries {rate_text(path.capacity)}"
    usual = usual_rate(arrivals)
    if abs(got - asked) > 0.02 * asked and abs(usual - asked) <= 0.02 * asked:
        return Verdict(True, rate_text(usual), "±2%", samples, f"most of the time; the mean is {text}, nodes halted")
    return Verdict(abs(got - asked) <= 0.02 * asked, text, "±2%", samples, note)


def _judge_narrow(asked: float, got: float, samples: int, capacity: float) -> Verdict:
    """The class is not faster than asked, and not what limits the path.

    A busy machine carries 20 % more or less from one second to the next: hence the lower bound.
    """
    least = 0.8 * min(asked, capacity)
    note = f"the unimpaired path carries {rate_text(capacity)}, too little to show more than this"
    return Verdict(least <= got <= 1.02 * asked, rate_text(got), f"{rate_text(least)} to +2%", samples, note)


def rate_text(rate: float) -> str:
    """A rate for people."""
    for unit, factor in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if rate >= factor:
            return f"{rate / factor:.4g}{unit}"
    return f"{rate:.4g}bit"
