# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions of filters of every kind, judged by tc and by packets; test_tc_uml.py runs this in a kernel that has them."""

from __future__ import annotations

import itertools
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from plugins.module_utils.errors import TestbedError
from tests.integration.engine import Bench, inside
from tests.integration.test_tc import htb

ACTIONS: list[list[dict[str, Any]]] = [
    *([{"kind": "gact", "control": word}] for word in ("pass", "drop", "pipe", "continue", "reclassify", "trap")),
    [{"kind": "gact", "control": "ok"}],
    [{"kind": "gact", "control": "pass", "random": {"type": "determ", "control": "drop", "value": 20}}],
    [{"kind": "gact", "control": "pipe", "random": {"type": "netrand", "control": "drop", "value": 3}}],
    [{"kind": "mirred", "egress": "redirect", "dev": "lo"}],
    [{"kind": "mirred", "egress": "mirror", "dev": "lo"}],
    [{"kind": "mirred", "ingress": "redirect", "dev": "lo"}],
    [{"kind": "mirred", "ingress": "mirror", "dev": "lo", "control": "drop"}],
    [{"kind": "skbedit", "mark": 7}],
    [{"kind": "skbedit", "mark": "0x50000/0xff0000", "control": "continue"}],
    [{"kind": "skbedit", "priority": "1:2", "queue_mapping": 3, "ptype": "host"}],
    [{"kind": "skbedit", "ptype": "otherhost"}],
    [{"kind": "police", "rate": "1mbit", "burst": "10kB", "exceed": "drop"}],
    [{"kind": "police", "rate": "8mbit", "burst": "10kB", "exceed": "continue", "conform": "pipe", "mtu": "9000B"}],
    [{"kind": "police", "rate": "1mbit", "burst": "10kB", "peakrate": "2mbit", "mtu": "2000B", "overhead": 24}],
    [{"kind": "police", "rate": "40gbit", "burst": "40kB", "peakrate": "80gbit", "mtu": "2000B", "exceed": "pass"}],
    [{"kind": "police", "rate": "1mbit", "burst": "10kB", "linklayer": "atm", "mpu": 64}],
    [{"kind": "skbedit", "mark": 7}, {"kind": "gact", "control": "drop"}],
    [
        {"kind": "skbedit", "mark": "0x1/0xf"},
        {"kind": "police", "rate": "1mbit", "burst": "10kB", "exceed": "drop", "conform": "pipe"},
        {"kind": "mirred", "egress": "mirror", "dev": "lo"},
        {"kind": "mirred", "egress": "redirect", "dev": "lo"},
    ],
]
FILTERS: dict[str, dict[str, Any]] = {
    "u32": {"kind": "u32", "match": ["ip dport 7575 0xffff"], "protocol": "ip"},
    "fw": {"kind": "fw", "handle": 7},
    "flower": {"kind": "flower", "protocol": "ip", "dst_ip": "10.0.0.7"},
    "matchall": {"kind": "matchall"},
}


def tree(*filters: dict[str, Any]) -> dict[str, Any]:
    return htb({"classid": "1:1"}, {"classid": "1:2"}, filters=[{"parent": "1:", **one} for one in filters])


def each(shift: int, **more: Any) -> dict[str, Any]:
    """Every list of actions at a priority of its own, the kinds of filters taken in turn from `shift` on."""
    kinds = itertools.islice(itertools.cycle(FILTERS.values()), shift, None)
    pairs = enumerate(zip(kinds, ACTIONS), 1)
    return tree(*({**kind, "prio": prio, "action": actions, **more} for prio, (kind, actions) in pairs))


TREES = {
    **{f"actions, {kind} first": each(shift) for shift, kind in enumerate(FILTERS)},
    "actions and classes": each(0, flowid="1:2"),
    "classes alone": tree(*({**kind, "prio": prio, "flowid": "1:1"} for prio, kind in enumerate(FILTERS.values(), 1))),
}


@pytest.mark.parametrize("name", TREES)
def test_it_is_what_tc_makes_and_says_so(benches: list[Bench], name: str) -> None:
    ours, _straight, theirs, typed = benches
    report = ours.run(TREES[name])
    theirs.make(TREES[name])
    assert ours.state() == theirs.state()
    assert ours.show() == theirs.show()
    typed.shell(report.steps, ours.device)
    assert typed.state() == theirs.state()
    assert not ours.run(TREES[name]).changed


