# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links of kind `bridge`: User-Mode Linux nodes whose TAPs are ports of a bridge in a node on the host's kernel.

The first end names the bridge, which has that node's address. A TAP is found by name in the network namespace of the
process that opens it (drivers/net/tun.c), at every `ip link set … up` of the guest: so the guests' kernels run in the
namespace of the node that has the bridge, as they would run on a host that has it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidInput
from . import values as check

if TYPE_CHECKING:  # it uses what is here
    from .model import End, Link, Node

KIND = "bridge"
GUEST = "uml"  # the kind of node whose program opens its TAPs itself, and has its management by a descriptor


class Options(NamedTuple):
    """How the bridge is set. `neighbours`: a fixed neighbour entry and a host route for each guest's addresses."""

    multicast_snooping: bool = True
    promiscuous: bool = False
    neighbours: bool = False


def check_kinds(path: str, kinds: Sequence[str], live: Collection[str]) -> None:
    """Refuse a link whose first end has no bridge to offer, or whose others cannot be ports; `path` is the link's."""
    if kinds[0] not in live:
        raise InvalidInput(f"{path}.ends[0].node", kinds[0], f"the bridge is in a node of kind {' or '.join(live)}")
    for place, kind in enumerate(kinds[1:], start=1):
        if kind != GUEST:
            raise InvalidInput(f"{path}.ends[{place}].node", kind, f"ports of a bridge are nodes of kind {GUEST}")


def options(path: str, raw: object, kind: str) -> Options:
    """The link's `bridge`, checked; `path` is its own."""
    if raw is None:
        return Options()
    if kind != KIND:
        raise InvalidInput(path, raw, f"only a link of kind {KIND} has these, this one is of kind {kind}")
    found = check.mapping(path, raw, Options._fields, ())
    for key, value in found.items():
        if not isinstance(value, bool):
            raise InvalidInput(f"{path}.{key}", value, "true or false is expected")
    return Options(**found)


def check_places(links: Sequence[Link]) -> None:
    """Refuse a guest that would have to be in two network namespaces: that of its bridge, and another for its TAPs."""
    hosts = {end.node: link.ends[0].node for link in links if link.kind == KIND for end in link.ends[1:]}
    for number, link in enumerate(links):
        for place, end in enumerate(link.ends):
            at_home = link.kind == "socket" or (
                link.kind == KIND and (not place or link.ends[0].node == hosts[end.node])
            )
            if end.node in hosts and not at_home:
                raise InvalidInput(
                    f"lab_links[{number}].ends[{place}].node",
                    end.node,
                    f"it runs beside the bridge in {hosts[end.node]}; other links of it are of kind socket",
                )


def host_of(links: Sequence[Link], node: str) -> str:
    """The node in whose network namespace this one's program runs; empty for the lab's own."""
    found = [link.ends[0].node for link in links if link.kind == KIND and node in [end.node for end in link.ends[1:]]]
    return found[0] if found else ""


def batch(links: Sequence[Link], nodes: Mapping[str, Node], host: str) -> list[str]:
    """What `ip -batch` does to the bridges of a node once it has its addresses; it may be done again."""
    lines = []
    for link in links:
        if link.kind == KIND and link.ends[0].node == host:
            device, asked = link.ends[0].interface, Options(*link.bridge)
            lines.append(f"link set dev {device} type bridge mcast_snooping {int(asked.multicast_snooping)}")
            lines.append(f"link set dev {device} promisc {'on' if asked.promiscuous else 'off'}")
            if asked.neighbours:
                lines += [line for end in link.ends[1:] for line in _known(nodes[end.node], end, device)]
    return lines


def _known(guest: Node, end: End, device: str) -> list[str]:
    lines = []
    for interface in guest.interfaces:
        for address in interface.addresses if interface.name == end.interface else ():
            own = ipaddress.ip_interface(address)
            lines.append(f"neighbour replace {own.ip} lladdr {interface.mac} dev {device} nud permanent")
            lines.append(f"route replace {own.ip}/{own.max_prefixlen} dev {device}")
    return lines
