# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts on made-up measurements: the right ones pass, and each way of being wrong fails."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from plugins.module_utils.measure.judge import (
    Arrival,
    Path,
    interval,
    judge_delay,
    judge_jitter,
    judge_nth,
    judge_number,
    judge_rate,
    judge_share,
    judge_turns,
    nth,
    rate_of,
    settled,
)

SENT = list(range(2000))


def dropped(order: Sequence[int | None], every: int, phase: int) -> set[int]:
    """What arrives when the kernel drops one place in each group of the counted packets."""
    return {n for place, n in enumerate(order) if n is not None and place % every != phase}


@pytest.mark.parametrize("phase", [0, 7, 19])
def test_every_twentieth_in_any_phase(phase: int) -> None:
    verdict = judge_nth(SENT, dropped(SENT, 20, phase), 20)
    assert verdict.ok
    assert verdict.samples == 2000
    assert nth(SENT, dropped(SENT, 20, phase), 20).phase == phase


def test_one_more_loss_fails() -> None:
    arrived = dropped(SENT, 20, 3) - {1001}
    assert not judge_nth(SENT, arrived, 20).ok
    assert nth(SENT, arrived, 20).unexpected == 1


def test_one_spared_fails() -> None:
    arrived = dropped(SENT, 20, 3) | {1003}
    assert not judge_nth(SENT, arrived, 20).ok
    assert nth(SENT, arrived, 20).spared == 1


def test_none_missing_fails() -> None:
    verdict = judge_nth(SENT, set(SENT), 20)
    assert not verdict.ok
    assert "100 arrived that should be missing" in verdict.note


def test_a_phase_that_jumps_fails() -> None:
    arrived = dropped(SENT[:1000], 20, 3) | {n for n in SENT[1000:] if n % 20 != 4}
    assert not judge_nth(SENT, arrived, 20).ok


@pytest.mark.parametrize("every", [10, 19, 21, 40])
def test_another_period_fails(every: int) -> None:
    assert not judge_nth(SENT, dropped(SENT, every, 3), 20).ok


def test_random_loss_of_the_same_share_fails() -> None:
    fate = random.Random(1)
    assert not judge_nth(SENT, {n for n in SENT if fate.random() > 0.05}, 20).ok


def test_all_missing_fails() -> None:
    assert not judge_nth(SENT, set(), 20).ok


def test_foreign_packets_take_part_in_the_count() -> None:
    order: list[int | None] = [*SENT]
    for place in (60, 500, 501, 1999):
        order.insert(place, None)
    arrived = dropped(order, 20, 19)
    verdict = judge_nth(order, arrived, 20)
    assert verdict.ok
    assert "4 foreign packets" in verdict.note
    assert not judge_nth(SENT, arrived, 20).ok  # leaving them out of the count must not look right


def test_a_foreign_packet_dropped_in_turn() -> None:
    order: list[int | None] = [*SENT]
    order.insert(59, None)  # place 59 is dropped
    assert judge_nth(order, dropped(order, 20, 19), 20).ok
    assert nth(order, dropped(order, 20, 19), 20).missing == 99


def test_the_captured_order_counts_not_the_numbers() -> None:
    order: list[int | None] = [*SENT]
    order[98], order[99] = 99, 98  # reordered on the way to the node
    arrived = dropped(order, 20, 19)
    assert judge_nth(order, arrived, 20).ok
    assert not judge_nth(SENT, arrived, 20).ok


def test_lost_before_the_node_is_not_counted() -> None:
    order: list[int | None] = [n for n in SENT if n not in (5, 700)]
    assert judge_nth(order, dropped(order, 20, 0), 20).ok


def test_too_few_packets_fail() -> None:
    order: list[int | None] = list(range(50))
    verdict = judge_nth(order, dropped(order, 20, 19), 20)
    assert not verdict.ok
    assert "too few" in verdict.note


@pytest.mark.parametrize(("count", "ok"), [(20, True), (15, True), (36, False), (0, False), (4, False)])
def test_random_loss_of_one_percent(count: int, ok: bool) -> None:
    assert judge_share(0.01, count, 2000).ok is ok


@pytest.mark.parametrize(("count", "ok"), [(0, True), (1, False)])
def test_no_loss_is_exact(count: int, ok: bool) -> None:
    assert judge_share(0.0, count, 2000).ok is ok


@pytest.mark.parametrize(("count", "ok"), [(2000, True), (1999, False)])
def test_all_lost_is_exact(count: int, ok: bool) -> None:
    assert judge_share(1.0, count, 2000).ok is ok


