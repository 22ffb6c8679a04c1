# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tc engine against the running kernel, with kinds that every kernel has; judged by tc and by raw dumps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.integration.engine import Bench, watched
from tests.integration.places import Netns


def htb(*classes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A tree of one HTB with these classes."""
    root = {"parent": "root", "handle": "1:", "kind": "htb", **more.pop("root", {})}
    return {
        "qdiscs": [root, *more.get("qdiscs", [])],
        "classes": [{"kind": "htb", "parent": "1:", "rate": "1mbit", **entry} for entry in classes],
        "filters": [{"parent": "1:", "prio": 1, "kind": "u32", **entry} for entry in more.get("filters", [])],
    }


ONE = {"classid": "1:1"}
TWO = {"classid": "1:2", "rate": "2mbit"}


def qdisc(kind: str, **options: Any) -> dict[str, Any]:
    return {"qdiscs": [{"parent": "root", "handle": "1:", "kind": kind, **options}]}


def matching(*matches: str, **more: Any) -> dict[str, Any]:
    return htb(ONE, filters=[{"match": list(matches), "flowid": "1:1", **more}])


TREES = {
    "htb alone": htb(),
    "default": htb(ONE, root={"default": 0x1}),
    "default in hexadecimal": htb({"classid": "1:1a"}, root={"default": 0x1A}),
    "r2q and direct_qlen": htb(ONE, root={"r2q": 50, "direct_qlen": 7}),
    "quantum": htb({**ONE, "quantum": 3000}),
    "ceil and bursts": htb({**ONE, "ceil": "10mbit", "burst": "15kB", "cburst": "30KiB"}),
    "prio, overhead, mpu": htb({**ONE, "prio": 3, "overhead": 24, "mpu": 64}),
    "more than 32 bits of rate": htb({**ONE, "rate": "40gbit", "ceil": "80gbit", "burst": "40kB", "cburst": "80kB"}),
    "children, prio on the inner class": htb(
        {**ONE, "prio": 5, "quantum": 2000}, {"classid": "1:2", "parent": "1:1", "prio": 1}
    ),
    "tbf with limit": qdisc("tbf", rate="1mbit", burst="5kB", limit="30kB"),
    "tbf with latency": qdisc("tbf", rate="1mbit", burst="1600B", latency="50ms"),
    "tbf with peakrate": qdisc("tbf", rate="1mbit", burst="5kB", limit="30kB", peakrate="2mbit", mtu="2000B"),
    "tbf with latency and peakrate": qdisc(
        "tbf", rate="1mbit", burst="5kB", latency="500ms", peakrate="2mbit", mtu="2000B"
    ),
    "tbf of 64 bits": qdisc("tbf", rate="40gbit", burst="50001B", limit="1MB"),
    "pfifo": qdisc("pfifo", limit=17),
    "pfifo of the device's length": qdisc("pfifo"),
    "bfifo": qdisc("bfifo", limit="64kB"),
    "leaves": htb(
        ONE,
        TWO,
        qdiscs=[
            {"parent": "1:1", "kind": "tbf", "rate": "1mbit", "burst": "5kB", "limit": "30kB"},
            {"parent": "1:2", "handle": "20:", "kind": "bfifo", "limit": "9kB"},
        ],
    ),
    "u32 everything": matching("u32 0 0"),
    "u32 with decimal value and hexadecimal mask": matching("u32 10 10 at 4"),
    "u32 with a hexadecimal mask": matching("ip dport 80 ff"),
    "u32 addresses": matching("ip src 10.0.0.0/8", "ip dst 192.168.1.107", protocol="ip"),
    "u32 every address": matching("ip src 0.0.0.0/0", protocol="ip"),
    "u32 fields": matching("ip protocol 6 0xff", "ip dport 7575 0xffff", "ip sport 1 0xffff", protocol="ip"),
    "u32 ihl and tos": matching("ip ihl 5 0xf", "ip tos 0x10 0xff", "ip dsfield 0xb8 0xfc", protocol="ip")
    | {"xfail": "contradiction"},
    "u32 IPv6": matching("ip6 src fe80::/64", "ip6 dst 2001:db8::/33", "ip6 dport 53 0xffff", protocol="ipv6"),
    "u32 nibbles of one word": matching("u8 0x45 0xff at 0", "u8 0x10 0xff at 1", "u16 0x40 0xffff at 2"),
    "u32 before the header": matching("u16 0x5254 0xffff at -14", "u32 0x1 0xffffffff at -12"),
    "u32 MAC addresses": matching("ether dst 52:54:00:12:34:56", "ether src 02:00:00:00:00:01"),
    "u32 after the header": matching("u32 0x1 0xffff at nexthdr+4"),
    "u32 and indev": matching("u32 0 0", indev="p0"),
    "u32 several in one prio": htb(
        ONE,
        TWO,
        filters=[{"match": [f"ip dport {port} 0xffff"], "flowid": f"1:{1 + port % 2}"} for port in range(5, 12)],
    ),
    "u32 in several prios and protocols": htb(
        ONE,
        TWO,
        filters=[
            {"match": ["u32 0 0"], "flowid": "1:1", "prio": 9},
            {"match": ["ip dport 1 0xffff"], "flowid": "1:2", "prio": 2, "protocol": "ip"},
            {"match": ["ip6 dport 1 0xffff"], "flowid": "1:2", "prio": 3, "protocol": "ipv6"},
            {"match": ["u32 0 0"], "flowid": "1:2", "prio": 4, "protocol": "arp"},
            {"match": ["u16 0x0800 0xffff at 2"], "flowid": "1:2", "prio": 5, "protocol": "802.1Q"},
        ],
    ),
}
ARRIVING = {"parent": "ingress", "kind": "u32", "match": ["u32 0 0"], "flowid": "1:1"}
LEAVING = {**ARRIVING, "parent": "egress", "match": ["ip dport 7575 0xffff"]}
TREES |= {
    "ingress alone": {"qdiscs": [{"kind": "ingress"}], "filters": [{**ARRIVING, "prio": 7}]},
    "ingress by its handle": {"qdiscs": [{"kind": "ingress"}], "filters": [{**ARRIVING, "prio": 7, "parent": "ffff:"}]},
    "clsact alone": {"qdiscs": [{"kind": "clsact"}]},
    "clsact with filters at both sides": {
        "qdiscs": [{"kind": "clsact", "parent": "clsact", "handle": "ffff:"}],
        "filters": [{**ARRIVING, "prio": 2}, {**LEAVING, "prio": 3}, {**ARRIVING, "prio": 5, "parent": "ffff:fff2"}],
    },
    "clsact beside a root": {
        **htb(ONE, qdiscs=[{"kind": "clsact"}], filters=[{"match": ["u32 0 0"], "flowid": "1:1", "prio": 7}]),
    },
    "the root without clsact": htb(ONE, filters=[{"match": ["u32 0 0"], "flowid": "1:1", "prio": 7}]),
}
for _name, _tree in list(TREES.items()):
    if _tree.pop("xfail", None):
        del TREES[_name]


@pytest.mark.parametrize("name", TREES)
def test_made_as_tc_makes_it(benches: list[Bench], name: str) -> None:
    ours, theirs, *_more = benches
    theirs.make(TREES[name])
    report = ours.run(TREES[name])
    assert ours.state() == theirs.state()
    assert ours.show() == theirs.show()
    assert report.changed
    assert not ours.run(TREES[name]).changed
    theirs.clear()
    theirs.shell(report.steps, ours.device)
    assert ours.state() == theirs.state()


CHANGES = list(itertools.pairwise([*TREES, *reversed(TREES)]))


@pytest.mark.parametrize(("first", "second"), CHANGES)
def test_nothing_of_the_first_is_left_after_the_second(benches: list[Bench], first: str, second: str) -> None:
    ours, theirs, *_more = benches
    theirs.make(TREES[second])
    ours.run(TREES[first])
    ours.run(TREES[second])
    assert ours.state() == theirs.state()


def test_second_run_writes_nothing(benches: list[Bench], place: Netns) -> None:
    ours = benches[0]
    ours.run(TREES["leaves"])
    with watched(place) as seen:
        assert not ours.run(TREES["leaves"]).changed
        assert seen() == []
        assert ours.run(TREES["u32 several in one prio"], check=True).changed
        assert seen() == []
        ours.run(htb(ONE, TWO, qdiscs=TREES["leaves"]["qdiscs"][1:], filters=[{"match": ["u32 0 0"], "flowid": "1:1"}]))
        assert len(seen()) > 0  # the monitor does see what is written


def ports(*numbers: int) -> dict[str, Any]:
    return htb(ONE, filters=[{"match": [f"ip dport {number} 0xffff"], "flowid": "1:1"} for number in numbers])


def test_u32_filters_keep_their_order_where_deletions_left_gaps(benches: list[Bench]) -> None:
    ours, theirs, *_more = benches
    for way in (ports(1, 2), ports(2, 3), ports(2, 3, 4), ports(4, 2), ports(2, 1, 4, 3)):
        ours.run(way)
    theirs.make(ports(2, 1, 4, 3))
    assert ours.state() == theirs.state()


def test_leaves_that_exchange_their_handles(benches: list[Bench]) -> None:
    ours, theirs, *_more = benches
    for handles in (("10:", "20:"), ("20:", "10:")):
        tree = htb(
            ONE,
            TWO,
            qdiscs=[
                {"parent": f"1:{minor}", "handle": handle, "kind": "pfifo", "limit": minor}
                for minor, handle in enumerate(handles, 1)
            ],
        )
        steps = ours.run(tree).steps
    theirs.make(tree)
    assert ours.state() == theirs.state()
    assert "disruptive" in steps[0]


def test_more_priorities_than_the_kernel_has_numbers_for_are_exchanged(benches: list[Bench]) -> None:
    """1500 for 1400 others and 100 of the old ones: old ones go as soon as the new ones find no room beside them."""
    ours, theirs, *_more = benches
    first, second = (
        htb(ONE, filters=[{"match": [f"ip dport {n} 0xffff"], "flowid": "1:1", "prio": n} for n in numbers])
        for numbers in (range(1, 1501), range(1401, 2901))
    )
    ours.run(first)
    steps = ours.run(second).steps
    theirs.make(second)
    assert ours.state() == theirs.state()
    assert not ours.run(second).changed
    assert len(steps) == 2800
    assert sum("disruptive" in step for step in steps) == 1500 + 1400 - 2046
