# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Histograms as files/bpf/observe.c has them: four slots to each power of two, nanoseconds in them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

SLOTS = 256
LAYOUT = struct.Struct(f"={2 + SLOTS}Q")  # struct histogram: count, sum, slots


class Histogram(NamedTuple):
    """How many values fell into each slot; `count` and `total` (ns) are exact."""

    count: int  # type: ignore[assignment]  # hides tuple.count
    total: int
    slots: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Nanoseconds; 0 where there is nothing."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Nanoseconds below which so many of a hundred lie, as if a slot's values lay evenly in it."""
        left = sum(self.slots) * percent / 100
        for number, count in enumerate(self.slots):
            if count and left <= count:
                low, high = bounds(number)
                return low + (high - low) * left / count
            left -= count
        return 0.0

    def powers(self) -> list[tuple[int, int]]:
        """(lower bound in ns, count) of each power of two, from the first to the last that has anything."""
        counts = [sum(self.slots[4 * power : 4 * power + 4]) for power in range(SLOTS // 4)]
        filled = [power for power, count in enumerate(counts) if count]
        if not filled:
            return []
        return [(1 << power if power else 0, counts[power]) for power in range(filled[0], filled[-1] + 1)]


def decode(data: bytes, offset: int = 0) -> Histogram:
    """From a map's value."""
    count, total, *slots = LAYOUT.unpack_from(data, offset)
    return Histogram(count, total, tuple(slots))


def bounds(slot: int) -> tuple[int, int]:
    """Nanoseconds: the least of a slot, and the least above it."""
    power, quarter = divmod(slot, 4)
    if power < 2:  # values below 4 have a slot each, and the slots up to 8 none
        return slot, slot + 1
    width = 1 << (power - 2)
    return (4 + quarter) * width, (5 + quarter) * width


def add(histograms: Sequence[Histogram]) -> Histogram:
    """All in one."""
    slots = [sum(column) for column in zip(*(one.slots for one in histograms))] or [0] * SLOTS
    return Histogram(sum(one.count for one in histograms), sum(one.total for one in histograms), tuple(slots))
