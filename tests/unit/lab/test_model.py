# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which topologies are accepted, and that each refusal names the path of the value."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.lab import links, model

Raw = dict[str, Any]


def raw() -> Raw:
    return {
        "lab": "small",
        "nodes": [
            {"name": "left", "kind": "uml", "interfaces": [{"name": "enp3s0", "address": "192.168.1.147/24"}]},
            {"name": "right", "kind": "uml", "interfaces": []},
        ],
        "links": [
            {
                "name": "cable",
                "ends": [{"node": "left", "interface": "enp3s0"}, {"node": "right", "interface": "enx8cae4cf5b7ae"}],
            }
        ],
    }


def parse(values: Raw) -> model.Topology:
    choose = functools.partial(links.choose, live=("netns",))
    return model.parse(values["lab"], values["nodes"], values["links"], ("uml", "netns", "real"), choose)


def test_a_topology_as_the_inventory_gives_it() -> None:
    topology = parse(raw())
    left, right = topology.nodes
    assert [i.name for i in left.interfaces] == ["enp3s0"]
    assert left.interfaces[0].address == "192.168.1.147/24"
    assert right.interfaces[0].mac == "8c:ae:4c:f5:b7:ae"
    assert (left.memory, left.number, right.number) == (256, 1, 2)
    assert topology.links[0].kind == "socket"


def test_addresses_are_the_same_every_time_and_differ_between_labs() -> None:
    other = raw()
    other["lab"] = "other"
    first, again, elsewhere = parse(raw()), parse(raw()), parse(other)
    assert first == again
    assert first.nodes[0].interfaces[0].mac != elsewhere.nodes[0].interfaces[0].mac
    assert first.nodes[0].interfaces[0].mac.startswith("52:54:")


def test_every_node_has_a_management_net_of_its_own() -> None:
    assert model.management_addresses(1) == ("169.254.1.1/30", "169.254.1.2/30")
    assert len({model.management_addresses(n) for n in range(1, model.NODE_LIMIT + 1)}) == model.NODE_LIMIT


def _set(*path: Any) -> Callable[[Raw], object]:
    """Sets the value at a path; the last argument is the value."""
    *keys, last, value = path

    def change(values: Raw) -> None:
        place: Any = values
        for key in keys:
            place = place[key]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [
        (["uml", "uml"], "socket"),
        (["netns", "netns"], "veth"),
        (["netns", "uml"], "tap"),
        (["uml", "uml", "uml"], "tap"),
        (["netns", "netns", "netns"], "tap"),
    ],
)
def test_the_kind_of_a_link_follows_from_what_it_joins(kinds: list[str], kind: str) -> None:
    assert links.choose("lab_links[0]", None, kinds, ("netns",)) == kind


def test_addresses_routes_and_mtu_arrive_where_they_belong() -> None:
    values = raw()
    values["nodes"][0]["interfaces"][0]["addresses"] = ["fd00::1/64"]
    values["nodes"][0].update(router=True, routes=[{"to": "10.0.0.0/8", "via": "192.168.1.1"}])
    values["links"][0]["mtu"] = 9000
    left = parse(values).nodes[0]
    assert left.interfaces[0].addresses == ("192.168.1.147/24", "fd00::1/64")
    assert left.interfaces[0].mtu == 9000
    assert left.router and left.routes == (model.Route("10.0.0.0/8", "192.168.1.1"),)


def test_what_only_joins_real_nodes_is_nothing_to_be_made() -> None:
    values = raw()
    for node in values["nodes"]:
        node["kind"] = "real"
    topology = parse(values)
    assert topology.links[0].kind == "cable"
    assert model.virtual(topology)[1:] == ((), ())


def test_a_port_leads_to_a_real_node() -> None:
    topology = model.virtual(parse(_real(raw(), port="enp3s0")))
    assert [node.name for node in topology.nodes] == ["left"]
    assert topology.links[0].kind == "tap"
    assert links.link_request(topology.links[0])["ports"] == ["enp3s0"]


LEFT = ("nodes", 0)
IFACE = ("nodes", 0, "interfaces", 0)
LINK = ("links", 0)
END = ("links", 0, "ends", 1)
SECOND = {"name": "second", "ends": [{"node": "left", "interface": "a0"}, {"node": "right", "interface": "b0"}]}


def _real(values: Raw, **end: Any) -> Raw:
    values["nodes"][1]["kind"] = "real"
    values["links"][0]["ends"][1].update(end)
    return values


