# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as the inventory describes it: nodes, their addresses, and what is at the other end of an interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

VARIABLES = (
    "node_interfaces",
    "bridge_name",
    "bridge_ports",
    "bridge_address",
    "impairment_interfaces",
    "impairment_management",
    "lab_links",
)


class End(NamedTuple):
    """One end of a link."""

    node: str
    interface: str


class Place(NamedTuple):
    """A node that can send or receive, and how."""

    node: str
    address: str  # IPv4
    interface: str  # where its packets pass: the interface on the link


class Lab(NamedTuple):
    """Every node's variables, and the links between them."""

    nodes: Mapping[str, Mapping[str, Any]]
    links: tuple[tuple[End, End], ...]

    def far_end(self, node: str, interface: str) -> End | None:
        """The other end of the link that this interface is on."""
        here = End(node, interface)
        for first, second in self.links:
            if here in (first, second):
                return second if here == first else first
        return None

    def ports(self, node: str) -> list[str]:
        """The ports of the node's bridge."""
        return [str(port) for port in self.nodes[node].get("bridge_ports") or ()]

    def address(self, node: str, interface: str) -> str:
        """The IPv4 address that is reached over an interface: its own, or its bridge's. Empty where there is none."""
        variables = self.nodes.get(node, {})
        if interface in self.ports(node):
            return _ipv4(variables.get("bridge_address"))
        for one in variables.get("node_interfaces") or ():
            if one.get("name") == interface:
                return _ipv4(one.get("address"))
        return ""

    def place(self, end: End | None) -> Place | None:
        """The far node as sender or receiver; None where it is not among the nodes or has no IPv4 address."""
        if end is None or end.node not in self.nodes:
            return None
        address = self.address(end.node, end.interface)
        return Place(end.node, address, end.interface) if address else None

    def behind(self, node: str, interface: str) -> list[tuple[str, Place]]:
        """(port, far node) for the bridge's other ports."""
        ports = self.ports(node)
        if interface not in ports:
            return []
        found = [(port, self.place(self.far_end(node, port))) for port in ports if port != interface]
        return [(port, place) for port, place in found if place]


def _ipv4(value: object) -> str:
    address = str(value or "").partition("/")[0]
    return address if address.count(".") == 3 else ""


def parse_lab(variables: Mapping[str, Mapping[str, Any]]) -> Lab:
    """Make a Lab from {host: {variable: value}}; links are taken from every host that states them."""
    links: list[tuple[End, End]] = []
    for node in variables.values():
        for link in node.get("lab_links") or ():
            ends: Sequence[Mapping[str, Any]] = link.get("ends") or ()
            if len(ends) != 2:
                continue
            first, second = (End(str(end["node"]), str(end["interface"])) for end in ends)
            pair = (first, second)
            if pair not in links:
                links.append(pair)
    return Lab({name: dict(node) for name, node in variables.items()}, tuple(links))
