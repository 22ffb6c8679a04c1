# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For each class and direction a flow that belongs to it: who sends what to whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .asked import Asked, Class, Impaired, impaired_directions
from .matching import SSH, Packet, class_of, dscp_number, first_port, mark_of, protocol_number
from .topology import Lab, Place

FIRST_PORT = 40500  # our flows' own ports count up from here
Matches = Sequence[Mapping[str, Any]]
NAMES = {6: "tcp", 17: "udp", 1: "icmp"}


class Flow(NamedTuple):
    """Numbered packets through one class of one direction of one interface."""

    id: int
    node: str
    interface: str
    direction: str
    class_name: str
    sender: str
    receiver: str
    source: str  # IPv4
    destination: str
    receive_interface: str
    entry: str  # the node's interface where the packets come in; empty: the node sends them itself
    leave: str  # where they go out; empty: the node receives them itself
    protocol: str
    source_port: int = 0
    destination_port: int = 0
    tos: int = 0
    mark: int = 0


class Subject(NamedTuple):
    """A class that is to be measured, with its flow, or the reason why there is none."""

    node: str
    impaired: Impaired
    of: Class
    flow: Flow | None
    reason: str = ""

    @property
    def asked(self) -> Asked:
        return self.of.asked

    @property
    def way(self) -> Flow:
        """The flow, where one was found; only such subjects are sent for and judged."""
        if self.flow is None:
            raise AssertionError(f"no flow through {self.of.name}: {self.reason}")
        return self.flow


class _Path(NamedTuple):
    sender: Place
    receiver: Place
    entry: str
    leave: str
    forwarded: bool


def _paths(lab: Lab, node: str, impaired: Impaired) -> Iterator[_Path]:
    """Ways through the impaired interface: forwarded ones first, since their order is seen where they enter."""
    interface = impaired.interface
    far = lab.place(lab.far_end(node, interface))
    if far is None:
        return
    address = lab.address(node, interface)
    inside = str(lab.nodes[node].get("bridge_name")) if interface in lab.ports(node) else interface
    own = Place(node, address, inside) if address else None
    for port, place in lab.behind(node, interface):
        if impaired.direction == "egress":
            yield _Path(place, far, port, interface, True)
        else:
            yield _Path(far, place, interface, port, True)
    if own and impaired.direction == "egress":
        yield _Path(own, far, "", interface, False)
    elif own:
        yield _Path(far, own, interface, "", False)


def _headers(conditions: Mapping[str, Any], port: int, own: bool) -> Iterator[dict[str, Any]]:
    """Headers that may fulfil one set of conditions."""
    asked = conditions.get("protocol")
    protocols = [17, 6] if asked in (None, "ipv4") else [protocol_number(asked)]
    either = first_port(conditions["port"]) if conditions.get("port") is not None else 0
    source = first_port(conditions["source_port"]) if conditions.get("source_port") is not None else port
    destination = first_port(conditions["destination_port"]) if conditions.get("destination_port") is not None else port
    dscp = dscp_number(conditions["dscp"]) if conditions.get("dscp") is not None else 0
    mark = mark_of(conditions["mark"])[0] if own and conditions.get("mark") is not None else 0
    for protocol in protocols:
        if protocol not in NAMES:
            continue
        header = {
            "protocol": protocol,
            "source_port": source,
            "destination_port": destination,
            "dscp": dscp,
            "mark": mark,
        }
        if protocol == 1:
            yield {**header, "source_port": 0, "destination_port": 0}
        elif either:
            yield {**header, "destination_port": either}
            yield {**header, "source_port": either}
        else:
            yield header


def calibration_matches(lab: Lab, node: str, port: int) -> list[Mapping[str, Any]]:
    """What passes the impaired interfaces while we measure: our calibration.

    And ARP, where a class loses everything: without it nobody would send to the far side for long.
    """
    asked = [
        of.asked
        for interface in lab.nodes[node].get("impairment_interfaces") or ()
        for impaired in impaired_directions(interface)
        for of in impaired.classes
    ]
    found: list[Mapping[str, Any]] = [{"protocol": "udp", "port": port}]
    return [*found, {"protocol": "arp"}] if any(one.loss >= 1 for one in asked) else found


def unimpaired_matches(lab: Lab, node: str, calibration_port: int) -> list[Mapping[str, Any]]:
    """What passes the impaired interfaces untouched: management, and our calibration."""
    stated = lab.nodes[node].get("impairment_management")
    return [*([SSH] if stated is None else stated), *calibration_matches(lab, node, calibration_port)]


def choose(lab: Lab, node: str, impaired: Impaired, of: Class, number: int, unimpaired: Matches) -> Flow | str:
    """A flow whose first matching class is this one; or why there is none."""
    reason = "no other node is known at the ends of this interface's link (lab_links, addresses, --limit)"
    for path in _paths(lab, node, impaired):
        reason = "no flow was found that fulfils this match and none of the classes before it"
        for conditions in of.alternatives or ({},):
            for header in _headers(conditions, FIRST_PORT + number, not path.entry):
                packet = Packet(
                    source=path.sender.address,
                    destination=path.receiver.address,
                    in_interface=path.entry,
                    forwarded=path.forwarded,
                    **header,
                )
                if class_of(impaired.classes, packet, unimpaired) == of.name:
                    return _flow(number, node, impaired, of, path, packet)
    return reason


def _flow(number: int, node: str, impaired: Impaired, of: Class, path: _Path, packet: Packet) -> Flow:
    return Flow(
        number,
        node,
        impaired.interface,
        impaired.direction,
        of.name,
        path.sender.node,
        path.receiver.node,
        path.sender.address,
        path.receiver.address,
        path.receiver.interface,
        path.entry,
        path.leave,
        NAMES[packet.protocol],
        packet.source_port,
        packet.destination_port,
        packet.dscp << 2,
        packet.mark,
    )


def subjects(lab: Lab, calibration_port: int) -> list[Subject]:
    """Everything that is impaired in this lab, in the inventory's order."""
    found: list[Subject] = []
    for node, variables in lab.nodes.items():
        unimpaired = unimpaired_matches(lab, node, calibration_port)
        for interface in variables.get("impairment_interfaces") or ():
            for impaired in impaired_directions(interface):
                for of in impaired.classes:
                    flow = choose(lab, node, impaired, of, len(found) + 1, unimpaired)
                    if isinstance(flow, Flow):
                        found.append(Subject(node, impaired, of, flow))
                    else:
                        found.append(Subject(node, impaired, of, None, flow))
    return found
