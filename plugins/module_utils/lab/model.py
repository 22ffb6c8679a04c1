# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The topology that an inventory describes, checked as a whole before anything is touched.

Input is what the inventory says: `lab_links` and, per node, its kind, `node_interfaces` and `node_routes`. Output is a
Topology of immutable tuples. Every refusal is an InvalidInput with the path of the value.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import units
from ..errors import InvalidInput
from . import bridged
from . import values as check

MANAGEMENT = check.MANAGEMENT
BUILT = "built"  # the kernel that roles/lab_kernel leaves in the cache
NODE_LIMIT = 254  # one /30 of the management net each, by its third byte
NODE_KEYS = ("name", "kind", "kernel", "cpus", "memory", "interfaces", "router", "routes", "card")
LINK_KEYS = ("name", "kind", "ends", "mtu", "impairment", "bridge")
END_KEYS = ("node", "interface", "impairment", "port")
IGB = "igb"  # a network card with SR-IOV, of nodes of kind qemu
REAL, CABLE = "real", "cable"  # a node that is a machine of its own; a link of which no end is ours
INTERFACE_KEYS = ("name", "address", "addresses", "gateway", "mac", "device")
ROUTE_KEYS = ("to", "via")
MAC_IN_NAME = re.compile(r"enx([0-9a-f]{12})")

# Path, what was asked or None, the kinds of the nodes at its ends → the link's kind; raises InvalidInput.
LinkKind = Callable[[str, object, Sequence[str]], str]


class Interface(NamedTuple):
    """A data interface of a node. Addresses have prefix lengths; `address` may be empty, `more` are further ones;
    `link` is the name of its link; `mtu` in bytes, 0 for what the kernel takes. `device` is IGB, or what the kind has.
    """

    name: str
    mac: str
    link: str
    address: str
    gateway: str
    more: tuple[str, ...] = ()
    mtu: int = 0
    device: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.more) if self.address else self.more


class Route(NamedTuple):
    """`to` is a network, or `default`."""

    to: str
    via: str


class Node(NamedTuple):
    """`memory` in MiB; `number` counts from 1 and gives the management addresses; a `router` forwards packets."""

    name: str
    kind: str
    memory: int
    number: int
    interfaces: tuple[Interface, ...]
    router: bool = False
    routes: tuple[Route, ...] = ()
    kernel: str = ""  # of a node of kind uml: BUILT, or its path; else Debian's
    cpus: int = 1  # more of a node of kind qemu only
    card: str = ""  # of a node of kind board: the path of its card; else one made for it

    @property
    def all_routes(self) -> tuple[Route, ...]:
        """Also those that the gateways of interfaces mean."""
        return (*(Route("default", one.gateway) for one in self.interfaces if one.gateway), *self.routes)


class End(NamedTuple):
    """`port`: the interface of this machine that a cable joins to that of a real node; else empty."""

    node: str
    interface: str
    port: str = ""


class Link(NamedTuple):
    """`mtu` in bytes, 0 for what the kernel takes; `bridge` are the values of bridged.Options, of that kind only."""

    name: str
    kind: str
    ends: tuple[End, ...]
    mtu: int = 0
    bridge: tuple[bool, ...] = ()


class Topology(NamedTuple):
    lab: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]


def mac_for(lab: str, node: str, interface: str) -> str:
    """The same address at every boot: as the name says (enx8cae4cf5b7ae), else a local one hashed from who it is."""
    named = MAC_IN_NAME.fullmatch(interface)
    if named:
        return ":".join(re.findall("..", named.group(1)))
    digest = hashlib.sha256(f"{lab}/{node}/{interface}".encode()).hexdigest()
    return "52:54:" + ":".join(re.findall("..", digest[:8]))


def mac_of(node: Node, interface: str) -> str:
    """The address of one of the node's interfaces."""
    return next(one.mac for one in node.interfaces if one.name == interface)


def management_addresses(number: int) -> tuple[str, str]:
    """Host's and node's IPv4 address, with prefix length, on the management link of the node with this number."""
    return f"169.254.{number}.1/30", f"169.254.{number}.2/30"


def _links(raw: object, kinds: Mapping[str, str], choose: LinkKind) -> tuple[Link, ...]:
    """`kinds` of the nodes, by name."""
    links: list[Link] = []
    seen: dict[End, str] = {}
    for number, item in enumerate(check.sequence("lab_links", raw)):
        path = f"lab_links[{number}]"
        values = check.mapping(path, item, LINK_KEYS, ("name", "ends"))
        name = check.name(f"{path}.name", values["name"])
        if name in [link.name for link in links]:
            raise InvalidInput(f"{path}.name", name, "another link has this name")
        raw_ends = check.sequence(f"{path}.ends", values["ends"])
        if len(raw_ends) < 2:
            raise InvalidInput(f"{path}.ends", raw_ends, f"a link has two ends or more, this has {len(raw_ends)}")
        ends = [_end(f"{path}.ends[{place}]", end, tuple(kinds), seen, name) for place, end in enumerate(raw_ends)]
        of_ends = [kinds[end.node] for end in ends]
        virtual = set(of_ends) != {REAL}
        kind = choose(path, values.get("kind"), of_ends) if virtual else CABLE
        for place, end in enumerate(ends):
            _check_port(f"{path}.ends[{place}].port", end, virtual and kinds[end.node] == REAL, links)
        mtu = values.get("mtu") or 0
        if mtu:
            mtu = check.whole(f"{path}.mtu", mtu, check.MTU, "an MTU is a whole number of bytes")
        asked = bridged.options(f"{path}.bridge", values.get("bridge"), kind)
        links.append(Link(name, kind, tuple(ends), mtu, tuple(asked) if kind == bridged.KIND else ()))
    bridged.check_places(links)
    return tuple(links)


