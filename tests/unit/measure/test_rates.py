# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fast rates in windows, between windows of the unimpaired path."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from plugins.module_utils.measure.judge import Arrival, Path, rate_of
from plugins.module_utils.measure.rates import Numbered, Window, around, judge_rates, split, without_burst

MBIT = 1e6


def stream(rate: float, count: int = 2000, start: float = 0.0) -> list[Arrival]:
    """Full packets at an even rate in Mbit/s, from `start` seconds on."""
    return [Arrival(int(start * 1e9 + n * 1514 * 8e9 / (rate * MBIT)), 1514) for n in range(count)]


def windows(*got_and_path: tuple[float, float]) -> list[Window]:
    return [Window(stream(got), Path(capacity=path * MBIT)) for got, path in got_and_path]


def test_the_middle_window_decides() -> None:
    verdict = judge_rates(100 * MBIT, windows((99.9, 200), (100.1, 210), (52, 180), (100, 190)))
    assert verdict.ok
    assert verdict.note == ""


@pytest.mark.parametrize("got", [50, 90, 97, 103, 110])
def test_another_rate_fails_on_a_path_that_carries_enough(got: float) -> None:
    assert not judge_rates(100 * MBIT, windows(*[(got, 200)] * 4)).ok


def test_windows_of_a_path_that_fails_for_a_moment_do_not_count() -> None:
    verdict = judge_rates(100 * MBIT, windows((100, 200), (58, 60), (100, 140), (100, 180)))
    assert verdict.ok
    assert "3 of 4 windows" in verdict.note
    assert not judge_rates(100 * MBIT, windows((90, 200), (58, 60), (90, 140), (90, 180))).ok


def test_a_narrow_path_is_said_and_its_noise_does_not_fail() -> None:
    verdict = judge_rates(100 * MBIT, windows((52, 58), (60, 58), (90, 110), (30, 58)))
    assert verdict.ok
    assert "carries 59mbit, too little" in verdict.note


def test_on_a_narrow_path_half_of_it_fails() -> None:
    assert not judge_rates(100 * MBIT, windows((29, 58), (30, 60), (50, 110), (31, 58))).ok
    assert not judge_rates(100 * MBIT, windows((55, 110), (50, 100), (60, 120), (58, 115))).ok


def test_faster_than_asked_fails_on_a_narrow_path_too() -> None:
    assert not judge_rates(100 * MBIT, windows(*[(104, 110)] * 4)).ok


def test_a_path_with_less_than_what_is_offered_is_said() -> None:
    verdict = judge_rates(100 * MBIT, windows(*[(100, 130)] * 4))
    assert verdict.ok
    assert verdict.note == "the path carries 130mbit"


def test_an_empty_window_fails() -> None:
    some = windows(*[(100, 200)] * 3)
    assert not judge_rates(100 * MBIT, [*some, Window((), Path(capacity=200 * MBIT))]).ok
    assert not judge_rates(100 * MBIT, []).ok


def test_each_window_counts_from_nought_again() -> None:
    def numbered(part: Sequence[Arrival], lost: int) -> list[Numbered]:
        return [Numbered(n, one) for n, one in enumerate(part) if n >= lost]

    parts = split([*numbered(stream(10, 100), 0), *numbered(stream(20, 100, 1), 7), *numbered(stream(30, 100, 2), 1)])
    assert [len(part) for part in parts] == [100, 93, 99]
    assert [round(rate_of(part) / MBIT) for part in parts] == [10, 20, 30]


def test_packets_out_of_order_begin_no_window() -> None:
    arrivals = stream(10, 4)
    order = [0, 3, 2, 1]
    assert len(split([Numbered(seq, one) for seq, one in zip([100 + n for n in order], arrivals)])) == 1


def test_the_path_next_to_a_window() -> None:
    plain = [stream(200, 100, 0), stream(120, 100, 2), stream(150, 100, 4)]
    assert round(around(stream(100, 100, 1), plain) / MBIT) == 120
    assert round(around(stream(100, 100, 3), plain) / MBIT) == 120
    assert round(around(stream(100, 100, 5), plain) / MBIT) == 150
    assert around(stream(100, 100, 1), []) == 0.0


def test_a_burst_is_left_out() -> None:
    assert len(without_burst(stream(10, 100), 0)) == 90
    assert len(without_burst(stream(10, 100), 20 * 1514)) == 60
