# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first class whose match takes a packet gets it: real packets, counted by tc, here and under User-Mode-Linux."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from plugins.module_utils.capabilities import load
from plugins.module_utils.errors import InvalidInput, MissingCapability
from plugins.module_utils.impairment import engine
from tests.integration.classified import Packet, Sender, expected, taken, with_rates
from tests.integration.engine import inside, namespace
from tests.integration.wire import sh

DEVICE = "t0"
ADDRESSES = {"ipv4": [f"10.0.0.{last}" for last in range(8)], "ipv6": [f"2001:db8::{last:x}" for last in range(8)]}
NETWORKS = ["10.0.0.0/30", "10.0.0.1", "10.0.0.2-10.0.0.6", "2001:db8::/126", "2001:db8::1-2001:db8::5"]
PORTS = [22, 5000, "4999-5002", "5001-5007"]
PORTS_SENT = [22, 23, 4998, 4999, 5000, 5001, 5002, 5003, 5007, 5008]
MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:01:01"]
NEEDS = {"vlan": "filter.flower", "mark": "filter.u32_mark"}


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """An interface whose other end answers nothing, with VLANs on it where the kernel can match these."""
    load()  # it brings the kernel's modules, IPv6 among them: what follows keeps IPv6 still
    with namespace(2) as place, inside(place):
        sh("! [ -d /proc/sys/net/ipv6 ] || sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
        for vlan in (5, 6, 7) if load()["filter.flower"] is True else ():
            name = f"{DEVICE}.{vlan}"
            sh(f"ip link add link {DEVICE} name {name} type vlan id {vlan}", f"ip link set {name} up")
        yield DEVICE
        engine.clear()


def some(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """One of them, or a list of alternatives."""
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))


CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "protocol": st.sampled_from(["tcp", "udp", "sctp", "icmp", "icmpv6", 17, "ipv4", "ipv6", "arp"]),
    "address": some(NETWORKS),
    "source": some(NETWORKS),
    "destination": some(NETWORKS),
    "port": some(PORTS),
    "source_port": some(PORTS),
    "destination_port": some(PORTS),
    "dscp": some(["ef", 10, "cs1"]),
    "mac": some(MACS),
    "source_mac": some(MACS),
    "destination_mac": some(MACS),
    "vlan": some([5, 6]),
    "mark": st.sampled_from(["0x1/0x3", "0x2", "0x4/0x4"]),
}
AGAINST = {  # the latter are not written beside the former
    "address": ("source", "destination"),
    "port": ("source_port", "destination_port"),
    "mac": ("source_mac", "destination_mac"),
    "vlan": ("mark",),
}
EXCLUDED = ("protocol", "source", "destination", "destination_port", "dscp", "source_mac")


@st.composite
def conditions(draw: st.DrawFn, most: int = 3) -> dict[str, Any]:
    able = load()
    keys = [key for key in CONDITIONS if key not in NEEDS or able[NEEDS[key]] is True]
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=most, unique=True))
    found = {key: draw(CONDITIONS[key]) for key in chosen}
    if any(key.endswith("port") for key in found) and "protocol" in found:
        found["protocol"] = draw(st.sampled_from(["tcp", "udp", "sctp", 6]))
    for key in {key for either in chosen for key in AGAINST.get(either, ())}:
        found.pop(key, None)
    return found


@st.composite
def matches(draw: st.DrawFn) -> dict[str, Any]:
    found = draw(conditions())
    if draw(st.integers(0, 3)) == 0:
        key = draw(st.sampled_from(EXCLUDED))
        found["not"] = {key: draw(CONDITIONS[key])}
    return found


PACKETS = st.builds(
    lambda family, ends, **rest: Packet(
        family,
        source=ADDRESSES.get(family, ADDRESSES["ipv4"])[ends[0]],
        destination=ADDRESSES.get(family, ADDRESSES["ipv4"])[ends[1]],
        **rest,
    ),
    st.sampled_from(["ipv4", "ipv4", "ipv6", "ipv6", "arp"]),
    st.tuples(st.integers(0, 7), st.integers(0, 7)),
    protocol=st.sampled_from([1, 6, 17, 17, 58, 132]),
    source_port=st.sampled_from(PORTS_SENT),
    destination_port=st.sampled_from(PORTS_SENT),
    dscp=st.sampled_from([0, 8, 10, 46]),
    source_mac=st.sampled_from(MACS),
    destination_mac=st.sampled_from(MACS),
    vlan=st.sampled_from([0, 0, 5, 6, 7]),
    mark=st.integers(0, 7),
)