THIRD = {"node": "left", "interface": "third"}
IPV6 = _set(*IFACE, "address", "fd00::1/64")

REFUSED: list[tuple[Callable[[Raw], object], str]] = [
    (_set("lab", "a b"), "lab_name"),
    (_set("lab", "x" * 64), "lab_name"),
    (_set("nodes", []), "lab_node_kind"),
    (_set(*LEFT, "kind", "vmware"), "left.lab_node_kind"),
    (_set(*LEFT, "name", "../left"), "nodes[0].name"),
    (_set(*LEFT, "name", "right"), "nodes[1].name"),
    (_set(*LEFT, "memory", "256"), "left.lab_node_memory"),
    (_set(*LEFT, "memory", 1), "left.lab_node_memory"),
    (_set(*LEFT, "memory", True), "left.lab_node_memory"),
    (_set(*LEFT, "kernel", "linux"), "left.lab_node_kernel"),
    (_set(*LEFT, "cpus", 4), "left.lab_node_cpus"),
    (_set(*LEFT, "interfaces", {"name": "enp3s0"}), "left.node_interfaces"),
    (_set(*LEFT, "colour", "red"), "nodes[0].colour"),
    (_set(*IFACE, "name", "eth7"), "left.node_interfaces[0].name"),
    (_set(*IFACE, "address", "192.168.1.147"), "left.node_interfaces[0].address"),
    (_set(*IFACE, "address", "192.168.1.300/24"), "left.node_interfaces[0].address"),
    (_set(*IFACE, "address", "169.254.1.9/24"), "left.node_interfaces[0].address"),
    (_set(*IFACE, "gateway", "10.0.0.1"), "left.node_interfaces[0].gateway"),
    (_set(*IFACE, "mac", "ff:ff:ff:ff:ff:ff"), "left.node_interfaces[0].mac"),
    (_set(*IFACE, "device", "e1000"), "left.node_interfaces[0].device"),
    (_set(*IFACE, "device", "igb"), "left.node_interfaces.enp3s0.device"),  # not under User-Mode Linux
    (_set(*IFACE, "speed", "1gbit"), "left.node_interfaces[0].speed"),
    (_set(*IFACE, "mac", "8c:ae:4c:f5:b7:ae"), "right.enx8cae4cf5b7ae"),
    (_set(*LEFT, "interfaces", [{"name": "enp3s0"}, {"name": "enp3s0"}]), "left.node_interfaces[1].name"),
    (
        _set("nodes", 1, "interfaces", [{"name": "enx8cae4cf5b7ae", "address": "192.168.1.147/16"}]),
        "right.node_interfaces[0].address",
    ),
    (_set("links", "cable"), "lab_links"),
    (_set(*LINK, "kind", "string"), "lab_links[0].kind"),
    (_set(*LINK, "length", 3), "lab_links[0].length"),
    (_set(*LINK, "ends", [{"node": "left", "interface": "enp3s0"}]), "lab_links[0].ends"),
    (_set(*LINK, "ends", None), "lab_links[0].ends"),
    (_set(*LINK, "name", None), "lab_links[0].name"),
    (_set(*END, "node", "middle"), "lab_links[0].ends[1].node"),
    (_set(*END, "node", ["left"]), "lab_links[0].ends[1].node"),
    (_set(*END, "interface", "an-interface-0123"), "lab_links[0].ends[1].interface"),
    (_set(*END, "interface", "mgmt0"), "lab_links[0].ends[1].interface"),
    (_set(*END, "interface", "vec0"), "lab_links[0].ends[1].interface"),
    (_set(*END, "interface", "a/b"), "lab_links[0].ends[1].interface"),
    (_set("links", 0, "ends", 1, {"node": "left", "interface": "enp3s0"}), "lab_links[0].ends[1].interface"),
    (lambda v: v["links"].append({**SECOND, "name": "cable"}), "lab_links[1].name"),
    (_set(*IFACE, "addresses", "10.0.0.1/8"), "left.node_interfaces[0].addresses"),
    (_set(*IFACE, "addresses", ["192.168.1.147/16"]), "left.node_interfaces[0].addresses[0]"),
    (_set(*IFACE, "addresses", ["fd00::1"]), "left.node_interfaces[0].addresses[0]"),
    (_set(*LEFT, "routes", [{"to": "10.0.0.0/8"}]), "left.node_routes[0].via"),
    (_set(*LEFT, "routes", [{"to": "10.0.0.1/8", "via": "192.168.1.1"}]), "left.node_routes[0].to"),
    (_set(*LEFT, "routes", [{"to": "10.0.0.0/8", "via": "10.0.0.1"}]), "left.node_routes[0].via"),
    (_set(*LEFT, "routes", [{"to": "fd00::/64", "via": "192.168.1.1"}]), "left.node_routes[0].via"),
    (_set(*LEFT, "routes", [{"to": "default", "via": "192.168.1.1"}] * 2), "left.node_routes[1].to"),
    (_set(*LINK, "mtu", 67), "lab_links[0].mtu"),
    (_set(*LINK, "mtu", "1500"), "lab_links[0].mtu"),
    (lambda v: (v["links"][0].update(mtu=1279), IPV6(v)), "lab_links[0].mtu"),
    (_set(*LINK, "kind", "veth"), "lab_links[0].kind"),
    (_real, "lab_links[0].ends[1].port"),
    (lambda v: (_real(v, port="enp3s0"), v["links"][0].update(kind="socket")), "lab_links[0].kind"),
    (_set(*END, "port", "enp3s0"), "lab_links[0].ends[1].port"),
    (lambda v: (_real(v, port="enp3s0"), v["nodes"][0].update(kind="real")), "lab_links[0].ends[1].port"),
    (lambda v: (v["links"][0].update(kind="socket"), v["nodes"][0].update(kind="netns")), "lab_links[0].kind"),
    (lambda v: (v["links"][0].update(kind="socket"), v["links"][0]["ends"].append(THIRD)), "lab_links[0].ends"),
]