def test_any_leads_to_any(benches: list[Bench]) -> None:
    ours, _straight, theirs, typed = benches
    names = ["actions and classes", "actions, u32 first", "actions, fw first", "classes alone", "actions and classes"]
    for first, second in itertools.pairwise(names):
        for bench in (ours, theirs, typed):
            bench.clear()
        ours.run(TREES[first])
        typed.make(TREES[first])
        report = ours.run(TREES[second])
        typed.shell(report.steps, ours.device)
        theirs.make(TREES[second])
        assert ours.state() == theirs.state(), (first, second)
        assert typed.state() == theirs.state(), (first, second)
        assert not ours.run(TREES[second]).changed


SHARED = [
    "actions add action gact pass random determ drop 4 index 7",
    "actions add action police rate 1mbit burst 10k conform-exceed drop index 8",
    "actions add action skbedit mark 5 index 9",
    "actions add action mirred egress mirror dev lo index 10",
]


@pytest.fixture
def shared(benches: list[Bench]) -> Iterator[Bench]:
    """With one action of each kind that stands by itself."""
    benches[0].tc(SHARED)
    yield benches[0]
    for bench in benches:
        bench.clear()
    for kind, index in SHARES.items():
        benches[0].typed(f"until tc actions del action {kind} index {index} 2>/dev/null; do sleep 0.05; done")


SHARES = {"gact": 7, "police": 8, "skbedit": 9, "mirred": 10}


def test_actions_that_exist_are_bound_by_their_index(benches: list[Bench], shared: Bench) -> None:
    ours, _straight, theirs, typed = benches
    binding = [{"kind": kind, "index": index} for kind, index in SHARES.items()]
    kinds = [{**kind, "prio": prio, "action": binding} for prio, kind in enumerate(FILTERS.values(), 1)]
    report = ours.run(tree(*kinds))
    theirs.make(tree(*kinds))
    assert ours.state() == theirs.state()
    typed.shell(report.steps, ours.device)
    assert typed.state() == theirs.state()
    assert not ours.run(tree(*kinds)).changed
    shown = ours.typed("tc actions list action gact")
    assert "index 7 ref 13 bind 12" in shown  # itself, and four filters on three interfaces
    own = tree({**kinds[0], "action": [{"kind": "gact", "control": "drop"}, *binding[1:]]}, *kinds[1:])
    assert [step.split()[2] for step in ours.run(own).steps] == ["replace"]
    assert [step.split()[2] for step in ours.run(tree(*kinds)).steps] == ["replace"]


def send(bench: Bench, ports: Sequence[int], device: str = "") -> None:
    """One UDP packet to each port, as a frame that leaves by the interface."""
    with inside(bench.place), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device or bench.device, 0))
        for port in ports:
            udp = struct.pack("!HHHH", 1, port, 8 + 958, 0) + bytes(958)
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), bytes([10, 0, 0, 7]))
            sender.send(bytes(12) + b"\x08\x00" + ip + udp)


def counts(bench: Bench) -> dict[str, int]:
    """Packets by class, those that still wait too."""
    shown = bench.typed(f"tc -s class show dev {bench.device}")
    found = re.findall(r"class htb (\S+) .*\n Sent \d+ bytes (\d+) pkt.*\n backlog \d+b (\d+)p", shown)
    return {name: int(count) + int(waiting) for name, count, waiting in found}


def test_a_range_of_ports_takes_its_ports_and_no_other(benches: list[Bench]) -> None:
    ours = benches[0]
    ranged = {"kind": "flower", "prio": 1, "protocol": "ip", "ip_proto": "udp", "dst_port": "5000-5009"}
    ours.run({**tree({**ranged, "flowid": "1:2"})})
    send(ours, range(4990, 5020))
    assert counts(ours)["1:2"] == 10


def test_a_mark_that_one_filter_writes_is_seen_by_the_next(benches: list[Bench]) -> None:
    ours = benches[0]
    writing = {"kind": "flower", "prio": 1, "protocol": "ip", "ip_proto": "udp", "dst_port": 7}
    writing["action"] = [{"kind": "skbedit", "mark": "0x50000/0xff0000", "control": "continue"}]
    ours.run(tree(writing, {"kind": "fw", "prio": 2, "handle": 0x50000, "mask": 0xFF0000, "flowid": "1:2"}))
    send(ours, [7, 8, 7, 9, 7])
    assert counts(ours)["1:2"] == 3


