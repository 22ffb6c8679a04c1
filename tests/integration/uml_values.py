# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What packets suffer, counted and timed at the other end: test_values_uml.py runs this; not collected elsewhere."""

from __future__ import annotations

import functools
import itertools
import re
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.errors import InvalidInput, MissingCapability, TestbedError
from plugins.module_utils.impairment import engine
from plugins.module_utils.tc import plug
from tests.integration.wire import AT_ONCE, FAR, FULL, NEAR, SLOW, Wire, fill, numbers, sh


@pytest.fixture(scope="module")
def wire() -> Wire:
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text(), (
        "these tests change the network of the kernel they run on"
    )
    sh(
        "modprobe -q ipv6 || true",  # what comes with it later would send packets of its own
        f"ip link add {NEAR} type veth peer name {FAR}",
        "for name in /proc/sys/net/ipv6/conf/*/disable_ipv6; do ! [ -e $name ] || echo 1 >$name; done",
        "ip link add eth1 type veth peer name far1",
        f"for name in {NEAR} {FAR} eth1 far1; do ip link set $name up; done",
    )
    load()
    return Wire(NEAR, FAR, "eth1", "far1")


@pytest.fixture(autouse=True)
def clean(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts and ends without anything of ours."""
    monkeypatch.setattr(engine, "forget", lambda: None)  # the same kernel: its capabilities are tried once
    before = sh("tc qdisc show; ip -o link show")
    yield
    engine.clear()
    assert sh("tc qdisc show; ip -o link show") == before


def apply(**keys: Any) -> list[str]:
    """Impair all that leaves eth0; the steps that were taken. A second run finds nothing to do."""
    asked = [{"name": NEAR, **keys}]
    steps = engine.apply(asked, []).report.steps
    assert not engine.apply(asked, []).report.changed
    return steps


def tc(what: str = "qdisc", device: str = NEAR) -> str:
    return sh(f"tc -d {what} show dev {device}")


def steady(test: Callable[..., None]) -> Callable[..., None]:
    """A machine that halts now and then spoils some tries of what measures time; what is wrong spoils all six."""

    @functools.wraps(test)
    def tried(*given: Any, **named: Any) -> None:
        for pause in (0.2, 0.5, 1, 2, 4):
            try:
                return test(*given, **named)
            except AssertionError:
                engine.clear()
                time.sleep(pause)
        return test(*given, **named)

    return tried


BUFFERS = [
    ({"queue": "15140B"}, FULL, 10),
    ({"queue": "15139B"}, FULL, 9),
    ({"queue": "12kB"}, 100, 120),
    ({"queue": "1s"}, FULL, 8),  # 12500 B
    ({"queue": "25p"}, FULL, 25),
    ({"queue": "25p"}, 100, 25),
    ({"queue": "15140B", "delay": "50ms"}, FULL, 10),
    ({"discipline": {"kind": "pfifo", "limit": 7}}, FULL, 7),
    ({"discipline": {"kind": "bfifo", "limit": "15140B"}}, FULL, 10),
]


@pytest.mark.parametrize(("asked", "size", "fits"), BUFFERS, ids=str)
@steady
def test_a_buffer_holds_what_is_asked_and_drops_the_rest(
    wire: Wire, asked: dict[str, Any], size: int, fits: int
) -> None:
    apply(**SLOW[size], **asked)
    assert fill(wire, NEAR, size) == list(range(AT_ONCE[size] + fits))


DISCIPLINES: list[tuple[Any, int, int]] = [
    ({"kind": "tbf", "rate": "1gbit", "burst": "10kB", "limit": "15140B"}, 10, 10),
    ({"kind": "fq", "flow_limit": 12}, 12, 12),
    (
        {"kind": "fq_codel", "limit": 20, "target": "10s", "interval": "20s"},
        1,
        20,
    ),  # it drops a flow's first ones, many
    ("cake", 100, 198),
    ({"kind": "cake", "memlimit": "64kB"}, 5, 60),
]


@pytest.mark.parametrize(("discipline", "least", "most"), DISCIPLINES, ids=str)
def test_a_discipline_holds_what_waits(wire: Wire, discipline: Any, least: int, most: int) -> None:
    apply(**SLOW[FULL], discipline=discipline)
    kind = discipline if isinstance(discipline, str) else discipline["kind"]
    assert f"qdisc {kind} " in tc()
    came = fill(wire, NEAR)
    assert came[:2] == [0, 1] and sorted(came) == came
    assert AT_ONCE[FULL] + least <= len(came) <= AT_ONCE[FULL] + most


def test_a_plug_lets_go_what_came_before_the_last_line(wire: Wire) -> None:
    def held(*actions: str) -> int:
        done = plug.act(NEAR, actions, None)
        assert len(done["steps"]) == len(actions)
        return int(done["before"]["packets"])

    with pytest.raises(TestbedError, match="eth0 has no plug"):
        plug.act(NEAR, ["buffer"], None)
    apply(discipline="plug")
    assert wire.burst(3) == []
    assert held("release_one") == 3
    assert wire.receive() == [], "no line was drawn"
    assert plug.act(NEAR, ["buffer", "release"], None, check=True)["after"]["packets"] == 3
    held("buffer")
    wire.send(4, first=3)
    assert wire.receive() == []
    assert held("release_one") == 7
    assert numbers(wire.receive()) == [0, 1, 2]
    held("release_one")
    assert wire.receive() == [], "a line holds for one time"
    for number in range(7, 10):  # one by one, after those four
        wire.send(1, first=number)
        held("buffer", "release_one")
        assert numbers(wire.receive()) == ([3, 4, 5, 6] if number == 7 else []) + [number]
    wire.send(2, first=10)
    assert held("release") == 2
    assert numbers(wire.receive()) == [10, 11]
    assert numbers(wire.burst(5)) == [0, 1, 2, 3, 4]
    held("buffer")
    assert wire.burst(5) == []
    with pytest.raises(InvalidInput, match="handle: '1:' is refused; the plugs of eth0 are "):
        plug.act(NEAR, ["buffer"], "1:")


def release_plug() -> None:
    """As `nl-qdisc-add --update plug --release-indefinite` does (linux/pkt_sched.h, tc_plug_qopt)."""
    (handle,) = re.findall(r"qdisc plug (\S+):", tc())
    (parent,) = re.findall(r"qdisc plug \S+ parent (\S+):1 ", tc())
    body = struct.pack("=BxxxiIII", 0, socket.if_nametoindex(NEAR), int(handle, 16) << 16, int(parent, 16) << 16 | 1, 0)
    body += struct.pack("=HH", 9, 1) + b"plug\0\0\0\0" + struct.pack("=HHiI", 12, 2, 2, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as rtnetlink:
        rtnetlink.send(struct.pack("=IHHII", 16 + len(body), 36, 0x5, 1, 0) + body)  # RTM_NEWQDISC, acknowledged
        assert struct.unpack_from("=i", rtnetlink.recv(4096), 16) == (0,)


def test_a_plug_holds_everything_until_it_is_released(wire: Wire) -> None:
    apply(discipline={"kind": "plug", "limit": "15140B"})
    assert wire.burst(30) == []
    release_plug()
    assert numbers(wire.receive()) == list(range(10))
    assert len(wire.burst(5)) == 5


@steady
def test_a_full_buffer_adds_the_asked_time(wire: Wire) -> None:
    apply(rate="256kbit", burst="1600B", queue="1s")
    came = wire.burst(200)
    held = came[-1].at - came[AT_ONCE[FULL] - 1].at
    assert 0.9 < held < 1.1, held  # 21 packets fit into 32000 B: 993 ms


def test_the_size_of_a_buffer_changes_in_place_and_its_kind_is_told_as_disruptive(wire: Wire) -> None:
    slow, at_once = SLOW[FULL], AT_ONCE[FULL]
    apply(**slow, queue="15140B")
    (step,) = apply(**slow, queue="30280B")
    assert step.startswith("tc qdisc change") and "disruptive" not in step
    assert len(fill(wire, NEAR)) == at_once + 20
    apply(**slow, queue="30280B")
    (step,) = apply(**slow, queue="5p")
    assert "pfifo" in step and "disruptive" in step
    assert len(fill(wire, NEAR)) == at_once + 5
    assert any("disruptive" in step for step in apply(**slow))
    assert "pfifo" not in tc()


WIRES = [
    ({"overhead": "100B"}, FULL, 1614),
    ({"mpu": "1000B"}, 100, 1000),
    ({"overhead": "10B", "linklayer": "atm"}, 100, 159),  # 110 bytes: 3 cells of 53
    ({"overhead": "10B", "linklayer": "adsl"}, FULL, 1696),  # 1524 bytes: 32 cells
    ({"linklayer": "atm"}, 49, 106),
]


@pytest.mark.parametrize(("asked", "size", "counted"), WIRES, ids=str)
@steady
def test_a_packet_counts_for_what_it_takes_on_the_link(
    wire: Wire, asked: dict[str, Any], size: int, counted: int
) -> None:
    apply(rate=f"{counted * 1600}bit", burst="1600B", **asked)  # one packet each 5 ms
    came = [arrival.at for arrival in wire.burst(70, size)][35:]
    gaps = [after - before for before, after in itertools.pairwise(came)]
    assert statistics.median(gaps) == pytest.approx(0.005, rel=0.01)


def test_computed_values_are_reported(wire: Wire) -> None:
    told = engine.apply([{"name": NEAR, "rate": "8mbit", "queue": "100ms", "overhead": "10B", "linklayer": "atm"}], [])
    values = {entry["impairment"]: entry["why"] for entry in told.backends if entry["backend"] == "computed"}
    shown = tc("class")
    assert values["burst"].startswith("11600B") and "burst 11600b" in shown
    assert values["quantum"].startswith("100000B") and "quantum 100000" in shown
    assert values["wire"].startswith("1696B")
    assert values["queue"].startswith("89268B") and "limit 89268b" in tc()  # 100000 B on the link
    (limit,) = re.findall(r"^(\d+)p", values["limit"])
    assert f"limit {limit} " in tc()


def delays(wire: Wire, count: int = 1000) -> list[float]:
    """Milliseconds that each of so many packets was held, in order."""
    sent = []
    for number in range(count):
        sent.append(time.time())
        wire.send(1, 100, first=number)
    came = wire.receive(quiet=0.3)
    assert len(came) == count
    return sorted(1000 * (arrival.at - sent[arrival.number]) for arrival in came)


@steady
def test_jitter_is_distributed_as_asked(wire: Wire) -> None:
    asked = {"delay": "60ms", "jitter": "10ms", "keep_order": False}
    apply(**asked, distribution="normal")
    held = delays(wire)
    low, middle, high = statistics.quantiles(held, n=4)
    assert 57 < middle < 65 and 11.8 < high - low < 15.5, (low, middle, high)  # 13.5 ms between the quartiles
    assert held[-5] > 80  # and some far out
    (step,) = apply(**asked)  # uniform
    assert "qdisc change" in step and "disruptive" not in step
    held = delays(wire)
    low, middle, high = statistics.quantiles(held, n=4)
    assert 57 < middle < 65 and 8.5 < high - low < 11.5, (low, middle, high)  # 10 ms
    assert held[3] > 49 and held[-20] < 76
    (step,) = apply(**asked, distribution="pareto")
    assert "qdisc change" in step and "disruptive" not in step
    held = delays(wire)
    assert 54 < statistics.median(held) < 60  # most come early: 56.8 ms
    assert held[-10] > 85  # a few very late
    (step,) = apply(distribution=["40ms", "40ms", "40ms", "100ms"], keep_order=False)
    assert "disruptive" not in step
    held = delays(wire)
    assert held[3] > 39 and statistics.median(held) < 46
    assert 0.2 < sum(one > 90 for one in held) / len(held) < 0.3


def through_ipv4(congestion: int) -> int | None:
    """The ECN field (RFC 3168) with which a packet of this one arrives; None: it is lost."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, congestion, 40, 0, 0, 64, 17, 0, bytes(4), bytes(4))
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as near,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as far,
    ):
        near.bind((NEAR, 0))
        far.bind((FAR, 0x0800))
        far.settimeout(0.2)
        near.send(b"\xff" * 6 + bytes(6) + b"\x08\0" + head + bytes(20))
        try:
            return far.recv(100)[15] & 3
        except TimeoutError:
            return None