BRIDGE = {"name": "cable", "kind": "bridge", "ends": raw()["links"][0]["ends"]}


def bridged(**link: Any) -> Raw:
    """A bridge in `left`, a namespace, with a port that is the TAP of `right`."""
    values = raw()
    values["nodes"][0]["kind"] = "netns"
    values["links"] = [{**BRIDGE, **link}]
    return values


def test_a_bridge_of_a_node_has_the_guests_tap_as_its_port() -> None:
    values = bridged(bridge={"multicast_snooping": False, "promiscuous": True, "neighbours": True})
    values["nodes"][1]["interfaces"] = [{"name": "enx8cae4cf5b7ae", "address": "192.168.1.101/24"}]
    topology = parse(values)
    nodes = {node.name: node for node in topology.nodes}
    assert links.bridged.host_of(topology.links, "right") == "left"
    assert links.bridged.host_of(topology.links, "left") == ""
    assert links.attach(topology.links[0], topology.links[0].ends[1]).transport == "tap"
    assert links.bridged.batch(topology.links, nodes, "left") == [
        "link set dev enp3s0 type bridge mcast_snooping 0",
        "link set dev enp3s0 promisc on",
        "neighbour replace 192.168.1.101 lladdr 8c:ae:4c:f5:b7:ae dev enp3s0 nud permanent",
        "route replace 192.168.1.101/32 dev enp3s0",
    ]
    assert links.bridged.batch(topology.links, nodes, "right") == []


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({**raw(), "links": [BRIDGE]}, "lab_links[0].ends[0].node"),
        (bridged(ends=list(reversed(BRIDGE["ends"]))), "lab_links[0].ends[0].node"),
        (bridged(bridge={"stp": True}), "lab_links[0].bridge.stp"),
        (bridged(bridge={"promiscuous": "yes"}), "lab_links[0].bridge.promiscuous"),
        (bridged(kind="tap", bridge={"promiscuous": True}), "lab_links[0].bridge"),
        ({**bridged(), "links": [BRIDGE, SECOND]}, "lab_links[1].ends[1].node"),
    ],
)
def test_a_bridge_that_cannot_be_is_refused_with_its_path(values: Raw, path: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(values)
    assert refusal.value.path == path


@pytest.mark.parametrize(("change", "path"), REFUSED, ids=[f"{n}-{path}" for n, (_change, path) in enumerate(REFUSED)])
def test_what_cannot_be_built_is_refused_with_its_path(change: Callable[[Raw], object], path: str) -> None:
    values = copy.deepcopy(raw())
    change(values)
    with pytest.raises(InvalidInput) as refusal:
        parse(values)
    assert refusal.value.path == path
    assert str(refusal.value).startswith(f"{path}: ")