def test_share_without_samples_fails() -> None:
    assert not judge_share(0.0, 0, 0).ok
    assert not judge_share(0.01, 0, 0).ok
    assert not judge_share(0.0001, 0, 2000).ok  # nothing lost says nothing about one in ten thousand


def test_memory_widens_what_is_tolerated() -> None:
    assert not judge_share(0.1, 270, 2000).ok
    assert judge_share(0.1, 270, 2000, memory=0.8).ok


def test_right_losses_hardly_ever_fail() -> None:
    fate = random.Random(3)
    fails = sum(not judge_share(0.05, sum(fate.random() < 0.05 for _n in range(1000)), 1000).ok for _n in range(300))
    assert fails <= 3


def test_wilson_interval() -> None:
    low, high = interval(20, 2000)  # Wilson, by hand: 0.65 % to 1.54 %
    assert low == pytest.approx(0.00648, abs=2e-5)
    assert high == pytest.approx(0.01539, abs=2e-5)


@pytest.mark.parametrize(
    ("extra", "ok"), [(0.050, True), (0.0508, True), (0.0492, True), (0.0512, False), (0.020, False), (0.0, False)]
)
def test_delay_above_the_unimpaired_path(extra: float, ok: bool) -> None:
    base = [0.0003] * 100
    assert judge_delay(0.05, [0.0003 + extra] * 100, base).ok is ok


def test_delay_takes_the_median() -> None:
    base = [0.0002] * 50
    assert judge_delay(0.05, [0.0502] * 90 + [0.4] * 9, base).ok
    assert not judge_delay(0.05, [0.0502] * 40 + [0.4] * 60, base).ok


def test_delay_without_answers_fails() -> None:
    assert not judge_delay(0.0, [], [0.1] * 50).ok
    assert not judge_delay(0.0, [0.1] * 50, []).ok


@pytest.mark.parametrize(("width", "ok"), [(0.01, True), (0.004, False), (0.02, False), (0.0, False)])
def test_jitter_is_half_the_width(width: float, ok: bool) -> None:
    fate = random.Random(5)
    took = [0.05 + fate.uniform(-width, width) for _unused in range(100)]
    assert judge_jitter(0.01, took).ok is ok
    assert judge_jitter(0.01, [*took, 0.5, 0.6, 0.7]).ok is ok  # a few late ones change nothing


def test_jitter_of_a_table_is_its_standard_deviation() -> None:
    fate = random.Random(5)
    took = [fate.gauss(0.05, 0.01) for _unused in range(100)]
    assert judge_jitter(0.01, took, 1.349).ok
    assert not judge_jitter(0.005, took, 1.349).ok


def stream(rate: float, count: int, length: int = 514, burst: int = 0) -> list[Arrival]:
    """Arrivals at an even rate, the first `burst` of them at once."""
    return [Arrival(int(max(0, n - burst) * length * 8e9 / rate), length) for n in range(count)]


RATES = [(128e3, True), (130e3, True), (126e3, True), (131.5e3, False), (192e3, False), (120e3, False)]


@pytest.mark.parametrize(("rate", "ok"), RATES)
def test_rate_within_two_percent(rate: float, ok: bool) -> None:
    assert judge_rate(128e3, stream(rate, 280)).ok is ok


def test_the_burst_at_the_start_is_left_out() -> None:
    arrivals = stream(128e3, 280, burst=30)
    assert rate_of(arrivals) > 1.1 * 128e3
    assert rate_of(settled(arrivals, 40 * 514)) == pytest.approx(128e3)


def test_rate_of_nothing_fails() -> None:
    assert rate_of([]) == 0.0
    assert not judge_rate(128e3, []).ok
    assert not judge_rate(128e3, stream(128e3, 10)).ok


def test_a_node_that_halts_is_judged_by_most_windows() -> None:
    halted = [
        Arrival(one.at + (400_000_000 if n > 900 else 0), one.length) for n, one in enumerate(stream(10e6, 2000, 1514))
    ]
    assert rate_of(halted) < 0.95 * 10e6
    verdict = judge_rate(10e6, halted)
    assert verdict.ok
    assert "nodes halted" in verdict.note


def test_a_rate_that_is_wrong_half_of_the_time_fails() -> None:
    first = stream(10e6, 1000, 1514)
    second = [Arrival(one.at + first[-1].at, one.length) for one in stream(8e6, 1000, 1514)]
    assert not judge_rate(10e6, [*first, *second]).ok


