# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of delays: their moments, iproute2's own beside them, and users' measured delays."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput, TestbedError
from plugins.module_utils.tc.kinds import distribution, netem
from plugins.module_utils.tc.kinds.netem_options import UNIFORM, Distribution, Netem

IPROUTE2 = next((path for path in map(Path, ("/usr/lib/tc", "/lib/tc")) if path.is_dir()), None) or next(
    iter(Path("/usr/lib").glob("*/tc")), None
)
DELAY_DIST, SLOT_DIST = 2, 13  # TCA_NETEM_*


def numbers(found: Distribution) -> list[float]:
    return [number / 8192 for number in struct.unpack("=4096h", distribution.table(found))]


def moments(values: list[float]) -> tuple[float, float, float]:
    """Mean, deviation and skewness."""
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return mean, deviation, sum((value - mean) ** 3 for value in values) / len(values) / deviation**3


@pytest.mark.parametrize(
    ("word", "mean", "deviation", "skewness"),
    [("uniform", 0, 3**-0.5, 0), ("normal", 0, 1, 0), ("pareto", -0.033, 0.82, 2.6), ("paretonormal", -0.025, 0.83, 2)],
)
def test_moments(word: str, mean: float, deviation: float, skewness: float) -> None:
    found = moments(numbers(distribution.named(word)))
    assert found == pytest.approx((mean, deviation, skewness), abs=0.01, rel=0.15)
    assert found[:2] == pytest.approx((mean, deviation), abs=0.01)


@pytest.mark.parametrize("word", ["normal", "pareto", "paretonormal"])
def test_the_tables_are_those_of_tc(word: str) -> None:
    """Beyond the 99th percentile iproute2's own rounding counts for more: its normal reaches 4 jitters in one step."""
    assert IPROUTE2, "iproute2 is installed for the tests"
    lines = (IPROUTE2 / f"{word}.dist").read_text().splitlines()
    theirs = sorted(int(part) / 8192 for line in lines if not line.startswith("#") for part in line.split())
    ours = sorted(numbers(distribution.named(word)))
    assert len(theirs) == len(ours)
    apart = [abs(one - other) for one, other in zip(ours, theirs)]
    assert max(apart[41:-41]) < 0.02
    assert sum(apart) / len(apart) < 0.002
    assert moments(ours) == pytest.approx(moments(theirs), abs=0.02, rel=0.01)


def test_measured_delays_keep_mean_deviation_and_shape() -> None:
    chosen = random.Random(7)
    delays = [chosen.gauss(20, 1) if chosen.random() < 0.7 else chosen.gauss(45, 2) for _number in range(3000)]
    found = distribution.parse([f"{delay:.6f}ms" for delay in delays], "distribution")
    mean, deviation, skewness = moments(delays)
    assert (found.mean, found.deviation) == pytest.approx((mean * 1e6, deviation * 1e6), abs=2)
    realised = [found.mean + found.deviation * number for number in numbers(found)]
    assert moments(realised) == pytest.approx((mean * 1e6, deviation * 1e6, skewness), rel=0.005)
    assert sum(25e6 < delay < 35e6 for delay in realised) == 0  # nothing between both humps


def build(**given: Any) -> Netem:
    parsed = {key: netem.IMPAIRMENTS[key](value, key) for key, value in given.items()}
    return netem.build(**parsed)


def test_a_table_says_delay_and_jitter_unless_they_are_written() -> None:
    samples = ["10ms", "20ms"]
    assert build(distribution=samples)[:2] == (15_000_000, 5_000_000)
    assert build(distribution=samples, delay="50ms")[:2] == (50_000_000, 5_000_000)
    assert build(distribution=samples, delay="50ms", jitter="1ms")[:2] == (50_000_000, 1_000_000)
    assert build(distribution="uniform", delay="50ms", jitter="1ms").distribution == UNIFORM


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"distribution": "gauss", "delay": "1ms", "jitter": "1ms"}, "write uniform, normal, pareto"),
        ({"distribution": ["1ms"]}, "two measured delays or more"),
        ({"distribution": ["1ms", "1"]}, r"distribution\[1\]: .* with its unit"),
        ({"distribution": ["1ms", "1ms", "1ms"]}, "write delays that differ"),
        ({"distribution": ["1ms", "9s"]}, "2147483647ns"),
        ({"distribution": {"normal": 1}}, "write uniform"),
        ({"distribution": "normal", "delay": "1ms"}, "needs a jitter"),
        (
            {"distribution": ["1ms", "2ms"], "loss": "1%", "corrupt": "1%", "duplicate": "1%", "reorder": "1%"},
            "leave one of them out",
        ),
        ({"slot": {"distribution": "normal", "delay": "1ms"}}, "write delay and jitter"),
        ({"slot": {"distribution": "normal", "min": "1ms"}}, r"slot\.min: .*unknown key"),
    ],
)
def test_refused(given: dict[str, Any], allowed: str) -> None:
    with pytest.raises((InvalidInput, ValueError), match=allowed):
        build(**given)


def sent(options: Netem, old: Netem) -> set[int]:
    """Which tables a change carries."""
    found, data = set(), netem.change(options, old)[24:]
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found.add(kind)
        data = data[length + 3 & ~3 :]
    return found & {DELAY_DIST, SLOT_DIST}


def test_a_table_is_sent_where_it_does_not_stand_already() -> None:
    plain, normal, pareto = (
        build(delay="9ms", jitter="2ms", distribution=word) for word in ("uniform", "normal", "pareto")
    )
    slots = build(slot={"distribution": "normal", "delay": "9ms", "jitter": "2ms"})
    assert sent(plain, Netem()) == set()
    assert sent(normal, Netem()) == sent(pareto, normal) == sent(plain, pareto) == {DELAY_DIST}
    assert sent(normal, normal._replace(delay=1)) == set()
    assert sent(slots, Netem()) == {SLOT_DIST}
    assert sent(slots, slots._replace(limit=5)) == set()
    assert netem.NETEM.unchangeable(slots, plain)


def test_a_table_that_is_only_known_by_its_identity_cannot_be_sent() -> None:
    mine = build(distribution=["1ms", "2ms", "4ms"])
    seen = netem.decode(netem.encode(mine))
    assert netem.same(mine, seen)
    assert not netem.same(mine._replace(distribution=build(distribution=["1ms", "2ms", "5ms"]).distribution), seen)
    assert sent(seen, seen) == set()
    with pytest.raises(TestbedError, match="write it again"):
        netem.encode(seen)
