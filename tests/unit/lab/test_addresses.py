# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computed addresses and routes, and the impairments that links ask for."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.lab import addresses

NODES = ["h1", "r1", "r2", "h2"]
POOLS = ["10.0.0.0/16", "fd00:10::/48"]


def link(*ends: str, **more: Any) -> dict[str, Any]:
    named = [dict(zip(("node", "interface"), end.split("."))) for end in ends]
    return {"name": "-".join(end.partition(".")[0] for end in ends), "ends": named, **more}


def plan(links: Any, nodes: Any, pools: Any, routers: Any) -> dict[str, addresses.Plan]:
    return {node: addresses.plan(node, links, nodes, pools, routers) for node in nodes}


CHAIN = [link("h1.eth0", "r1.eth0"), link("r1.eth1", "r2.eth1"), link("r2.eth0", "h2.eth0")]


def test_a_node_has_the_same_number_in_each_of_its_networks() -> None:
    found = plan(CHAIN, NODES, POOLS, ["r1", "r2"])
    assert found["r2"].interfaces == [
        {"name": "eth1", "address": "10.0.1.3/24", "addresses": ["fd00:10:0:1::3/64"]},
        {"name": "eth0", "address": "10.0.2.3/24", "addresses": ["fd00:10:0:2::3/64"]},
    ]
    assert found["h2"].interfaces[0]["address"] == "10.0.2.4/24"


def test_hosts_have_a_default_route_and_routers_one_for_each_network() -> None:
    found = plan(CHAIN, NODES, POOLS, ["r1", "r2"])
    assert found["h1"].routes == [{"to": "default", "via": "10.0.0.2"}, {"to": "default", "via": "fd00:10::2"}]
    assert found["r1"].routes == [
        {"to": "10.0.2.0/24", "via": "10.0.1.3"},
        {"to": "fd00:10:0:2::/64", "via": "fd00:10:0:1::3"},
    ]


def test_without_routers_nobody_has_routes() -> None:
    assert all(not one.routes for one in plan(CHAIN, NODES, POOLS, []).values())


def test_the_way_with_fewest_routers_is_taken() -> None:
    """A ring of four routers, and what hangs at opposite ends of it."""
    ring = [link("a.1", "b.1"), link("b.2", "c.1"), link("c.2", "d.1"), link("d.2", "a.2"), link("c.3", "x.0")]
    found = plan(ring, ["a", "b", "c", "d", "x"], ["10.0.0.0/16"], ["a", "b", "c", "d"])
    assert found["a"].routes == [
        {"to": "10.0.1.0/24", "via": "10.0.0.2"},
        {"to": "10.0.2.0/24", "via": "10.0.3.4"},
        {"to": "10.0.4.0/24", "via": "10.0.0.2"},
    ]


def test_a_host_between_two_routers_has_a_route_for_each_network() -> None:
    links = [link("a.0", "h.0"), link("h.1", "b.0"), link("b.1", "x.0")]
    found = plan(links, ["a", "h", "b", "x"], ["10.0.0.0/16"], ["a", "b"])
    assert found["h"].routes == [{"to": "10.0.2.0/24", "via": "10.0.1.3"}]


def test_a_link_of_many_ends_is_one_network() -> None:
    found = plan([link("a.0", "b.0", "c.0")], ["a", "b", "c"], ["10.0.0.0/24"], [])
    assert [one.interfaces[0]["address"] for one in found.values()] == ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]


REFUSED = [
    (CHAIN, NODES, ["10.0.0.0/23"], [], "lab_networks[0]"),
    (CHAIN, NODES, ["10.0.0.0/28"], [], "lab_networks[0]"),
    (CHAIN, NODES, ["10.0.0.0/16", "fd00::1/48"], [], "lab_networks[1]"),
    (CHAIN, NODES, "10.0.0.0/16", [], "lab_networks"),
    (CHAIN, NODES, POOLS, ["r1", "r3"], "lab_routers[1]"),
    (CHAIN, NODES[:3], POOLS, [], "lab_links[2].ends[1].node"),
    ([{"name": "x"}], NODES, POOLS, [], "lab_links[0].ends"),
    (CHAIN, [f"n{number}" for number in range(255)], POOLS, [], "nodes"),
]


@pytest.mark.parametrize(("links", "nodes", "pools", "routers", "path"), REFUSED)
def test_what_cannot_be_computed_is_refused_with_its_path(
    links: Any, nodes: Any, pools: Any, routers: Any, path: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        plan(links, nodes, pools, routers)
    assert refusal.value.path == path


def test_a_link_asks_for_both_directions_and_an_end_for_what_leaves_there() -> None:
    both = link("r1.eth1", "r2.eth1", impairment={"delay": "20ms"})
    assert addresses.impairments([both], "r1") == [{"name": "eth1", "delay": "20ms"}]
    assert addresses.impairments([both], "r2") == [{"name": "eth1", "delay": "20ms"}]
    assert addresses.impairments([both], "h1") == []
    both["ends"][1]["impairment"] = {"loss": "1%"}
    assert addresses.impairments([both], "r1") == [{"name": "eth1", "delay": "20ms"}]
    assert addresses.impairments([both], "r2") == [{"name": "eth1", "loss": "1%"}]


def test_impairments_that_are_no_mapping_or_name_an_interface_are_refused() -> None:
    with pytest.raises(InvalidInput) as refusal:
        addresses.impairments([link("a.0", "b.0", impairment="20ms")], "a")
    assert refusal.value.path == "lab_links[0].impairment"
    ended = link("a.0", "b.0")
    ended["ends"][0]["impairment"] = {"name": "eth7"}
    with pytest.raises(InvalidInput) as refusal:
        addresses.impairments([ended], "a")
    assert refusal.value.path == "lab_links[0].ends[0].impairment"


def test_a_star_joins_each_leaf_to_the_center() -> None:
    found = plan(addresses.star("hub", ["a", "b"]), ["hub", "a", "b"], ["10.0.0.0/16"], ["hub"])
    assert found["hub"].interfaces == [{"name": "a", "address": "10.0.0.1/24"}, {"name": "b", "address": "10.0.1.1/24"}]
    assert found["b"] == addresses.Plan(
        [{"name": "eth0", "address": "10.0.1.3/24"}], [{"to": "default", "via": "10.0.1.1"}]
    )