def test_ecn_marks_what_would_be_lost(wire: Wire) -> None:
    apply(loss="100%", ecn=True)
    assert [through_ipv4(field) for field in (0, 1, 2, 3)] == [None, 3, 3, 3]
    apply(loss="100%", ecn=True, down=True)
    assert through_ipv4(2) is None


@steady
def test_slots_gather_packets(wire: Wire) -> None:
    apply(slot={"min": "60ms", "max": "60ms", "packets": 3})
    came = [arrival.at for arrival in wire.burst(15)]
    gaps = [after - before for before, after in itertools.pairwise(came)]
    assert sum(gap > 0.03 for gap in gaps) == 4 and max(gaps) < 0.15, gaps


def test_a_seed_repeats_itself_or_is_refused(wire: Wire) -> None:
    if not load().ok("netem.seed"):
        with pytest.raises(MissingCapability, match=r"^impairment_interfaces\[0\].seed needs .* 6\.6"):
            apply(loss="50%", seed=7)
        return
    series = []
    for _again in range(2):
        apply(loss="50%", seed=7)
        series.append(numbers(wire.burst(100)))
        engine.clear()
    assert series[0] == series[1] and 20 < len(series[0]) < 80


def test_one_count_across_interfaces(wire: Wire) -> None:
    drop: dict[str, Any] = {"every": 5, "across": [NEAR, "eth1"]}
    asked = [{"name": name, "drop": drop} for name in drop["across"]]
    engine.apply(asked, [])
    assert not engine.apply(asked, []).report.changed
    for number in range(20):
        wire.send(1, at=("eth1", NEAR)[number % 2], first=number)
    assert sorted(numbers([*wire.receive(), *wire.receive("far1")])) == [n for n in range(20) if n % 5 != 4]
    assert sh("tc actions list action gact").count("random type determ") == 1
    alone = [{"name": name, "drop": {"every": 5}} for name in drop["across"]]
    engine.apply(alone, [])
    for near, far in ((NEAR, FAR), ("eth1", "far1")):
        wire.send(10, at=near)
        assert numbers(wire.receive(far)) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_down_and_disabled(wire: Wire) -> None:
    apply(duplicate="100%", down=True)
    assert wire.burst(20) == []
    apply(delay="100ms", down=True)
    assert wire.burst(20) == []
    (step,) = apply(delay="100ms")
    assert "qdisc change" in step
    assert len(wire.burst(20, quiet=0.3)) == 20
    apply(delay="100ms", loss="100%", enabled=False)
    assert statistics.mean(arrival.number for arrival in wire.burst(20)) == 9.5
