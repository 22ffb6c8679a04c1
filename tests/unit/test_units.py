# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities: what is taken, what is refused, and texts that give the same integers back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils import units

TAKEN = [
    (units.parse_time, "50ms", 50_000_000),
    (units.parse_time, "1.5 s", 1_500_000_000),
    (units.parse_time, "0.001us", 1),
    (units.parse_time, 0, 0),
    (units.parse_time, "0", 0),
    (units.parse_rate, "128kbit", 16_000),
    (units.parse_rate, "1.5mbit", 187_500),
    (units.parse_rate, "10Gbit", 1_250_000_000),
    (units.parse_rate, "8bit", 1),
    (units.parse_size, "64kB", 64_000),
    (units.parse_size, "64KiB", 65_536),
    (units.parse_percent, "100%", 2**32 - 1),
    (units.parse_percent, "10%", 429_496_730),
    (units.parse_percent, "0", 0),
    (units.parse_packets, "50p", 50),
    (units.parse_integer, "0x10", 16),
    (units.parse_integer, "010", 10),
]
REFUSED = [
    (units.parse_time, 50),
    (units.parse_time, "50"),
    (units.parse_time, "-1ms"),
    (units.parse_time, "ms"),
    (units.parse_time, "1,5ms"),
    (units.parse_time, "1e3ms"),
    (units.parse_time, "٣ms"),
    (units.parse_time, True),
    (units.parse_time, None),
    (units.parse_time, ["1ms"]),
    (units.parse_time, "9223372036854775808ns"),
    (units.parse_rate, 0),
    (units.parse_rate, "7bit"),
    (units.parse_rate, "1mbps"),
    (units.parse_rate, "1kibit"),
    (units.parse_rate, "73786976294838206464bit"),
    (units.parse_size, 1500),
    (units.parse_size, "1500b"),
    (units.parse_size, "4GiB"),
    (units.parse_percent, 0.01),
    (units.parse_percent, "1"),
    (units.parse_percent, "100.1%"),
    (units.parse_packets, "0p"),
    (units.parse_packets, "1.5p"),
    (units.parse_integer, 1.0),
    (units.parse_integer, True),
    (units.parse_integer, "1 0"),
    (units.parse_integer, -1),
    (units.parse_boolean, "yes"),
]
Parse = Callable[[object], int]


@pytest.mark.parametrize(("parse", "text", "number"), TAKEN)
def test_taken(parse: Parse, text: object, number: int) -> None:
    assert parse(text) == number


@pytest.mark.parametrize(("parse", "text"), REFUSED)
def test_refused_with_what_is_allowed(parse: Parse, text: object) -> None:
    with pytest.raises(ValueError, match=r"write|the kernel|the least"):
        parse(text)


def test_a_rate_in_bps_is_answered_with_both_meanings() -> None:
    with pytest.raises(ValueError, match="write kbit for bits, or 8 times as many kbit for bytes"):
        units.parse_rate("128kbps")


@given(st.integers(0, 2**63 - 1))
def test_times_come_back(nanoseconds: int) -> None:
    assert units.parse_time(units.time_text(nanoseconds)) == nanoseconds


@given(st.integers(1, 2**63 - 1))
def test_rates_come_back(rate: int) -> None:
    assert units.parse_rate(units.rate_text(rate)) == rate


@given(st.integers(1, 2**32 - 1))
def test_percentages_come_back(probability: int) -> None:
    assert units.parse_percent(units.percent_text(probability)) == probability


@given(st.decimals(0, 100, places=4))
def test_a_percentage_and_its_complement_make_a_whole_up_to_rounding(percent: object) -> None:
    text = f"{percent}%"
    assert abs(units.parse_percent(text) + units.parse_complement(text) - units.PERCENT_MAX) <= 1


@given(size=st.integers(1, 10**7), rate=st.integers(1000, 10**11))
def test_bursts_come_back_as_the_same_ticks(size: int, rate: int) -> None:
    time = units.ticks(size, rate)
    if time < 2**32 - 1:
        assert units.ticks(units.burst_size(time, rate), rate) == time


@pytest.mark.parametrize(("size", "rate"), [(1600, 125_000), (15_000, 16_000), (50_000, 5 * 10**9), (1600, 375_000)])
def test_bursts_are_shown_as_they_were_written(size: int, rate: int) -> None:
    assert units.burst_size(units.ticks(size, rate), rate) == size
