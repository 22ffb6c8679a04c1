# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a munet.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.lab import manage, munet

# The chain of the original: tests/simplenet's shape, with a constraint on the routers' network.
CHAIN: dict[str, Any] = {
    "version": 1,
    "topology": {
        "networks-autonumber": True,
        "ipv6-enable": True,
        "networks": [
            {"name": "net0"},
            {"name": "net1", "delay": 20000, "loss": 1},
            {"name": "net2", "ip": "10.9.0.0/16"},
        ],
        "nodes": [
            {"name": "h1", "connections": ["net0"]},
            {"name": "r1", "kind": "linux", "connections": ["net0", {"to": "net1", "rate": {"rate": "10M"}}]},
            {"name": "r2", "kind": "linux", "connections": ["net1:wan", {"to": "net2", "name": "lan0"}]},
            {"name": "h2", "connections": [{"to": "net2", "ip": "10.9.1.1/16"}], "cmd": "iperf3 -s"},
        ],
    },
    "kinds": [{"name": "linux", "qemu": {"kernel": "bzImage"}}],
}


def imported(raw: Any) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    made = munet.Import(raw)
    found = made.inventory()["testbed"]
    return found["hosts"], found["vars"], made.left


def test_the_chain_has_its_addresses_kinds_and_constraints() -> None:
    hosts, variables, left = imported(CHAIN)
    assert hosts["h1"] == {"node_interfaces": [{"name": "eth0", "address": "10.0.0.1/24", "addresses": ["fc00::1/64"]}]}
    assert hosts["r2"]["node_interfaces"] == [
        {"name": "wan", "address": "10.0.1.3/24", "addresses": ["fc00:0:0:1::3/64"]},
        {"name": "lan0", "address": "10.9.0.3/16", "addresses": ["fc00:0:0:2::3/64"]},
    ]
    assert hosts["h2"]["node_interfaces"][0]["address"] == "10.9.1.1/16"
    assert (hosts["r1"]["lab_node_kind"], variables["lab_node_kind"]) == ("qemu", "netns")
    core = variables["lab_links"][1]
    assert core["ends"][0]["impairment"] == {"delay": "20000us", "loss": "1%", "rate": "10000000bit"}
    assert core["ends"][1]["impairment"] == {"delay": "20000us", "loss": "1%"}
    assert "nodes.h2.cmd" in left
    assert any(one.startswith("nodes.r1.qemu") for one in left)


def test_direct_links_are_one_link_however_often_they_are_said() -> None:
    nodes = [
        {"name": "a", "connections": [{"to": "b", "ip": "192.0.2.1/31"}, {"to": "b", "name": "second"}]},
        {"name": "b", "connections": [{"to": "a", "name": "back", "ip": "192.0.2.0/31", "jitter": 5, "delay": 100}]},
    ]
    hosts, variables, _left = imported({"topology": {"nodes": nodes}})
    pairs = [[(end["node"], end["interface"]) for end in link["ends"]] for link in variables["lab_links"]]
    assert pairs == [[("a", "eth0"), ("b", "back")], [("a", "second"), ("b", "eth0")]]
    back = variables["lab_links"][0]["ends"][1]["impairment"]
    assert back == {"delay": "100us", "jitter": "5us", "delay_correlation": "10%"}
    assert hosts["b"]["node_interfaces"] == [{"name": "back", "address": "192.0.2.0/31"}, {"name": "eth0"}]


def test_a_network_with_one_node_and_an_unknown_end_are_told() -> None:
    nodes = [{"name": "a", "connections": ["lonely", "nowhere"]}, {"name": "b"}]
    hosts, variables, left = imported({"topology": {"networks": [{"name": "lonely"}], "nodes": nodes}})
    assert (hosts["a"]["node_interfaces"], variables["lab_links"]) == ([], [])
    assert any("lonely" in one for one in left) and any("nowhere" in one for one in left)


def test_what_is_imported_is_a_topology() -> None:
    hosts, variables, _left = imported(CHAIN)
    nodes = [
        {"name": name, "kind": host.get("lab_node_kind", "netns"), "interfaces": host["node_interfaces"]}
        for name, host in hosts.items()
    ]
    topology = manage.parse("imported", nodes, variables["lab_links"])
    assert [link.kind for link in topology.links] == ["tap", "socket", "tap"]


@pytest.mark.parametrize("raw", [None, [], {}, {"topology": {"nodes": []}}, {"topology": "x"}])
def test_what_is_no_topology_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidInput):
        munet.Import(raw)


def test_numbers_have_units_of_munet() -> None:
    assert munet.impairment({"rate": "10Ki"}) == {"rate": "10240bit"}
    assert munet.impairment({"loss": 2.5, "loss-correlation": 20}) == {"loss": {"random": "2.5%", "correlation": "20%"}}
    with pytest.raises(InvalidInput):
        munet.impairment({"delay": "soon"})
