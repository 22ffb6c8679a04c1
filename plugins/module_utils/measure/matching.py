# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which class a packet belongs to: the first whose match holds, as on the node."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .asked import Class

ETHERTYPES = {"ipv4": 0x0800, "arp": 0x0806, "ipv6": 0x86DD}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
WITH_PORTS = (6, 17)
DSCP = {
    "ef": 46,
    "be": 0,
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{c}{d}": 8 * c + 2 * d for c in range(1, 5) for d in range(1, 4)},
}
SSH: Mapping[str, Any] = {"protocol": "tcp", "port": 22}


class Packet(NamedTuple):
    """What a match can look at."""

    protocol: int = 0  # IP protocol number; 0: not IPv4
    source: str = ""
    destination: str = ""
    source_port: int = 0
    destination_port: int = 0
    dscp: int = 0
    mark: int = 0
    in_interface: str = ""  # where it enters the node; empty: the node's own
    forwarded: bool = False
    ethertype: int = 0x0800


def protocol_number(value: object) -> int:
    """Number of a protocol; -1 for one that is not known here."""
    text = str(value).lower()
    return int(text) if text.isdigit() else PROTOCOLS.get(text, -1)


def dscp_number(value: object) -> int:
    """Number of a dscp, or of the first in a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return dscp_number(value[0])
    text = str(value).lower()
    return DSCP[text] if text in DSCP else int(text, 0)


def _in_ports(value: object, port: int) -> bool:
    """A port, a range `1000-2000`, or a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(_in_ports(one, port) for one in value)
    low, _unused, high = str(value).replace(":", "-").partition("-")
    return int(low) <= port <= int(high or low)


def first_port(value: object) -> int:
    """One port out of a match's value."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return first_port(value[0])
    return int(str(value).replace(":", "-").partition("-")[0])


def mark_of(value: object) -> tuple[int, int]:
    """(value, mask) of `5`, `0x5/0xff`."""
    number, _unused, mask = str(value).partition("/")
    return int(number, 0), int(mask, 0) if mask else 0xFFFFFFFF


def _in_network(value: object, address: str) -> bool:
    networks = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    return bool(address) and any(
        ipaddress.ip_address(address) in ipaddress.ip_network(str(one), strict=False) for one in networks
    )


def _is_protocol(value: object, packet: Packet) -> bool:
    if value in ETHERTYPES:
        return packet.ethertype == ETHERTYPES[str(value)]
    return packet.ethertype == 0x0800 and packet.protocol == protocol_number(value)


def _has_dscp(value: object, packet: Packet) -> bool:
    asked = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    return packet.protocol > 0 and packet.dscp in map(dscp_number, asked)


def _holds(key: str, value: Any, packet: Packet, unknown: bool = False) -> bool:
    """Whether one condition holds; `unknown` where that cannot be judged from a packet (mac, vlan)."""
    has_ports = packet.protocol in WITH_PORTS
    if key == "port":
        return has_ports and (_in_ports(value, packet.source_port) or _in_ports(value, packet.destination_port))
    if key == "mark":
        number, mask = mark_of(value)
        return packet.mark & mask == number
    tests = {
        "protocol": lambda: _is_protocol(value, packet),
        "address": lambda: _in_network(value, packet.source) or _in_network(value, packet.destination),
        "source": lambda: _in_network(value, packet.source),
        "destination": lambda: _in_network(value, packet.destination),
        "source_port": lambda: has_ports and _in_ports(value, packet.source_port),
        "destination_port": lambda: has_ports and _in_ports(value, packet.destination_port),
        "dscp": lambda: _has_dscp(value, packet),
        "bridged": lambda: packet.forwarded is bool(value),
        "in_interface": lambda: packet.in_interface == value,
        "not": lambda: not matches([value] if isinstance(value, Mapping) else value, packet, unknown=True),
    }
    return bool(tests[key]()) if key in tests else unknown


def matches(alternatives: Sequence[Mapping[str, Any]], packet: Packet, unknown: bool = False) -> bool:
    """Whether one of the alternatives surely holds; with `unknown`, whether one may (nobody knows of mac and vlan)."""
    return any(
        all(_holds(key, value, packet, unknown) for key, value in one.items() if value is not None)
        for one in alternatives
    )


def class_of(classes: Sequence[Class], packet: Packet, unimpaired: Sequence[Mapping[str, Any]] = ()) -> str:
    """Name of the class that a packet falls into; empty for none."""
    if unimpaired and matches(unimpaired, packet):
        return ""
    for one in classes:
        if not one.alternatives or matches(one.alternatives, packet):
            return one.name
    return ""
