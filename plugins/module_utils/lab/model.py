# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The topology that an inventory describes, checked as a whole before anything is touched.

Input is what the inventory says: `lab_links` and, per node, its kind and `node_interfaces`. Output is a Topology of
immutable tuples. Every refusal is an InvalidInput with the path of the value.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidInput

MANAGEMENT = "mgmt0"
INTERFACE_LIMIT = 15  # IFNAMSIZ - 1
MANAGEMENT_NET = ipaddress.ip_network("169.254.0.0/16")
NODE_LIMIT = 254  # one /30 of the management net each, by its third byte
NODE_KEYS = ("name", "kind", "memory", "interfaces")
LINK_KEYS = ("name", "kind", "ends")
END_KEYS = ("node", "interface")
INTERFACE_KEYS = ("name", "address", "gateway", "mac")
MEMORY = (64, 4096)  # MiB
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]+")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
MAC_IN_NAME = re.compile(r"enx([0-9a-f]{12})")


class Interface(NamedTuple):
    """A data interface of a node. `address` with prefix length, or empty; `link` is the name of its link."""

    name: str
    mac: str
    link: str
    address: str
    gateway: str


class Node(NamedTuple):
    """`memory` in MiB; `number` counts from 1 and gives the management addresses."""

    name: str
    kind: str
    memory: int
    number: int
    interfaces: tuple[Interface, ...]


class End(NamedTuple):
    node: str
    interface: str


class Link(NamedTuple):
    name: str
    kind: str
    ends: tuple[End, End]


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


def management_addresses(number: int) -> tuple[str, str]:
    """Host's and node's IPv4 address, with prefix length, on the management link of the node with this number."""
    return f"169.254.{number}.1/30", f"169.254.{number}.2/30"


