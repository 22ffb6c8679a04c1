# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A topology of munet (munet.yaml) as an inventory: nodes, networks, addresses, constraints of links.

What it says about programs, images and files of nodes has no counterpart here; it is listed, so that nobody misses
it. Meanings are munet's own (munet/native.py, munet/base.py of 0.17): networks and nodes number addresses by
themselves, delays are microseconds, losses per cent, rates bits per second, and constraints hold for what leaves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput

TOPOLOGY = {"networks", "nodes", "networks-autonumber", "ipv6-enable"}
CONSTRAINTS = {"delay", "jitter", "jitter-correlation", "loss", "loss-correlation", "rate"}
NETWORK = {"name", "ip", "ipv6", "mtu", "connections", *CONSTRAINTS}
NODE = {"name", "id", "kind", "connections", "qemu"}
CONNECTION = {"to", "name", "remote-name", "ip", "ipv6", *CONSTRAINTS}
NUMBERED = {
    "ip": ipaddress.ip_network("10.0.0.0/24"),
    "ipv6": ipaddress.ip_network("fc00::/64"),
}  # of the first network
VERSIONS = ("ip", "ipv6")
# The way into nodes of any kind, as inventories/chain has it.
WAY = {
    "ansible_connection": "{{ 'impair.testbed.netns' if lab_node_kind == 'netns' else 'ansible.builtin.ssh' }}",
    "ansible_user": "root",
    "ansible_python_interpreter": "/usr/bin/python3",
    "ansible_ssh_args": "-F {{ lab_run_dir }}/ssh_config -o ControlMaster=auto -o ControlPersist=120s",
    "ansible_control_path_dir": "{{ lab_run_dir }}/cp",
    "ansible_pipelining": True,
}


class Import:
    """One import; `left` are the places of munet.yaml that an inventory cannot say."""

    def __init__(self, raw: object) -> None:
        topology = raw.get("topology") if isinstance(raw, Mapping) else None
        if not isinstance(raw, Mapping) or not isinstance(topology, Mapping) or not topology.get("nodes"):
            raise InvalidInput("topology.nodes", None, "a topology of munet with nodes is expected")
        self.topology = topology
        self.left = [f"topology.{key}" for key in topology if key not in TOPOLOGY]
        kinds = {kind.get("name"): kind for kind in raw.get("kinds") or ()}
        self.networks = {str(net["name"]): net for net in topology.get("networks") or ()}
        self.nodes = {str(node["name"]): {**kinds.get(node.get("kind"), {}), **node} for node in topology["nodes"]}
        self.numbers = {name: int(node.get("id", place)) for place, (name, node) in enumerate(self.nodes.items(), 1)}
        self.connections = {name: _connections(node.get("connections") or ()) for name, node in self.nodes.items()}
        self.links: dict[str, dict[str, Any]] = {}
        self.interfaces: dict[str, list[dict[str, Any]]] = {name: [] for name in self.nodes}
        self.done: set[tuple[str, str]] = set()  # ends of direct links that their other ends have made

    def inventory(self) -> dict[str, Any]:
        for name, net in self.networks.items():
            self.left += [f"networks.{name}.{key}" for key in net if key not in NETWORK]
            self.links[name] = {"name": name, "ends": [], **({"mtu": net["mtu"]} if "mtu" in net else {})}
        for name, node in self.nodes.items():
            self.left += [f"nodes.{name}.{key}" for key in node if key not in NODE]
            for connection in self.connections[name]:
                place = f"nodes.{name}.connections.{connection['name']}"
                self.left += [f"{place}.{key}" for key in connection if key not in CONNECTION]
                self._connect(place, name, connection)
        for name in [name for name, link in self.links.items() if len(link["ends"]) < 2]:
            self.left.append(f"networks.{name}: it joins fewer than two nodes")
            for end in self.links.pop(name)["ends"]:
                kept = [one for one in self.interfaces[end["node"]] if one["name"] != end["interface"]]
                self.interfaces[end["node"]] = kept
        return {"testbed": {"hosts": {name: self._host(name) for name in self.nodes}, "vars": self._variables()}}

    def _connect(self, place: str, node: str, connection: Mapping[str, Any]) -> None:
        to = connection.get("to")
        if to in self.networks:
            # What a network says about this connection, else about all of them, and what the connection says itself.
            said = next((one for one in self.networks[to].get("connections") or () if one.get("to") == node), None)
            asked = impairment({**(said or self.networks[to]), **connection})
            end = {"node": node, "interface": connection["name"], **({"impairment": asked} if asked else {})}
            self.links[to]["ends"].append(end)
            self._address(node, connection, [self._numbered(to, version, node) for version in VERSIONS])
        elif to in self.nodes:
            if (node, connection["name"]) not in self.done:
                self._pair(place, node, connection)
        else:
            self.left.append(f"{place}: to {to!r}, which is no network and no node")

    def _pair(self, place: str, node: str, connection: Mapping[str, Any]) -> None:
        """A link from node to node, which the other one may name as well."""
        other = connection["to"]
        wanted = connection.get("remote-name")
        back = next(
            (
                one
                for one in self.connections[other]
                if one.get("to") == node and (other, one["name"]) not in self.done and wanted in (None, one["name"])
            ),
            None,
        )
        if back is None:
            taken = {one["name"] for one in (*self.connections[other], *self.interfaces[other])}
            back = {"name": wanted or next(name for n in range(999) if (name := f"eth{n}") not in taken)}
        ends = []
        for name, one in ((node, connection), (other, back)):
            asked = impairment(one)
            ends.append({"node": name, "interface": one["name"], **({"impairment": asked} if asked else {})})
            self._address(name, one, [])
            self.done.add((name, one["name"]))
        number = len(self.links)
        self.links[f"link-{number}"] = {"name": f"{node}-{other}-{number}", "ends": ends}
        if self.topology.get("networks-autonumber") and not connection.get("ip") and not back.get("ip"):
            self.left.append(f"{place}: an address that munet would choose for a link between two nodes")

    def _numbered(self, network: str, version: str, node: str) -> str:
        """The address that munet gives a node on a network; empty where it gives none."""
        if not self.topology.get("networks-autonumber") or (version == "ipv6" and not self.topology.get("ipv6-enable")):
            return ""
        given = self.networks[network].get(version) or "auto"
        net = NUMBERED[version] if given == "auto" else ipaddress.ip_interface(str(given)).network
        place = list(self.networks).index(network) if given == "auto" else 0
        return f"{net.network_address + place * net.num_addresses + self.numbers[node]}/{net.prefixlen}"

    def _address(self, node: str, connection: Mapping[str, Any], numbered: Sequence[str]) -> None:
        own = [str(connection[version]) for version in VERSIONS if connection.get(version)]
        own += [one for version, one in zip(VERSIONS, numbered) if one and version not in connection]
        own.sort(key=lambda one: ":" in one)
        entry: dict[str, Any] = {"name": connection["name"]}
        if own:
            entry |= {"address": own[0], **({"addresses": own[1:]} if own[1:] else {})}
        self.interfaces[node].append(entry)

    def _host(self, name: str) -> dict[str, Any]:
        kind = {"lab_node_kind": "qemu"} if self.nodes[name].get("qemu") else {}
        if kind:
            self.left.append(f"nodes.{name}.qemu: the machine has the lab's own kernel and disk")
        return {**kind, "node_interfaces": self.interfaces[name]}

    def _variables(self) -> dict[str, Any]:
        return {
            "lab_node_kind": "netns",
            "lab_routers": list(self.nodes),  # every node of munet forwards packets
            "lab_links": list(self.links.values()),
            "impairment_interfaces": "{{ lab_links | impair.testbed.link_impairments(inventory_hostname) }}",
            **WAY,
        }