def _end(path: str, raw: object, nodes: Sequence[str], seen: dict[End, str], link: str) -> End:
    values = check.mapping(path, raw, END_KEYS, ("node", "interface"))
    if values["node"] not in nodes:
        raise InvalidInput(
            f"{path}.node", values["node"], f"no such node; nodes with lab_node_kind are {', '.join(nodes)}"
        )
    end = End(values["node"], check.interface_name(f"{path}.interface", values["interface"]))
    if end in seen:
        raise InvalidInput(f"{path}.interface", end.interface, f"link {seen[end]} already uses it on {end.node}")
    seen[end] = link
    port = values.get("port")
    return end._replace(port=check.interface_name(f"{path}.port", port)) if port else end


def _check_port(path: str, end: End, wanted: bool, links: Sequence[Link]) -> None:
    if wanted and not end.port:
        raise InvalidInput(path, None, f"name the interface of this machine that a cable joins to {end.node}")
    if end.port and not wanted:
        raise InvalidInput(
            path, end.port, f"only an end at a node of kind {REAL}, beside virtual ones, has a port here"
        )
    for link in links:
        if end.port and end.port in [other.port for other in link.ends]:
            raise InvalidInput(path, end.port, f"link {link.name} already uses this port")


def _configured(node: str, raw: object, taken: dict[str, str]) -> dict[str, Mapping[str, Any]]:
    """node_interfaces by name, its values checked; `taken` collects the addresses of the whole lab."""
    found: dict[str, Mapping[str, Any]] = {}
    for number, item in enumerate(check.sequence(f"{node}.node_interfaces", raw)):
        path = f"{node}.node_interfaces[{number}]"
        values = dict(check.mapping(path, item, INTERFACE_KEYS, ("name",)))
        name = check.interface_name(f"{path}.name", values["name"])
        if name in found:
            raise InvalidInput(f"{path}.name", name, "this interface stands twice")
        values["address"] = (
            _own(f"{path}.address", values["address"], f"{node}.{name}", taken) if values.get("address") else ""
        )
        more = check.sequence(f"{path}.addresses", values.get("addresses") or [])
        values["more"] = tuple(
            _own(f"{path}.addresses[{place}]", one, f"{node}.{name}", taken) for place, one in enumerate(more)
        )
        own = [one for one in (values["address"], *values["more"]) if one]
        values["gateway"] = check.gateway(f"{path}.gateway", values["gateway"], own) if values.get("gateway") else ""
        if values.get("device"):
            values["device"] = check.choice(f"{path}.device", values["device"], (IGB,))
        values["mac"] = check.mac(f"{path}.mac", values["mac"]) if values.get("mac") else ""
        found[name] = values
    return found


def _own(path: str, raw: object, owner: str, taken: dict[str, str]) -> str:
    """An address that nobody else in the lab has."""
    address = check.address(path, raw)
    host = address.partition("/")[0]
    if host in taken:
        raise InvalidInput(path, address, f"{taken[host]} has this address")
    taken[host] = owner
    return address


def _interfaces(
    lab: str, node: str, raw: object, links: Sequence[Link], taken: dict[str, str]
) -> tuple[Interface, ...]:
    configured = _configured(node, raw, taken)
    plugged = {end.interface: link for link in links for end in link.ends if end.node == node}
    for number, name in enumerate(configured):
        if name not in plugged:
            raise InvalidInput(
                f"{node}.node_interfaces[{number}].name", name, "no link of lab_links ends at this interface"
            )
    interfaces = []
    for name, link in plugged.items():
        values = configured.get(name, {})
        mac = values.get("mac") or mac_for(lab, node, name)
        made = Interface(
            *(name, mac, link.name, values.get("address", ""), values.get("gateway", ""), values.get("more", ())),
            *(link.mtu, values.get("device") or ""),
        )
        if 0 < link.mtu < check.IPV6_MTU and any(":" in one for one in made.addresses):
            place = [other.name for other in links].index(link.name)
            raise InvalidInput(f"lab_links[{place}].mtu", link.mtu, f"{node} has IPv6 here, {check.IPV6_MTU} at least")
        interfaces.append(made)
    return tuple(interfaces)


def _check_devices(node: str, kind: str, interfaces: Sequence[Interface]) -> None:
    for one in interfaces:
        if one.device and kind != "qemu":
            path = f"{node}.node_interfaces.{one.name}.device"
            raise InvalidInput(path, one.device, "only nodes of kind qemu have such a card")


