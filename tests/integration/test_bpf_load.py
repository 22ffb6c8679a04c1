# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hundred changes of what is dropped while packets pass: not one more is lost, and the count goes on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.load import DEVICE, FIRST, Load, ends, udp
from tests.integration.program import compiled
from tests.oracle import programs

RATE = 20_000  # packets per second
CHANGES = 100


def changes() -> list[dict[str, Any]]:
    """Every nth, at several places, and patterns; no two neighbours alike."""
    chosen = random.Random(4)
    found: list[dict[str, Any]] = []
    while len(found) <= CHANGES:
        every = chosen.randrange(2, 60)
        drop: dict[str, Any] = {"every": every, "packet": chosen.randrange(every)}
        if len(found) % 4 == 3:
            drop = {"pattern": "".join(chosen.choice("0001") for _number in range(every)) + "1"}
        if not found or drop != found[-1]:
            found.append(drop)
    return found


def dropped(drop: dict[str, Any], number: int) -> bool:
    if "pattern" in drop:
        pattern = drop["pattern"]
        return bool(pattern[number % len(pattern)] == "1")
    return bool(number % drop["every"] == drop["packet"])


def explained(asked: Sequence[dict[str, Any]], sent: int, came: Sequence[int]) -> int:
    """How many of the packets, from the first on, suffered exactly what was asked at some time, in the order of asking.

    A change takes effect between two packets that nobody knows, so the earliest that fits is taken.
    """
    now, there = 0, set(came)
    for number in range(sent):
        while now < len(asked) and dropped(asked[now], number) == (number in there):
            now += 1
        if now == len(asked):
            return number
    return sent


@pytest.mark.alone
def test_a_hundred_changes_of_drops_lose_nothing_else(tmp_path: Path) -> None:
    program = compiled()
    asked = changes()

    def apply(drop: dict[str, Any]) -> engine.Outcome:
        classes = [{"name": "counted", "match": udp(FIRST), "drop": drop}]
        return engine.apply([{"name": DEVICE, "classes": classes}], [], program=program)

    def change() -> None:
        time.sleep(0.2)
        for drop in asked[1:]:
            steps = apply(drop).report.steps
            assert len(steps) == 1 and steps[0].startswith("bpftool map update"), steps
            time.sleep(0.02)

    with ends(f"impair-drops-{os.getpid()}") as places, inside(places[0]):
        try:
            apply(asked[0])
            before = programs.leaving(DEVICE)
            sent, came = Load(*places, tmp_path).numbers(RATE, change)
            assert programs.leaving(DEVICE) == before
        finally:
            engine.clear()
    print(f"{sent} packets, {sent - len(came)} missing")
    assert sent > CHANGES * 100 and came == sorted(came)
    assert explained(asked, sent, came) == sent
    assert explained(asked, sent, came[: sent // 4] + came[sent // 4 + 1 :]) < sent  # one more missing would be seen