def test_a_path_that_cannot_carry_the_rate_is_said() -> None:
    narrow = Path(capacity=81e6)
    verdict = judge_rate(1e9, stream(80e6, 5000, 1514), narrow)
    assert verdict.ok
    assert "carries 81mbit" in verdict.note
    assert not judge_rate(1e9, stream(50e6, 5000, 1514), narrow).ok


def test_a_path_with_little_to_spare() -> None:
    little = Path(capacity=110e6)
    assert judge_rate(100e6, stream(95e6, 5000, 1514), little).ok
    assert not judge_rate(100e6, stream(104e6, 5000, 1514), little).ok  # faster than asked is wrong all the same
    assert not judge_rate(100e6, stream(70e6, 5000, 1514), little).ok


def test_too_little_offered_fails() -> None:
    assert not judge_rate(10e6, stream(10e6, 500, 1514), Path(offered=10e6)).ok


def test_unsteady_round_trips_leave_it_to_the_nodes_own_clock() -> None:
    fate = random.Random(7)
    base = [fate.uniform(0.001, 0.009) for _unused in range(100)]
    through = [one + 0.0525 for one in base]
    assert not judge_delay(0.05, through, base).ok
    verdict = judge_delay(0.05, through, base, inside=0.0502)
    assert verdict.ok
    assert "own clock 50.20ms" in verdict.note
    assert not judge_delay(0.05, through, base, inside=0.0525).ok
    assert not judge_delay(0.05, [0.0535] * 100, [0.001] * 100, inside=0.0502).ok  # steady ones decide alone


PATTERN = "1101000"


def at_ones(order: Sequence[int | None], pattern: str, place: int) -> set[int]:
    """What is chosen when the first packet of the order is at this place of the pattern."""
    return {n for at, n in enumerate(order) if n is not None and pattern[(at + place) % len(pattern)] == "1"}


@pytest.mark.parametrize("place", range(7))
def test_a_pattern_wherever_it_began(place: int) -> None:
    verdict = judge_turns(SENT, at_ones(SENT, PATTERN, place), PATTERN)
    assert verdict.ok
    assert verdict.got.endswith(f"(the first captured is at place {place} of the pattern)")


@pytest.mark.parametrize("pattern", ["1100100", "1011000", "110100", "1"])
def test_another_pattern_fails(pattern: str) -> None:
    assert not judge_turns(SENT, at_ones(SENT, pattern, 0), PATTERN).ok


def test_one_more_or_one_less_than_a_pattern_fails() -> None:
    chosen = at_ones(SENT, PATTERN, 2)
    more, less = chosen | {min(set(SENT) - chosen)}, chosen - {max(chosen)}
    assert "1 missing out of turn" in judge_turns(SENT, more, PATTERN).note
    assert "1 not missing that should be" in judge_turns(SENT, less, PATTERN).note
    assert not judge_turns(SENT, more, PATTERN).ok
    assert not judge_turns(SENT, less, PATTERN).ok
    assert not judge_turns(SENT, set(), PATTERN).ok


def test_foreign_packets_take_part_in_a_pattern() -> None:
    order = [*range(100), None, *range(100, 300)]
    assert judge_turns(order, at_ones(order, PATTERN, 3), PATTERN).ok
    assert not judge_turns(order, at_ones(range(300), PATTERN, 3), PATTERN).ok


def test_a_pattern_longer_than_half_of_what_was_sent_fails() -> None:
    assert judge_turns(SENT, at_ones(SENT, "1" + "0" * 999, 5), "1" + "0" * 999).ok
    assert not judge_turns(SENT, at_ones(SENT, "1" + "0" * 1000, 5), "1" + "0" * 1000).ok


def test_numbers_of_a_pattern() -> None:
    order = list(range(101))  # 14 times the pattern, and 3 more: with 0 to 3 of its 3 ones
    passing = [count for count in range(60) if judge_number(PATTERN, range(count, count + 1), order, "damaged").ok]
    assert passing == [42, 43, 44]  # no 3 places in a row have all three
    assert judge_number(PATTERN, range(41, 42), [*order[1:], None], "damaged").ok
    assert not judge_number(PATTERN, range(3, 4), [0, 1, 2, 3, 4, 5, 6], "damaged").ok
    assert judge_number(PATTERN, range(44, 50), order, "damaged").ok
    assert not judge_number(PATTERN, range(45, 50), order, "damaged").ok