def _mapping(path: str, value: object, keys: Sequence[str], required: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(path, value, f"a mapping with {', '.join(required)} is expected")
    for key in value:
        if key not in keys:
            raise InvalidInput(f"{path}.{key}", value[key], f"unknown key; known are {', '.join(keys)}")
    for key in required:
        if value.get(key) is None:
            raise InvalidInput(f"{path}.{key}", None, "it must be given")
    return value


def _list(path: str, value: object) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(path, value, "a list is expected")
    return value


def _name(path: str, value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidInput(path, value, "allowed are letters, digits and inner hyphens, 63 at most")
    return value


def _interface_name(path: str, value: object) -> str:
    if not isinstance(value, str) or not INTERFACE_NAME.fullmatch(value) or value in (".", "..", "all", "default"):
        raise InvalidInput(path, value, "an interface name has letters, digits, `_`, `-` and `.` only")
    if len(value) > INTERFACE_LIMIT:
        raise InvalidInput(
            path, value, f"an interface name has {INTERFACE_LIMIT} characters at most, this has {len(value)}"
        )
    if value in (MANAGEMENT, "lo") or value.startswith("vec"):
        raise InvalidInput(path, value, f"{MANAGEMENT}, lo and vec… are taken by the lab itself")
    return value


def _choice(path: str, value: object, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InvalidInput(path, value, f"known are {', '.join(sorted(choices))}")
    return str(value)


def _address(path: str, value: object) -> str:
    try:
        if not isinstance(value, str) or "/" not in value:
            raise ValueError
        address = ipaddress.ip_interface(value)
    except ValueError:
        raise InvalidInput(path, value, "an address with its prefix length is expected, as 192.168.1.147/24") from None
    if address.version == 4 and address.network.overlaps(MANAGEMENT_NET):
        raise InvalidInput(path, value, f"{MANAGEMENT_NET} carries the lab's own management")
    return str(address)


def _gateway(path: str, value: object, address: str) -> str:
    try:
        gateway = ipaddress.ip_address(str(value))
    except ValueError:
        raise InvalidInput(path, value, "an address is expected") from None
    if not address or gateway not in ipaddress.ip_interface(address).network:
        raise InvalidInput(
            path, value, f"a gateway stands in the interface's own network, {address or 'and there is none'}"
        )
    return str(gateway)


def _mac(path: str, value: object) -> str:
    text = str(value).lower()
    if not MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise InvalidInput(path, value, "a unicast MAC address is expected, as 52:54:00:12:34:56")
    return text


def _links(raw: object, nodes: Sequence[str], kinds: Sequence[str], default: str) -> tuple[Link, ...]:
    links: list[Link] = []
    seen: dict[End, str] = {}
    for number, item in enumerate(_list("lab_links", raw)):
        path = f"lab_links[{number}]"
        values = _mapping(path, item, LINK_KEYS, ("name", "ends"))
        name = _name(f"{path}.name", values["name"])
        if name in [link.name for link in links]:
            raise InvalidInput(f"{path}.name", name, "another link has this name")
        kind = _choice(f"{path}.kind", values.get("kind") or default, kinds)
        raw_ends = _list(f"{path}.ends", values["ends"])
        if len(raw_ends) != 2:
            raise InvalidInput(f"{path}.ends", raw_ends, f"a link has two ends, this has {len(raw_ends)}")
        ends = []
        for place, raw_end in enumerate(raw_ends):
            ends.append(_end(f"{path}.ends[{place}]", raw_end, nodes, seen, name))
        links.append(Link(name, kind, (ends[0], ends[1])))
    return tuple(links)


def _end(path: str, raw: object, nodes: Sequence[str], seen: dict[End, str], link: str) -> End:
    values = _mapping(path, raw, END_KEYS, END_KEYS)
    if values["node"] not in nodes:
        raise InvalidInput(
            f"{path}.node", values["node"], f"no such node; nodes with lab_node_kind are {', '.join(nodes)}"
        )
    end = End(values["node"], _interface_name(f"{path}.interface", values["interface"]))
    if end in seen:
        raise InvalidInput(f"{path}.interface", end.interface, f"link {seen[end]} already uses it on {end.node}")
    seen[end] = link
    return end


def _configured(node: str, raw: object, taken: dict[str, str]) -> dict[str, Mapping[str, Any]]:
    """node_interfaces by name, its values checked; `taken` collects the addresses of the whole lab."""
    found: dict[str, Mapping[str, Any]] = {}
    for number, item in enumerate(_list(f"{node}.node_interfaces", raw)):
        path = f"{node}.node_interfaces[{number}]"
        values = dict(_mapping(path, item, INTERFACE_KEYS, ("name",)))
        name = _interface_name(f"{path}.name", values["name"])
        if name in found:
            raise InvalidInput(f"{path}.name", name, "this interface stands twice")
        values["address"] = _address(f"{path}.address", values["address"]) if values.get("address") else ""
        host = values["address"].partition("/")[0]
        if host and host in taken:
            raise InvalidInput(f"{path}.address", values["address"], f"{taken[host]} has this address")
        if host:
            taken[host] = f"{node}.{name}"
        values["gateway"] = (
            _gateway(f"{path}.gateway", values["gateway"], values["address"]) if values.get("gateway") else ""
        )
        values["mac"] = _mac(f"{path}.mac", values["mac"]) if values.get("mac") else ""
        found[name] = values
    return found


def _interfaces(
    lab: str, node: str, raw: object, links: Sequence[Link], taken: dict[str, str]
) -> tuple[Interface, ...]:
    configured = _configured(node, raw, taken)
    plugged = {end.interface: link.name for link in links for end in link.ends if end.node == node}
    for number, name in enumerate(configured):
        if name not in plugged:
            raise InvalidInput(
                f"{node}.node_interfaces[{number}].name", name, "no link of lab_links ends at this interface"
            )
    interfaces = []
    for name, link in plugged.items():
        values = configured.get(name, {})
        mac = values.get("mac") or mac_for(lab, node, name)
        interfaces.append(Interface(name, mac, link, values.get("address", ""), values.get("gateway", "")))
    return tuple(interfaces)


def _memory(path: str, value: object) -> int:
    low, high = MEMORY
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(path, value, f"memory is a whole number of MiB, {low} to {high}")
    return value


def parse(
    lab: object, nodes: object, links: object, node_kinds: Sequence[str], link_kinds: Sequence[str], link_default: str
) -> Topology:
    """Check a whole lab. Raises InvalidInput with the path of the first value that cannot be used."""
    lab_name = _name("lab_name", lab)
    names: list[str] = []
    raw_nodes = _list("nodes", nodes)
    for number, item in enumerate(raw_nodes):
        values = _mapping(f"nodes[{number}]", item, NODE_KEYS, ("name", "kind"))
        name = _name(f"nodes[{number}].name", values["name"])
        if name in names:
            raise InvalidInput(f"nodes[{number}].name", name, "another node has this name")
        _choice(f"{name}.lab_node_kind", values["kind"], node_kinds)
        names.append(name)
    if not names:
        raise InvalidInput("lab_node_kind", None, "no host of the inventory sets it, so the lab has no nodes")
    if len(names) > NODE_LIMIT:
        raise InvalidInput("nodes", len(names), f"a lab has {NODE_LIMIT} nodes at most")
    parsed_links = _links(links, names, link_kinds, link_default)
    taken: dict[str, str] = {}
    parsed = []
    for number, values in enumerate(raw_nodes, start=1):
        name = values["name"]
        memory = _memory(f"{name}.lab_node_memory", values.get("memory") or 256)
        interfaces = _interfaces(lab_name, name, values.get("interfaces") or [], parsed_links, taken)
        parsed.append(Node(name, values["kind"], memory, number, interfaces))
    _unique_macs(parsed)
    return Topology(lab_name, tuple(parsed), parsed_links)


def _unique_macs(nodes: Sequence[Node]) -> None:
    seen: dict[str, str] = {}
    for node in nodes:
        for interface in node.interfaces:
            if interface.mac in seen:
                raise InvalidInput(
                    f"{node.name}.{interface.name}", interface.mac, f"{seen[interface.mac]} has this MAC address"
                )
            seen[interface.mac] = f"{node.name}.{interface.name}"
