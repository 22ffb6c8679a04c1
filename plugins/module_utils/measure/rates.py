# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fast rates, in short windows between those of the unimpaired path: what a machine carries changes by the second."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from .judge import NARROW, Arrival, Path, Verdict, judge_rate, rate_of, rate_text, settled, usual_rate

WITHIN = 0.02
SHARE = 0.7  # of what the path gives at the same time; a class limited to half of it fails by far
SPARE = 1.45  # a path below so many times the asked rate is named; it is offered 1.5 times


class Numbered(NamedTuple):
    """A packet at the receiver: its number tells where the next window begins."""

    seq: int
    arrival: Arrival


class Window(NamedTuple):
    """One overload of the class, and what the path had to give around it."""

    arrivals: Sequence[Arrival]
    path: Path


def split(packets: Sequence[Numbered]) -> list[list[Arrival]]:
    """Series that were sent one after the other: each counts from 0 again."""
    found: list[list[Arrival]] = []
    highest = -1
    for one in packets:
        if not found or one.seq < highest / 2:
            found.append([])
            highest = -1
        found[-1].append(one.arrival)
        highest = max(highest, one.seq)
    return found


def around(window: Sequence[Arrival], plain: Sequence[Sequence[Arrival]]) -> float:
    """bit/s that the unimpaired path carried next to a window: the lower of before and after; 0: not known."""
    before = [part for part in plain if part[0].at <= window[0].at][-1:]
    after = [part for part in plain if part[0].at > window[0].at][:1]
    return min((rate_of(part) for part in [*before, *after] if len(part) >= 10), default=0.0)


def without_burst(window: Sequence[Arrival], burst: int) -> Sequence[Arrival]:
    """A window without its first tenth, which a burst lets through at once."""
    return settled(window, max(2 * burst, sum(one.length for one in window) // 10))


def judge_rates(asked: float, windows: Sequence[Window]) -> Verdict:
    """The receiver's layer 2 rate: in the middle one of the windows, held against the asked rate.

    Windows in which the path could not carry enough say nothing about the asked rate. Where less than half of them
    are left, the class is held against the path instead.
    """
    if len(windows) < 2:
        return judge_rate(asked, *(windows[0] if windows else Window((), Path())))
    samples = sum(len(window.arrivals) for window in windows)
    if any(len(window.arrivals) < 10 for window in windows):
        return Verdict(False, rate_text(0), "", samples, "too few packets arrived to judge a rate")
    wide = [window for window in windows if not 0 < _least(window.path) < NARROW * asked]
    if 2 * len(wide) < len(windows):
        return _narrow(asked, windows, samples)
    got = statistics.median(_rate(asked, window) for window in wide)
    spare = statistics.median(_least(window.path) for window in wide)
    notes = [f"the path carries {rate_text(spare)}"] if 0 < spare < SPARE * asked else []
    if len(wide) < len(windows):
        notes.append(f"{len(wide)} of {len(windows)} windows; in the others the path carried too little")
    return Verdict(abs(got - asked) <= WITHIN * asked, rate_text(got), "±2%", samples, "; ".join(notes))


def _least(path: Path) -> float:
    """bit/s that can have come at most; 0: not known."""
    return min((one for one in path if one), default=0.0)


def _rate(asked: float, window: Window) -> float:
    """bit/s of a window: its mean, or what it is most of the time where a halt of the machine spoils the mean."""
    mean, usual = rate_of(window.arrivals), usual_rate(window.arrivals)
    return usual if usual and mean < (1 - WITHIN) * asked else mean


def _narrow(asked: float, windows: Sequence[Window], samples: int) -> Verdict:
    """The class is not faster than asked, and not what limits the path."""
    rates = [rate_of(window.arrivals) for window in windows]
    paths = [max(_least(window.path), rate) for window, rate in zip(windows, rates)]  # what came was carried
    got, carried = statistics.median(rates), statistics.median(paths)
    share = statistics.median(rate / min(asked, path) for rate, path in zip(rates, paths))
    ok = share >= SHARE and got <= (1 + WITHIN) * asked
    note = f"the unimpaired path carries {rate_text(carried)}, too little to show more than this: {share:.0%} of it"
    return Verdict(ok, rate_text(got), f"{SHARE:.0%} of the path to +2%", samples, note)