def _connections(raw: Sequence[Any]) -> list[dict[str, Any]]:
    """As mappings, each with a name: `net0` and `net0:eth7` are short forms."""
    found: list[dict[str, Any]] = []
    for one in raw:
        if isinstance(one, str):
            to, _colon, name = one.partition(":")
            one = {"to": to, **({"name": name} if name else {})}
        found.append(dict(one))
    number = 0
    for one in found:
        while not one.get("name"):
            if f"eth{number}" not in {other.get("name") for other in found}:
                one["name"] = f"eth{number}"
            number += 1
    return found


def impairment(said: Mapping[str, Any]) -> dict[str, Any]:
    """Constraints of munet in this project's words. Raises InvalidInput for numbers that are none."""
    found: dict[str, Any] = {}
    for key in ("delay", "jitter"):
        if said.get(key):
            found[key] = f"{_whole(key, said[key])}us"
    if said.get("jitter"):
        found["delay_correlation"] = f"{said.get('jitter-correlation', 10)}%"
    if said.get("loss"):
        correlation = said.get("loss-correlation")
        found["loss"] = f"{said['loss']}%"
        if correlation:
            found["loss"] = {"random": found["loss"], "correlation": f"{correlation}%"}
    rate = said.get("rate")
    if rate:
        found["rate"] = f"{_whole('rate', rate.get('rate') if isinstance(rate, Mapping) else rate)}bit"
    return found


def _whole(key: str, value: object) -> int:
    """A number that may have a unit: 10K is 10000, 10Ki is 10240."""
    text = str(value).strip()
    power = 0
    base = 1000
    if text.endswith("i"):
        text, base = text[:-1], 1024
    if text and text[-1] in "KMGT":
        text, power = text[:-1], "KMGT".index(text[-1]) + 1
    try:
        return int(float(text) * base**power)
    except ValueError:
        raise InvalidInput(key, value, "a number is expected, as 1000 or 10M") from None
