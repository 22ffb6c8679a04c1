# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and routes that nobody wants to write down: one network a link, the same number for a node everywhere.

The Nth link (from 0) has the Nth network of each pool, the Nth node (from 1) the Nth address in each of its networks.
So a node is known by the end of its address: h2, the fourth of the chain h1 — r1 — r2 — h2, is 10.0.2.4.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..errors import InvalidInput
from .model import NODE_LIMIT, End

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
LENGTHS = {4: 24, 6: 64}  # prefix length of a link's network, by IP version


class Plan(NamedTuple):
    """`node_interfaces` and `node_routes` of a node, as the inventory has them."""

    interfaces: list[dict[str, Any]]
    routes: list[dict[str, str]]


def networks(pools: object, count: int) -> list[list[Network]]:
    """For each of `count` links its network of each pool. Raises InvalidInput where a pool is too small."""
    if not isinstance(pools, (list, tuple)):
        raise InvalidInput("lab_networks", pools, "a list of networks is expected, as [10.0.0.0/16, fd00:10::/48]")
    columns = []
    for number, raw in enumerate(pools):
        path = f"lab_networks[{number}]"
        try:
            pool = ipaddress.ip_network(raw)
        except ValueError:
            raise InvalidInput(path, raw, "a network is expected, as 10.0.0.0/16") from None
        length = LENGTHS[pool.version]
        room = 1 << length - pool.prefixlen if pool.prefixlen <= length else 0
        if room < count:
            raise InvalidInput(path, raw, f"{count} links need {count} networks of /{length}, and it has {room}")
        size = 1 << pool.max_prefixlen - length
        first = int(pool.network_address)
        address = type(pool.network_address)
        columns.append([ipaddress.ip_network((address(first + place * size), length)) for place in range(count)])
    return [list(row) for row in zip(*columns)] if columns else [[] for _number in range(count)]


def ends_of(links: Sequence[Any]) -> list[list[End]]:
    """The ends of each link, whose shape is looked at here as far as this needs it; model.py looks at the rest."""
    found = []
    for number, link in enumerate(links):
        path = f"lab_links[{number}].ends"
        try:
            found.append([End(str(end["node"]), str(end["interface"])) for end in link["ends"]])
        except (KeyError, TypeError):
            raise InvalidInput(path, link, "ends of node and interface are expected") from None
    return found


def plan(node: str, links: Sequence[Any], nodes: Sequence[str], pools: object, routers: Sequence[str]) -> Plan:
    """What a node gets. `nodes` in the order of the inventory; `routers` those of them that forward packets."""
    if len(nodes) > NODE_LIMIT:
        raise InvalidInput("nodes", len(nodes), f"a lab has {NODE_LIMIT} nodes at most")
    for number, name in enumerate(routers):
        if name not in nodes:
            raise InvalidInput(f"lab_routers[{number}]", name, f"no such node; nodes are {', '.join(nodes)}")
    numbers = {name: number for number, name in enumerate(nodes, start=1)}
    ends = ends_of(links)
    for number, of_link in enumerate(ends):
        for place, end in enumerate(of_link):
            if end.node not in numbers:
                path = f"lab_links[{number}].ends[{place}].node"
                raise InvalidInput(path, end.node, f"no such node; nodes are {', '.join(nodes)}")
    nets = networks(pools, len(ends))
    interfaces = []
    for of_link, of_nets in zip(ends, nets):
        own = [f"{net[numbers[node]]}/{net.prefixlen}" for net in of_nets] if node in numbers else []
        interfaces += [{"name": end.interface, **_addresses(own)} for end in of_link if end.node == node]
    return Plan(interfaces, _routes(node, ends, nets, numbers, frozenset(routers)))


def _addresses(own: Sequence[str]) -> dict[str, Any]:
    if not own:
        return {}
    return {"address": own[0], "addresses": list(own[1:])} if len(own) > 1 else {"address": own[0]}


def _routes(
    name: str,
    ends: Sequence[Sequence[End]],
    nets: Sequence[Sequence[Network]],
    numbers: Mapping[str, int],
    routers: frozenset[str],
) -> list[dict[str, str]]:
    """The shortest ways: over as few routers as there can be, among equals over the link that stands first.

    A host with one router beside it has a default route; every other node a route for each network.
    """
    members = [[end.node for end in of_link] for of_link in ends]
    own = [place for place, of_link in enumerate(members) if name in of_link]
    # Links by the hop towards them: link and neighbour.
    beside = [(place, node) for place in own for node in members[place] if node in routers and node != name]
    found: dict[int, tuple[int, str]] = {}
    queue = deque((node, (place, node)) for place, node in beside)
    seen = {name, *(node for _place, node in beside)}
    while queue:
        router, hop = queue.popleft()
        for place, of_link in enumerate(members):
            if router not in of_link:
                continue
            if place not in own:
                found.setdefault(place, hop)
            for node in of_link:
                if node in routers and node not in seen:
                    seen.add(node)
                    queue.append((node, hop))
    if name not in routers and len(set(beside)) == 1:
        ((link, gateway),) = beside
        return [{"to": "default", "via": str(net[numbers[gateway]])} for net in nets[link]]
    return [
        {"to": str(net), "via": str(via[numbers[gateway]])}
        for place, (link, gateway) in sorted(found.items())
        for net, via in zip(nets[place], nets[link])
    ]


def star(center: str, leaves: Sequence[str]) -> list[dict[str, Any]]:
    """`lab_links` of a star: eth0 of each leaf ends at an interface of the center that is called like the leaf."""
    return [
        {"name": leaf, "ends": [{"node": center, "interface": leaf}, {"node": leaf, "interface": "eth0"}]}
        for leaf in leaves
    ]


def impairments(links: Sequence[Any], node: str) -> list[dict[str, Any]]:
    """`impairment_interfaces` of a node: what its ends of links say, or the links themselves for both directions."""
    found = []
    for number, link in enumerate(links):
        for place, end in enumerate(link.get("ends") or ()):
            asked = end.get("impairment", link.get("impairment"))
            if end.get("node") != node or not asked:
                continue
            if not isinstance(asked, Mapping) or "name" in asked:
                where = f".ends[{place}]" if "impairment" in end else ""
                path = f"lab_links[{number}]{where}.impairment"
                raise InvalidInput(path, asked, "what impairment_interfaces says of an interface, without its name")
            found.append({"name": end["interface"], **asked})
    return found
