# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What trains of packets say, and how the page shows it."""

from __future__ import annotations

import pytest

from benchmarks.fidelity.asked import Asked, Train
from benchmarks.fidelity.got import DAMAGED, Seen, by_blocks, interval, judged, runs
from benchmarks.fidelity.page import Measured, page

MS = 10**6


def train(numbers: list[int], late: float = 0) -> list[Seen]:
    """Frames of these numbers, one a millisecond, each `late` ms on the way."""
    return [Seen(number, 1000, number * MS, int((number + late) * MS)) for number in numbers]


def test_wilsons_interval() -> None:
    assert interval(10, 100) == pytest.approx((5.52, 17.44), abs=0.01)
    assert interval(0, 100) == pytest.approx((0, 3.70), abs=0.01)


def test_bursts_widen_the_interval() -> None:
    even, burst = list(range(0, 4000, 10)), list(range(400))
    assert by_blocks(even, 4000) == pytest.approx((10, 10))
    low, high = by_blocks(burst, 4000)
    assert low < 5 and high > 15


def test_runs_of_losses() -> None:
    assert runs([1, 2, 3, 7, 9, 10]) == [3, 1, 2]


@pytest.mark.parametrize(
    ("asked", "seen", "got", "ok"),
    [
        (Asked("delay", {"delay": "5ms"}, Train(100, 1000), 5), train(list(range(100)), 5.3), 5.1, True),
        (Asked("delay", {"delay": "5ms"}, Train(100, 1000), 5), train(list(range(100)), 7), 6.8, False),
        (Asked("loss", {"loss": "10%"}, Train(100, 1000), 10), train([n for n in range(100) if n % 10]), 10, True),
        (Asked("loss", {"loss": "1%"}, Train(100, 1000), 1), train([n for n in range(100) if n % 10]), 10, False),
        (
            Asked("share", {"drop": {"every": 20}}, Train(100, 1000), 5),
            train([n for n in range(100) if n % 20]),
            5,
            True,
        ),
        (Asked("share", {"drop": {"every": 20}}, Train(100, 1000), 5), train(list(range(5, 100))), 5, False),
        (Asked("share", {"duplicate": "5%"}, Train(100, 1000), 5), train([*range(100), 1, 2, 3]), 3, True),
        (Asked("share", {"corrupt": "5%"}, Train(100, 1000), 5), train([*range(95), *[DAMAGED] * 5]), 5, True),
        (Asked("rate", {"rate": "8mbit"}, Train(100, 1000), 8000), train(list(range(100))), 8000, True),
    ],
)
def test_what_a_train_says(asked: Asked, seen: list[Seen], got: float, ok: bool) -> None:
    verdict = judged(asked, seen, 0.2)
    assert verdict["got"] == pytest.approx(got)
    assert verdict["ok"] is ok


def test_the_page_marks_what_is_outside() -> None:
    row = {"part": "rate", "impairment": {"rate": "8mbit"}, "train": [100, 1, 1], "note": "", "shown": "7000.0"}
    about = {"kernel": "6.1", "calibration": 0.1, "carries": 100_000.0}
    text = page([Measured("bookworm", about, [{**row, "expected": 8000, "ok": False}])])
    assert "| `rate: 8mbit` | 8000 | 100 | 7000.0 **▲** |" in text
    slow = page([Measured("bookworm", {**about, "carries": 9000.0}, [{**row, "expected": 8000, "ok": False}])])
    assert "7000.0 **(CPU)**" in slow