def judge(
    device: str, classes: Sequence[dict[str, Any]], packets: Sequence[Packet], sender: Sender | None = None
) -> None:
    """All packets at once; where a count differs, one by one, to say which went astray."""
    wanted = Counter(expected(classes, packet) for packet in packets)
    if taken(device, classes, packets, sender) == wanted:
        return
    for packet in packets:
        got = taken(device, classes, [packet], sender)
        assert got == {expected(classes, packet): 1}, (packet, classes, sh(f"tc filter show dev {device}"))
    raise AssertionError(f"packets of others are among those that were counted, {classes}")


@settings(max_examples=25)
@given(
    st.lists(st.lists(matches(), min_size=1, max_size=3), min_size=1, max_size=5),
    st.lists(PACKETS, min_size=40, max_size=40),
)
def test_random_overlapping_matches(device: str, lists: list[list[dict[str, Any]]], packets: list[Packet]) -> None:
    classes = with_rates({"name": f"c{index}", "match": found} for index, found in enumerate(lists))
    behind = any("not" in match and "vlan" not in match for found in lists for match in found)  # a tag nobody looks
    if behind or load()["filter.flower"] is not True:
        packets = [packet._replace(vlan=0) for packet in packets]
    try:
        engine.apply([{"name": device, "classes": classes}], [])
    except (InvalidInput, MissingCapability):
        reject()  # no packet is of two families, and the like; or more filters than this kernel can list
    judge(device, classes, packets)


@pytest.mark.parametrize("condition", [{"vlan": 5}, {"vlan": [6, 5], "protocol": "udp"}, {"vlan": 5, "port": 5000}])
def test_tags_of_own_and_of_bridged_packets(device: str, condition: dict[str, Any]) -> None:
    classes = with_rates([{"name": "tagged", "match": condition}, {"name": "rest"}])
    if load()["filter.flower"] is not True:
        with pytest.raises(MissingCapability, match=r"match\.vlan.*CONFIG_NET_CLS_FLOWER"):
            engine.apply([{"name": device, "classes": classes}], [])
        return
    engine.apply([{"name": device, "classes": classes}], [])
    packets = [Packet(vlan=vlan, destination_port=5000) for vlan in (5, 6, 0)]
    sent = Counter(expected(classes, packet) for packet in packets)
    assert taken(device, classes, packets) == sent  # tagged by VLAN interfaces of this node
    sh("ip link add br0 type bridge mcast_snooping 0", *(f"ip link set {port} master br0" for port in (DEVICE, "t1")))
    sh("ip link set br0 up")
    try:
        forwarding(2)
        assert taken(device, classes, packets, Sender("p1", tagged=True)) == sent  # tagged on the wire
    finally:
        sh("ip link delete br0")


def forwarding(ports: int) -> None:
    """Wait until the bridge's ports forward."""
    deadline = time.monotonic() + 10
    while sh("bridge link show").count("state forwarding") < ports:
        assert time.monotonic() < deadline, sh("bridge link show")


@pytest.mark.parametrize("alternatives", [10, 900])
def test_many_alternatives_and_one_more(device: str, alternatives: int) -> None:
    """Addresses of hosts and networks, in three classes that overlap."""
    chosen = random.Random(alternatives)

    def host() -> str:
        return f"10.{chosen.randrange(2)}.{chosen.randrange(256)}.{chosen.randrange(256)}"

    one = [{"source": host()} for _number in range(alternatives)]
    classes = with_rates(
        [
            {"name": "hosts", "match": one},
            {"name": "networks", "match": [{"source": f"10.0.{number}.0/24"} for number in range(0, 256, 8)]},
            {"name": "ports", "match": {"destination_port": "5000-5999"}},
            {"name": "more", "match": [{"destination": entry["source"]} for entry in one]},
        ]
    )
    asked = [{"name": device, "classes": classes}]
    engine.apply(asked, [])
    assert not engine.apply(asked, []).report.changed
    hosts = [*(entry["source"] for entry in chosen.choices(one, k=100)), *(host() for _number in range(100))]
    packets = [
        Packet(source=first, destination=last, destination_port=chosen.choice([80, 5000, 5998, 6000]))
        for first, last in zip(hosts, chosen.sample(hosts, len(hosts)))
    ]
    judge(device, classes, packets)
    one.insert(alternatives // 2, {"source": "10.1.2.3"})
    changed = engine.apply(asked, []).report
    assert len(changed.steps) <= 2 and not any("disruptive" in step for step in changed.steps)
    judge(device, classes, [*packets, Packet(source="10.1.2.3")])
    one.pop(alternatives // 2)
    assert len(engine.apply(asked, []).report.steps) <= 2
    judge(device, classes, [*packets, Packet(source="10.1.2.3")])
