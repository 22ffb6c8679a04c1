# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judging what was measured. Plain figures in, verdicts out; nothing here knows how they were measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

STRICT = 3.29  # a right loss fails once in a thousand runs
SHOWN = 1.96  # the 95 % interval in the table


class Verdict(NamedTuple):
    """How one quantity came out."""

    ok: bool
    got: str
    tolerance: str
    samples: int
    note: str = ""


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


def judge_delay(asked: float, through: Sequence[float], base: Sequence[float], jitter: float = 0.0) -> Verdict:
    """Median of the round trips through the class less that of the unimpaired ones; all in seconds."""
    if len(through) < 5 or len(base) < 5:
        return Verdict(False, "", "", len(through), f"too few answers: {len(through)} impaired, {len(base)} unimpaired")
    reference = statistics.median(base)
    got = statistics.median(through) - reference
    tolerance = max(0.001, 0.02 * asked) + STRICT * 1.25 * jitter / math.sqrt(len(through))
    note = f"unimpaired round trip {1000 * reference:.2f}ms"
    ok = abs(got - asked) <= tolerance
    return Verdict(ok, f"{1000 * got:.2f}ms", f"±{1000 * tolerance:.2f}ms", len(through), note)


def judge_jitter(asked: float, through: Sequence[float], normal: bool) -> Verdict:
    """The delay's spread: netem's jitter is half the width of a uniform spread, or a table's standard deviation."""
    if len(through) < 20:
        return Verdict(False, "", "", len(through), "too few answers to judge a spread")
    got = statistics.pstdev(through) * (1 if normal else math.sqrt(3))
    tolerance = 0.001 + asked * STRICT / math.sqrt(2 * len(through))
    return Verdict(abs(got - asked) <= tolerance, f"{1000 * got:.2f}ms", f"±{1000 * tolerance:.2f}ms", len(through))


class Arrival(NamedTuple):
    at: int  # ns
    length: int  # bytes, layer 2


def rate_of(arrivals: Sequence[Arrival], skip: int) -> tuple[float, int]:
    """(bit/s, packets) behind the first `skip` bytes: what came between two arrivals over the time between them."""
    passed = start = 0
    while start < len(arrivals) and passed < skip:
        passed += arrivals[start].length
        start += 1
    counted = arrivals[start:]
    if len(counted) < 2 or counted[-1].at <= counted[0].at:
        return 0.0, len(counted)
    size = sum(one.length for one in counted[1:])
    return size * 8e9 / (counted[-1].at - counted[0].at), len(counted)


def judge_rate(asked: float, got: float, samples: int, capacity: float = 0.0, offered: float = 0.0) -> Verdict:
    """The receiver's layer 2 rate under overload, within 2 %.

    `capacity` is what the same path carries unimpaired (0: not measured). Where that is below the asked rate, the
    class can only be shown not to be faster than asked and not to be the bottleneck: the note says so.
    """
    text = rate_text(got)
    if samples < 20:
        return Verdict(False, text, "", samples, "too few packets arrived to judge a rate")
    if capacity and capacity < 1.03 * asked:
        note = f"the path carries no more than {rate_text(capacity)}: shown is only that the class leaves it that"
        return Verdict(0.9 * capacity <= got <= 1.02 * asked, text, "≥90% of the path, ≤102%", samples, note)
    note = ""
    if offered and offered < 1.45 * asked:
        note = f"offered only {rate_text(offered)}"
        if offered < 1.03 * asked:
            return Verdict(False, text, "±2%", samples, note + ": too little to judge")
    elif capacity and capacity < 1.45 * asked:
        note = f"the path carries {rate_text(capacity)}"
    return Verdict(abs(got - asked) <= 0.02 * asked, text, "±2%", samples, note)


def rate_text(rate: float) -> str:
    """A rate for people."""
    for unit, factor in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if rate >= factor:
            return f"{rate / factor:.4g}{unit}"
    return f"{rate:.4g}bit"