def test_each_fourth_packet_goes_and_police_lets_a_burst_through(benches: list[Bench]) -> None:
    ours = benches[0]
    chance = {"type": "determ", "control": "drop", "value": 4}
    fourth = {
        "kind": "matchall",
        "prio": 1,
        "flowid": "1:2",
        "action": [{"kind": "gact", "control": "ok", "random": chance}],
    }
    ours.run(tree(fourth))
    send(ours, range(20))
    assert counts(ours)["1:2"] == 15
    ours.clear()
    # 10 frames of 1000 bytes fit the burst, and at 8 kbit/s no other one within the second that this takes.
    policed = {"kind": "police", "rate": "8kbit", "burst": "10000B", "exceed": "drop", "mtu": "2000B"}
    ours.run(tree({"kind": "matchall", "prio": 1, "flowid": "1:1", "action": [policed]}))
    send(ours, range(50))
    assert counts(ours)["1:1"] in (10, 11)


@pytest.mark.parametrize(("what", "left"), [("redirect", 0), ("mirror", 6)])
def test_what_is_sent_elsewhere_arrives_there(benches: list[Bench], what: str, left: int) -> None:
    ours, theirs, *_more = benches
    before = {device: sent(ours, device) for device in (ours.device, theirs.device)}
    ours.run(
        tree({"kind": "matchall", "prio": 1, "action": [{"kind": "mirred", "egress": what, "dev": theirs.device}]})
    )
    send(ours, range(6))
    assert sent(ours, theirs.device) - before[theirs.device] == 6
    assert sent(ours, ours.device) - before[ours.device] == left


def sent(bench: Bench, device: str) -> int:
    return int(
        bench.typed(f"ip -j -s link show dev {device}").partition('"tx":')[2].partition('"packets":')[2].split(",")[0]
    )


def test_where_packets_arrive_they_are_dropped(benches: list[Bench]) -> None:
    ours = benches[0]
    dropping = {"kind": "flower", "prio": 1, "protocol": "ip", "parent": "ingress", "dst_ip": "10.0.0.0/8"}
    ours.run(
        {"qdiscs": [{"kind": "clsact"}], "filters": [{**dropping, "action": [{"kind": "gact", "control": "drop"}]}]}
    )
    send(ours, range(9), ours.device.replace("t", "p"))
    shown = ours.typed(f"tc -s filter show dev {ours.device} ingress")
    assert "(dropped 9," in shown


def test_an_interface_that_came_anew_is_found(benches: list[Bench]) -> None:
    ours = benches[0]
    ours.typed("ip link add gone type veth peer name away")
    asked = tree(
        {
            "kind": "u32",
            "prio": 1,
            "match": ["u32 0 0"],
            "action": [{"kind": "mirred", "egress": "redirect", "dev": "gone"}],
        }
    )
    ours.run(asked)
    ours.typed("ip link del gone; ip link add gone type veth peer name away")
    (step,) = ours.run(asked).steps
    assert " replace " in step
    assert not ours.run(asked).changed
    ours.typed("ip link del gone")


OLD = [
    "u32 match u32 0 0 police rate 1mbit burst 10k drop flowid 1:1",
    "u32 match ip nofrag offset mask 0x0F00 shift 6 at 0 link 1: flowid 1:1",
]


@pytest.mark.parametrize("words", OLD)
def test_what_others_made_in_the_way_of_old_is_not_guessed(benches: list[Bench], words: str) -> None:
    """It is taken out of our tree, and a tree of somebody else that has it is not replaced."""
    ours, theirs, *_more = benches
    asked = tree({**FILTERS["u32"], "prio": 1, "flowid": "1:2"})
    ours.run(asked)
    theirs.make(asked)
    lines = [f"filter add dev {{0}} parent 1: protocol ip prio 2 {line}" for line in ("handle 1: u32 divisor 1", words)]
    for bench in (ours, theirs):
        bench.tc([line.format(bench.device) for line in lines])
    with pytest.raises(TestbedError, match="filters of kind u32, which could not be given back"):
        theirs.run(tree(), purge=True)
    ours.run(asked)
    theirs.typed(f"tc filter del dev {theirs.device} parent 1: protocol ip prio 2")
    assert ours.state() == theirs.state()
