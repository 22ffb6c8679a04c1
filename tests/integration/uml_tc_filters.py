# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of filters that not every kernel has; test_tc_uml.py runs this inside a kernel that has them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput, TestbedError
from tests.integration.engine import Bench
from tests.integration.test_tc import htb

FLOWERS: list[dict[str, Any]] = [
    {"protocol": "ip", "dst_ip": "10.0.0.7"},
    {"protocol": "ip", "dst_ip": "10.0.0.0/8", "src_ip": "192.168.7.0/25"},
    {"protocol": "ip", "ip_proto": "tcp", "dst_port": 7575},
    {"protocol": "ip", "ip_proto": "udp", "dst_port": "0x1000/0xf000", "src_port": 9},
    {"protocol": "ip", "ip_proto": "sctp", "src_port": 9},
    {"protocol": "ip", "ip_proto": "udp", "dst_port": "5000-5999"},
    {"protocol": "ip", "ip_proto": "tcp", "src_port": "1-1024", "dst_port": "5000-5999"},
    {"protocol": "ip", "ip_proto": "icmp", "ip_tos": "0xb8/0xfc", "ip_ttl": "64/0xff"},
    {"protocol": "ip", "ip_proto": "tcp", "tcp_flags": "0x2/0x12"},
    {"protocol": "ip", "ip_proto": "0x59"},
    {"protocol": "ipv6", "src_ip": "2001:db8::/32", "ip_proto": "icmpv6"},
    {"protocol": "ipv6", "dst_ip": "2001:db8::7", "ip_proto": "udp", "dst_port": 53},
    {"protocol": "all", "src_mac": "52:54:00:00:00:01"},
    {"protocol": "all", "dst_mac": "52:54:00:00:00:00/ff:ff:ff:00:00:00", "indev": "lo"},
    {"protocol": "arp"},
    {"protocol": "arp", "arp_op": "reply", "arp_sip": "10.0.0.7", "arp_tip": "10.0.0.0/8"},
    {"protocol": "arp", "arp_sha": "52:54:00:00:00:01", "arp_tha": "52:54:00:00:00:00/ff:ff:ff:00:00:00"},
    {"protocol": "ip", "ip_flags": "frag/nofirstfrag"},
    {"protocol": "ipv6", "ip_flags": "nofrag", "ip_proto": "udp"},
    {"protocol": "ip", "dst_ip": "10.0.0.7", "skip_hw": True},
    {"protocol": "802.1Q", "vlan_id": 7},
    {"protocol": "802.1Q", "vlan_id": 300, "vlan_prio": 5, "vlan_ethtype": "ip", "src_ip": "10.0.0.0/8"},
    {"protocol": "802.1Q", "vlan_id": 0, "vlan_ethtype": "ipv6", "ip_proto": "tcp", "dst_port": 80},
]


def tree(*filters: dict[str, Any]) -> dict[str, Any]:
    return htb(
        {"classid": "1:1"}, {"classid": "1:2"}, filters=[{"parent": "1:", "flowid": "1:2", **one} for one in filters]
    )


