# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packets chance takes: splitmix64, and the loss models of net/sched/sch_netem.c, written after their sources.

Imports nothing of the collection.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

MASK = 2**64 - 1
Draw = Callable[[], int]  # of 32 bits


def splitmix64(seed: int) -> Iterator[int]:
    """https://prng.di.unimi.it/splitmix64.c"""
    state = seed
    while True:
        state = state + 0x9E3779B97F4A7C15 & MASK
        mixed = state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
        yield mixed ^ mixed >> 31


def draws(seed: int, which: int) -> Iterator[tuple[int, int]]:
    """The two draws of each packet for a chooser: of every eight numbers these two, the upper 32 bits of each."""
    stream = splitmix64(seed)
    while True:
        eight = [number >> 32 for number in itertools.islice(stream, 8)]
        yield eight[2 * which], eight[2 * which + 1]


def loss_gilb_ell(chances: Sequence[float], pairs: Iterator[tuple[int, int]]) -> Iterator[bool]:
    """loss_gilb_ell(): p, r, 1-h, 1-k as parts of 1."""
    p, r, one_minus_h, one_minus_k = (round(chance * 2**32) for chance in chances)
    a1, a2, a3, a4 = p, r, 2**32 - one_minus_h, one_minus_k
    state = "GOOD"
    for first, second in pairs:
        if state == "GOOD":
            if first < a1:
                state = "BAD"
            yield second < a4
        else:
            if first < a2:
                state = "GOOD"
            # The kernel takes another comparison here, `second > a3`, which is as probable; ours is this one.
            yield second < 2**32 - a3


def loss_4state(chances: Sequence[float], numbers: Iterator[int]) -> Iterator[bool]:
    """loss_4state(): p13, p31, p32, p23, p14 as parts of 1, as in tc-netem(8)."""
    a1, a2, a3, a5, a4 = (round(chance * 2**32) for chance in chances)
    state = "TX_IN_GAP_PERIOD"
    for rnd in numbers:
        lost = False
        if state == "TX_IN_GAP_PERIOD":
            if rnd < a4:
                state, lost = "LOST_IN_GAP_PERIOD", True
            elif a4 <= rnd < a1 + a4:
                state, lost = "LOST_IN_BURST_PERIOD", True
        elif state == "TX_IN_BURST_PERIOD":
            if rnd < a5:
                state, lost = "LOST_IN_BURST_PERIOD", True
        elif state == "LOST_IN_BURST_PERIOD":
            if rnd < a3:
                state = "TX_IN_BURST_PERIOD"
            elif a3 <= rnd < a2 + a3:
                state = "TX_IN_GAP_PERIOD"
            else:
                lost = True
        else:
            state = "TX_IN_GAP_PERIOD"
        yield lost


def gilb_ell_share(chances: Sequence[float]) -> float:
    """The share of packets that is lost in the long run."""
    p, r, one_minus_h, one_minus_k = chances
    return (p * one_minus_h + r * one_minus_k) / (p + r)


def four_state_share(chances: Sequence[float]) -> float:
    """The same: the states are walked until nothing changes any more."""
    p13, p31, p32, p23, p14 = chances
    gap, burst, lost, alone = 1.0, 0.0, 0.0, 0.0
    for _step in range(10_000):
        gap, burst, lost, alone = (
            gap * (1 - p13 - p14) + lost * p31 + alone,
            burst * (1 - p23) + lost * p32,
            gap * p13 + burst * p23 + lost * (1 - p31 - p32),
            gap * p14,
        )
    return lost + alone
