# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What netem and HTB do to packets, to the tick where time travels: test_time_travel.py runs this; not collected here.

In a kernel with time travel nothing but waiting takes time: what is held for 50 ms comes after 50 ms, neither sooner
nor later, and a second run gives the same series. Elsewhere the same is asked with what a busy machine may add, and of
fewer packets, for there the time has to be waited for.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.wire import FAR, NEAR, Wire, sh

TRAVELS = "time-travel=inf-cpu" in Path("/proc/cmdline").read_text()
PR_SET_TIMERSLACK = 29  # linux/prctl.h
TICK = 256  # ns: the step of the kernel's clock, and what reading it takes (arch/um/kernel/time.c, timer_read)
MS = 1_000_000  # ns
MANY = (1000, 0.01) if TRAVELS else (400, 0.001)  # packets, and seconds between them
EARLY, LATE = (2 * TICK, 2 * TICK) if TRAVELS else (MS // 10, 2 * MS)  # ns by which a packet may miss its time

MEASURED = ["20ms", "20ms", "20ms", "70ms"]
RATES = [("1mbit", 1250, 40, 10 * MS), ("128kbit", 1514, 9, 94.625 * MS), ("10mbit", 1250, 200, MS)]


class Held(NamedTuple):
    """A packet that arrived: its number, for how many nanoseconds it was held, and when it came."""

    number: int
    ns: int
    at: int


@pytest.fixture(scope="module")
def wire() -> Wire:
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text(), (
        "these tests change the network of the kernel they run on"
    )
    sh(
        "modprobe -q ipv6 || true",  # what comes with it later would send packets of its own
        f"ip link add {NEAR} type veth peer name {FAR}",
        "for name in /proc/sys/net/ipv6/conf/*/disable_ipv6; do ! [ -e $name ] || echo 1 >$name; done",
        f"for name in {NEAR} {FAR}; do ip link set $name up; done",
    )
    load()
    return Wire(NEAR, FAR)


@pytest.fixture(autouse=True)
def clean(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(engine, "forget", lambda: None)  # the same kernel: its capabilities are tried once
    yield
    engine.clear()


def once(wire: Wire, count: int, gap: float, size: int = 100, **asked: Any) -> list[Held]:
    """What came of so many packets, `gap` seconds apart, in the order of their arrival; the impairment is a new one."""
    engine.clear()
    engine.apply([{"name": NEAR, **asked}], [])
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)  # else the kernel may let a sleep last 50 us longer
    sent = []
    for number in range(count):
        sent.append(time.time_ns())
        wire.send(1, size, first=number)
        if gap:
            time.sleep(gap)
    return [Held(came.number, came.ns - sent[came.number], came.ns) for came in wire.receive()]


def series(wire: Wire, count: int, gap: float, size: int = 100, **asked: Any) -> list[Held]:
    """The same; where time travels a second run has to give it again."""
    first = once(wire, count, gap, size, **asked)
    if TRAVELS:
        pairs = list(zip(sorted(first), sorted(once(wire, count, gap, size, **asked)), strict=True))
        assert all(one.number == other.number and abs(one.ns - other.ns) <= 2 * TICK for one, other in pairs)
    return first


def numbers(held: Sequence[Held]) -> list[int]:
    return [one.number for one in held]


def near(found: int, asked: float) -> bool:
    """Whether a packet was held for so many nanoseconds."""
    return asked - EARLY <= found <= asked + LATE


def within(found: float, chance: float, count: int, correlation: float = 0) -> bool:
    """Whether so many of `count` may be by this chance: five standard deviations, which one run in a million leaves.

    correlation: of one packet's fate with the next one's, which spreads the count.
    """
    variance = chance * (1 - chance) * count * (1 + correlation) / (1 - correlation)
    return abs(found - chance * count) < 5 * variance**0.5


def seed(number: int) -> dict[str, int]:
    """Linux 6.6 began to have seeds; the engine refuses them elsewhere."""
    return {"seed": number} if load().ok("netem.seed") else {}


@pytest.mark.parametrize(("delay", "asked", "keep_order"), [("50ms", 50 * MS, True), ("1200us", 1.2 * MS, False)])
def test_a_delay(wire: Wire, delay: str, asked: float, keep_order: bool) -> None:
    count, gap = (1000, 0.01) if TRAVELS else (100, 0.001)
    held = series(wire, count, gap, delay=delay, keep_order=keep_order)
    assert numbers(held) == list(range(count))
    if TRAVELS:
        assert all(near(one.ns, asked) for one in held), held
    assert near(int(statistics.median(one.ns for one in held)), asked), held


def host_seconds() -> float:
    """The time of the machine under this kernel, in which nothing travels: from a file of its own."""
    file = Path("/run/out/now")
    file.write_text("now")
    return os.stat(file).st_mtime


def test_a_hundred_seconds_take_two(wire: Wire) -> None:
    count, seconds = (10_000, 100) if TRAVELS else (250, 0.5)
    begun, here = time.monotonic(), host_seconds()
    held = once(wire, count, seconds / count, delay="50ms", jitter="10ms", loss="10%", **seed(42))
    passed, took = time.monotonic() - begun, host_seconds() - here
    assert passed > seconds and within(len(held), 0.9, count)
    print(f"{passed:.1f} seconds took {took:.1f}")
    Path("/run/out/series").write_text("".join(f"{one.number} {one.ns}\n" for one in held))
    if TRAVELS:
        assert took < seconds / 5


# What is asked, the share that it loses, and the correlation: what the chances of a change of state leave of 1.
LOSSES: list[tuple[Any, float, float]] = [
    ("10%", 0.1, 0),
    ({"gemodel": {"p": "5%", "r": "50%"}}, 1 / 11, 0.45),
    ({"state": {"p13": "2%", "p31": "40%"}}, 1 / 21, 0.58),
]


@pytest.mark.parametrize(("loss", "share", "correlation"), LOSSES, ids=str)
def test_what_is_lost(wire: Wire, loss: Any, share: float, correlation: float) -> None:
    """Of a seed always the same."""
    count = 2000
    came = numbers(series(wire, count, 0, loss=loss, **seed(7)))
    assert sorted(set(came)) == came
    assert within(count - len(came), share, count, correlation)
    if TRAVELS:
        assert numbers(once(wire, count, 0, loss=loss, **seed(8))) != came


def test_jitter_of_equal_chances(wire: Wire) -> None:
    count, gap = MANY
    held = [one.ns for one in series(wire, count, gap, delay="50ms", jitter="10ms", keep_order=False, **seed(3))]
    assert len(held) == count
    assert min(held) >= 40 * MS - EARLY
    if TRAVELS:
        assert max(held) <= 60 * MS + LATE
    for least in (40, 45, 50, 55):
        assert within(sum(least <= ns / MS < least + 5 for ns in held), 0.25, count), least


def test_jitter_of_a_normal_distribution(wire: Wire) -> None:
    count, gap = MANY
    asked: dict[str, Any] = {"delay": "50ms", "jitter": "10ms", "distribution": "normal", "keep_order": False}
    held = [one.ns / MS for one in series(wire, count, gap, **asked, **seed(3))]
    assert len(held) == count
    assert within(sum(ms < 40 for ms in held), 0.1587, count)
    assert within(sum(ms < 50 for ms in held), 0.5, count)
    assert within(sum(ms > 60 for ms in held), 0.1587, count)


def test_measured_delays(wire: Wire) -> None:
    count, gap = MANY
    held = [one.ns for one in series(wire, count, gap, distribution=MEASURED, keep_order=False, **seed(3))]
    assert len(held) == count
    assert within(sum(ns > 45 * MS for ns in held), 0.25, count)
    if TRAVELS:  # the table of a netem holds each delay to some 3 µs: 1/8192 of their deviation
        assert max(abs(ns - (70 * MS if ns > 45 * MS else 20 * MS)) for ns in held) < 3000


@pytest.mark.parametrize(("rate", "size", "count", "each"), RATES, ids=str)
def test_a_rate(wire: Wire, rate: str, size: int, count: int, each: float) -> None:
    """Packets that come at once leave one by one, each after its time on the link; the burst holds less than two."""
    held = once(wire, count, 0, size, rate=rate, burst="1600B")
    assert numbers(held) == list(range(count))
    gaps = [after.at - before.at for before, after in itertools.pairwise(held)][2:]
    assert statistics.median(gaps) == pytest.approx(each, rel=0.01)
    if TRAVELS:
        assert all(abs(gap - each) <= 4 * TICK for gap in gaps), gaps
        assert abs(sum(gaps) - each * len(gaps)) <= 4 * TICK, gaps


def test_slots(wire: Wire) -> None:
    """Every 60 ms three packets leave together."""
    held = once(wire, 15, 0, slot={"min": "60ms", "max": "60ms", "packets": 3})
    gaps = [after.at - before.at for before, after in itertools.pairwise(held)]
    assert [gap > 30 * MS for gap in gaps] == [number % 3 == 2 for number in range(14)], gaps
    if TRAVELS:
        assert all(abs(gap - (60 * MS if gap > 30 * MS else 0)) <= 2 * TICK for gap in gaps), gaps


def test_reordering(wire: Wire) -> None:
    """One in four leaves at once, and overtakes those of the last 15 ms."""
    count, gap = MANY
    held = series(wire, count, gap, delay="15ms", reorder="25%", **seed(5))
    assert sorted(numbers(held)) == list(range(count))
    at_once = [one.number for one in held if near(one.ns, 0)]
    assert within(len(at_once), 0.25, count)
    if TRAVELS:
        assert len(at_once) + sum(near(one.ns, 15 * MS) for one in held) == count


def test_duplicates(wire: Wire) -> None:
    """One in five comes twice, the second as late as the first."""
    count, gap = MANY
    held = series(wire, count, gap, delay="15ms", duplicate="20%", **seed(5))
    copies = Counter(numbers(held))
    assert sorted(copies) == list(range(count)) and set(copies.values()) == {1, 2}
    assert within(len(held) - count, 0.2, count)
    if TRAVELS:
        assert all(near(one.ns, 15 * MS) for one in held)