EVERY = tree(*({"kind": "flower", "prio": prio, **keys} for prio, keys in enumerate(FLOWERS, 1)))
HOSTS = [
    {"kind": "flower", "prio": 3, "protocol": "ip", "dst_ip": f"10.0.{number // 12}.{number % 12}"}
    for number in range(24)
]
TREES = {
    "one of every key": EVERY,
    "half of them": tree(*({"kind": "flower", "prio": prio, **keys} for prio, keys in enumerate(FLOWERS[::2], 1))),
    "a table": tree(*HOSTS),
    "most of the table": tree(*HOSTS[8:], {**HOSTS[0], "flowid": "1:1"}, {"kind": "matchall", "prio": 4}),
    "matchall": tree(
        {"kind": "matchall", "prio": 3, "protocol": "ip"}, {"kind": "matchall", "prio": 9, "flowid": "1:1"}
    ),
    "another": tree(
        {"kind": "matchall", "prio": 3, "protocol": "ip", "flowid": "1:1"},
        {"kind": "u32", "prio": 4, "match": ["u32 0 0"]},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_it_is_what_tc_makes_and_says_so(benches: list[Bench], name: str) -> None:
    ours, _straight, theirs, typed = benches
    report = ours.run(TREES[name])
    theirs.make(TREES[name])
    assert ours.state() == theirs.state()
    typed.shell(report.steps, ours.device)
    assert typed.state() == theirs.state()
    assert not ours.run(TREES[name]).changed


def test_any_leads_to_any(benches: list[Bench]) -> None:
    ours, _straight, theirs, typed = benches
    for first, second in itertools.pairwise([*TREES, *list(TREES)[::-2]]):
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


def test_a_filter_of_a_table_is_one_message(benches: list[Bench]) -> None:
    ours = benches[0]
    ours.run(tree(*HOSTS))
    added = ours.run(tree(*HOSTS[:9], {**HOSTS[0], "dst_ip": "10.9.9.9"}, *HOSTS[9:]))
    assert len(added.steps) == 1 and " add " in added.steps[0]
    assert len(ours.run(tree(*HOSTS)).steps) == 1
    moved = ours.run(tree({**HOSTS[0], "flowid": "1:1"}, *HOSTS[1:]))
    assert len(moved.steps) == 1 and " replace " in moved.steps[0]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"protocol": "ip", "dst_port": 80}, "ip_proto"),
    ({"protocol": "ip", "dst_ip": "2001:db8::1"}, "protocol ipv6"),
    ({"protocol": "ip", "dst_ip": "10.0.0.1/8"}, "host bits"),
    ({"protocol": "all", "dst_ip": "10.0.0.1"}, "protocol ip"),
    ({"protocol": "ip", "vlan_id": 7}, "802.1Q"),
    ({"protocol": "ip", "arp_op": "reply"}, "protocol arp"),
    ({"protocol": "arp", "arp_op": "answer"}, "whole number"),
    ({"protocol": "arp", "arp_sip": "2001:db8::1"}, "IPv4"),
    ({"protocol": "ip", "ip_flags": "frag/nofrag"}, "two of them with a slash"),
    ({"protocol": "ip", "skip_hw": "yes"}, "true or false"),
    ({"protocol": "802.1Q", "vlan_id": 4096}, "4095"),
    ({"protocol": "802.1Q", "vlan_id": 1, "dst_ip": "10.0.0.1"}, "vlan_ethtype ip"),
    ({"protocol": "ip", "ip_proto": "tcp", "dst_port": "9-8"}, "FIRST below LAST"),
    ({"protocol": "ip", "ip_proto": "tcp", "dst_port": "5/0x2"}, "within its mask"),
    ({"protocol": "ip", "ip_proto": "tcp", "tcp_flags": 4096}, "12 bits"),
    ({"protocol": "all", "src_mac": "52:54"}, "MAC"),
    ({"protocol": "ip", "dst_ip": "10.0.0.1", "src_ip": "2001:db8::1"}, "families"),
]


@pytest.mark.parametrize(("keys", "allowed"), REFUSED)
def test_what_is_refused_touches_nothing(benches: list[Bench], keys: dict[str, Any], allowed: str) -> None:
    ours = benches[0]
    with pytest.raises(InvalidInput) as refusal:
        ours.run(tree({"kind": "flower", "prio": 1, **keys}))
    assert refusal.value.path.startswith("filters[0]")
    assert allowed in str(refusal.value)
    assert ours.state() == []


def test_two_shapes_in_one_priority_are_refused(benches: list[Bench]) -> None:
    two = [{"kind": "flower", "prio": 1, "protocol": "ip", key: "10.0.0.1"} for key in ("dst_ip", "src_ip")]
    with pytest.raises(InvalidInput, match=r"filters\[1\]\.prio"):
        benches[0].run(tree(*two))


def test_a_key_that_is_not_known_here_is_another_filter(benches: list[Bench]) -> None:
    """It is taken out of our tree, and a tree of somebody else that has it is not replaced."""
    ours, theirs, *_more = benches
    asked = tree({"kind": "flower", "prio": 1, "protocol": "ip", "ip_proto": "icmp"})
    ours.run(asked)
    ours.tc([f"filter add dev {ours.device} parent 1: protocol ip prio 1 flower ip_proto icmp type 8 flowid 1:1"])
    (step,) = ours.run(asked).steps
    assert step.startswith("tc filter del")
    theirs.make(asked)
    assert ours.state() == theirs.state()
    theirs.tc([f"filter add dev {theirs.device} parent 1: protocol ip prio 1 flower ip_proto icmp type 8 flowid 1:1"])
    with pytest.raises(TestbedError, match="filters of kind flower, which could not be given back"):
        theirs.run(tree(), purge=True)