def _routes(node: str, raw: object, interfaces: Sequence[Interface]) -> tuple[Route, ...]:
    own = [address for interface in interfaces for address in interface.addresses]
    routes: list[Route] = []
    for number, item in enumerate(check.sequence(f"{node}.node_routes", raw)):
        path = f"{node}.node_routes[{number}]"
        values = check.mapping(path, item, ROUTE_KEYS, ROUTE_KEYS)
        route = Route(check.destination(f"{path}.to", values["to"]), check.gateway(f"{path}.via", values["via"], own))
        version = ipaddress.ip_address(route.via).version
        if route.to != "default" and ipaddress.ip_network(route.to).version != version:
            raise InvalidInput(f"{path}.via", route.via, f"the gateway to {route.to} is of the other IP version")
        if (route.to, version) in [(other.to, ipaddress.ip_address(other.via).version) for other in routes]:
            raise InvalidInput(f"{path}.to", route.to, "another route leads there")
        routes.append(route)
    return tuple(routes)


def _kinds(raw_nodes: Sequence[Any], known: Sequence[str]) -> dict[str, str]:
    """Kinds of the nodes by name, in order."""
    kinds: dict[str, str] = {}
    for number, item in enumerate(raw_nodes):
        values = check.mapping(f"nodes[{number}]", item, NODE_KEYS, ("name", "kind"))
        name = check.name(f"nodes[{number}].name", values["name"])
        if name in kinds:
            raise InvalidInput(f"nodes[{number}].name", name, "another node has this name")
        kinds[name] = check.choice(f"{name}.lab_node_kind", values["kind"], known)
    if not kinds:
        raise InvalidInput("lab_node_kind", None, "no host of the inventory sets it, so the lab has no nodes")
    if len(kinds) > NODE_LIMIT:
        raise InvalidInput("nodes", len(kinds), f"a lab has {NODE_LIMIT} nodes at most")
    return kinds


def parse(lab: object, nodes: object, links: object, node_kinds: Sequence[str], link_kind: LinkKind) -> Topology:
    """Check a whole lab. Raises InvalidInput with the path of the first value that cannot be used."""
    lab_name = check.name("lab_name", lab)
    raw_nodes = check.sequence("nodes", nodes)
    kinds = _kinds(raw_nodes, node_kinds)
    parsed_links = _links(links, kinds, link_kind)
    taken: dict[str, str] = {}
    parsed = []
    for number, values in enumerate(raw_nodes, start=1):
        name = values["name"]
        memory = check.whole(
            f"{name}.lab_node_memory", values.get("memory") or 256, check.MEMORY, "memory is a whole number of MiB"
        )
        interfaces = _interfaces(lab_name, name, values.get("interfaces") or [], parsed_links, taken)
        _check_devices(name, kinds[name], interfaces)
        routes = _routes(name, values.get("routes") or [], interfaces)
        kernel = _kernel(f"{name}.lab_node_kernel", values.get("kernel") or "", kinds[name])
        cpus = _cpus(f"{name}.lab_node_cpus", values.get("cpus") or 1, kinds[name])
        card = _card(f"{name}.lab_board_card", values.get("card") or "", kinds[name])
        router = bool(values.get("router"))
        parsed.append(Node(name, kinds[name], memory, number, interfaces, router, routes, kernel, cpus, card))
    _unique_macs(parsed)
    return Topology(lab_name, tuple(parsed), parsed_links)


def _kernel(path: str, value: object, kind: str) -> str:
    if not value:
        return ""
    if kind != "uml":
        raise InvalidInput(path, value, "only nodes of kind uml run another kernel than their kind's")
    if value != BUILT and not str(value).startswith("/"):
        raise InvalidInput(path, value, f"write {BUILT}, for the one of `make kernel`, or the path of a UML kernel")
    return str(value)


def _cpus(path: str, value: object, kind: str) -> int:
    try:
        found = units.parse_integer(value, 1, 64)
    except ValueError as error:
        raise InvalidInput(path, value, str(error)) from None
    if found > 1 and kind != "qemu":
        raise InvalidInput(path, value, "only nodes of kind qemu have more than one processor of their own")
    return found


def _card(path: str, value: object, kind: str) -> str:
    if value and kind != "board":
        raise InvalidInput(path, value, "only nodes of kind board have a card")
    return str(value)


def virtual(topology: Topology) -> Topology:
    """That part of it which is made on this machine."""
    nodes = tuple(node for node in topology.nodes if node.kind != REAL)
    return topology._replace(nodes=nodes, links=tuple(link for link in topology.links if link.kind != CABLE))


def _unique_macs(nodes: Sequence[Node]) -> None:
    seen: dict[str, str] = {}
    for node in nodes:
        for interface in node.interfaces:
            if interface.mac in seen:
                raise InvalidInput(
                    f"{node.name}.{interface.name}", interface.mac, f"{seen[interface.mac]} has this MAC address"
                )
            seen[interface.mac] = f"{node.name}.{interface.name}"
