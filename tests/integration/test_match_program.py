# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Classes that a BPF program tells, where filters cannot: the first class whose match takes a packet gets it."""

from __future__ import annotations

import ipaddress
import os
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from plugins.module_utils.capabilities import Capabilities, load
from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.impairment import engine
from tests.integration import test_match as matching
from tests.integration.classified import Packet, Sender, with_rates
from tests.integration.engine import inside, namespace
from tests.integration.program import compiled
from tests.integration.wire import sh
from tests.oracle import programs

DEVICE = "t0"
# Tags are beside the packets of VLAN interfaces, and within packets where this machine's kernel has no such interfaces.
VLANS = os.path.exists("/proc/net/vlan") or load()["filter.flower"] is True
NOWHERE = {"name": "marked", "match": {"mark": "0x80000000/0x80000000"}}  # what filters here cannot tell


@pytest.fixture(scope="module")
def program() -> engine.Program:
    return compiled()


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """An interface whose other end answers nothing, on a kernel whose filters see neither marks nor VLANs."""
    able = dict(load())
    lacking = {"filter.flower": "CONFIG_NET_CLS_FLOWER", "filter.u32_mark": "CONFIG_CLS_U32_MARK"}
    with pytest.MonkeyPatch.context() as patch, namespace(2) as place, inside(place):
        patch.setattr(engine, "load", lambda: Capabilities({**able, **lacking}))
        sh("! [ -d /proc/sys/net/ipv6 ] || sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
        for vlan in (5, 6, 7) if VLANS else ():
            name = f"{DEVICE}.{vlan}"
            sh(f"ip link add link {DEVICE} name {name} type vlan id {vlan}", f"ip link set {name} up")
        yield DEVICE
        engine.clear()
        assert not programs.leaving(DEVICE)


@st.composite
def matches(draw: st.DrawFn) -> dict[str, Any]:
    """Of all conditions, marks and VLANs in one match too."""
    keys = draw(st.lists(st.sampled_from(list(matching.CONDITIONS)), min_size=1, max_size=3, unique=True))
    found = {key: draw(matching.CONDITIONS[key]) for key in keys}
    if any(key.endswith("port") for key in found) and "protocol" in found:
        found["protocol"] = draw(st.sampled_from(["tcp", "udp", "sctp", 6]))
    for either in ("address", "port", "mac"):
        for key in matching.AGAINST[either] if either in keys else ():
            found.pop(key, None)
    if draw(st.integers(0, 3)) == 0:
        key = draw(st.sampled_from(matching.EXCLUDED))
        found["not"] = {key: draw(matching.CONDITIONS[key])}
    return found


@settings(max_examples=25)
@given(
    st.lists(st.lists(matches(), min_size=1, max_size=3), min_size=1, max_size=5),
    st.lists(matching.PACKETS, min_size=40, max_size=40),
)
def test_random_overlapping_matches(
    device: str, program: engine.Program, lists: list[list[dict[str, Any]]], packets: list[Packet]
) -> None:
    found = [{"name": f"c{index}", "match": match} for index, match in enumerate(lists)]
    classes = with_rates([*found, NOWHERE, {"name": "rest"}])
    if any("not" in match and "vlan" not in match for one in lists for match in one):
        packets = [packet._replace(vlan=0) for packet in packets]
    try:
        out = engine.apply([{"name": device, "classes": classes}], [], program=program)
    except InvalidInput:
        reject()  # no packet is of two families, and the like; or more kinds of match than the program tries
    assert "bpf" in [one["backend"] for one in out.backends if one["impairment"] == "match"]
    matching.judge(device, classes, packets, Sender(device, tagged=not VLANS))


def test_ten_thousand_alternatives(device: str, program: engine.Program) -> None:
    """More than any list of filters holds; one more is one program, and no packet goes astray meanwhile."""
    chosen = random.Random(7)
    hosts = sorted({str(ipaddress.ip_address(0x0A000000 | chosen.randrange(1 << 24))) for _number in range(10_000)})
    classes = with_rates([{"name": "hosts", "match": {"source": hosts[1:]}}, {"name": "rest"}])
    asked = [{"name": device, "classes": classes}]
    out = engine.apply(asked, [], program=program)
    assert [one["backend"] for one in out.backends if one["impairment"] == "match"] == ["bpf"]
    assert sh(f"tc filter show dev {device} parent 7e57:").count("match") == 1
    packets = [Packet(source=source) for source in [*chosen.sample(hosts, 50), hosts[0], "192.0.2.1"]]
    matching.judge(device, classes, packets)
    assert not engine.apply(asked, [], program=program).report.changed
    classes[0]["match"] = {"source": hosts}
    steps = engine.apply(asked, [], program=program).report.steps
    (step,) = steps
    at_tcx = re.fullmatch(rf"bpftool net attach tcx_egress name \w+ dev {device} overwrite", step)
    assert at_tcx or step.startswith(f"tc filter replace dev {device} parent ffff:fff3"), step
    matching.judge(device, classes, packets)


def test_without_a_program_it_is_said_what_is_missing(device: str) -> None:
    with pytest.raises(Exception, match=r"CONFIG_CLS_U32_MARK"):
        engine.apply([{"name": device, "classes": with_rates([NOWHERE])}], [])


def test_the_first_class_wins_over_shapes(device: str, program: engine.Program) -> None:
    """Of many shapes in any order."""
    first: Sequence[dict[str, Any]] = [
        {"name": "a", "match": {"destination_port": 5000}},
        {"name": "b", "match": {"source": "10.0.0.1"}},
        {"name": "c", "match": {"source": "10.0.0.0/24"}},
        {"name": "d", "match": [{"dscp": "ef"}, {"protocol": "tcp"}]},
        NOWHERE,
        {"name": "rest"},
    ]
    packets = [
        Packet(source=source, destination_port=port, protocol=protocol, dscp=dscp)
        for source in ("10.0.0.1", "10.0.0.2", "10.0.1.1")
        for port in (5000, 80)
        for protocol in (6, 17)
        for dscp in (0, 46)
    ]
    for turn in range(len(first) - 1):
        classes = with_rates([*first[turn:-1], *first[:turn], first[-1]])
        engine.apply([{"name": device, "classes": classes}], [], program=program)
        matching.judge(device, classes, packets)
