# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets of every kind that a match can tell apart, which class shall take each, and which class took it.

What a match means is written down here once more, plainly, from the documentation; tc counts what the kernel did.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.integration.wire import sh

ETHERTYPES = {"ipv4": 0x0800, "ipv6": 0x86DD, "arp": 0x0806}
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
FAMILY_OF = {1: "ipv4", 58: "ipv6"}  # ICMP of the other family is another protocol
DSCP = {"ef": 46, "af11": 10, "cs1": 8}
WITH_PORTS = (6, 17, 132)
SO_MARK = 36
NOBODY = "none"  # the class of what no class takes
Match = Mapping[str, Any]


class Packet(NamedTuple):
    """One packet; `vlan` 0: it has no tag."""

    family: str = "ipv4"
    protocol: int = 17
    source: str = "10.0.0.1"
    destination: str = "10.0.0.2"
    source_port: int = 1000
    destination_port: int = 2000
    dscp: int = 0
    source_mac: str = "02:00:00:00:00:01"
    destination_mac: str = "02:00:00:00:00:02"
    vlan: int = 0
    mark: int = 0


# --- what a match means ---


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _in_networks(value: Any, address: str) -> bool:
    here = ipaddress.ip_address(address)
    for text in listed(value):
        first, dash, last = text.partition("-")
        if dash:
            ends = [ipaddress.ip_address(first), ipaddress.ip_address(last)]
            if here.version == ends[0].version and int(ends[0]) <= int(here) <= int(ends[1]):
                return True
        elif here in ipaddress.ip_network(text):
            return True
    return False


def _in_ports(value: Any, port: int) -> bool:
    spans = [str(entry).split("-") for entry in listed(value)]
    return any(int(span[0]) <= port <= int(span[-1]) for span in spans)


def _sides(key: str, name: str) -> list[str]:
    """Fields of a packet that one of the keys `address`, `source`, `port`, `source_port` … looks at."""
    tail = "" if name == "address" else f"_{name}"
    return [f"source{tail}", f"destination{tail}"] if key == name else [key]


def _holds(key: str, value: Any, packet: Packet, plain: bool) -> bool:
    """`plain`: what is behind the Ethernet header can be seen: no tag, or one that the match has named."""
    about_ip = plain and packet.family != "arp"
    if key == "protocol":
        if value in ETHERTYPES:
            return plain and packet.family == value
        number = NUMBERS.get(value, value)
        return about_ip and packet.protocol == number and packet.family == FAMILY_OF.get(number, packet.family)
    if key in ("address", "source", "destination"):
        return about_ip and any(_in_networks(value, getattr(packet, side)) for side in _sides(key, "address"))
    if key.endswith("port"):
        there = about_ip and packet.protocol in WITH_PORTS
        return there and any(_in_ports(value, getattr(packet, side)) for side in _sides(key, "port"))
    if key == "dscp":
        return about_ip and packet.dscp in [DSCP.get(entry, entry) for entry in listed(value)]
    if key.endswith("mac"):
        return any(getattr(packet, side) in listed(value) for side in _sides(key, "mac"))
    if key == "vlan":
        return packet.vlan in listed(value)
    if key == "mark":
        number, _slash, mask = value.partition("/")
        return packet.mark & int(mask or "0xffffffff", 0) == int(number, 0)
    raise AssertionError(key)


def takes(match: Match, packet: Packet, plain: bool | None = None) -> bool:
    """Whether all conditions hold, and none of the sets below `not`."""
    if plain is None:
        plain = not packet.vlan or "vlan" in match
    if any(takes(one, packet, plain) for one in listed(match.get("not", []))):
        return False
    return all(_holds(key, value, packet, plain) for key, value in match.items() if key != "not")


def expected(classes: Sequence[Mapping[str, Any]], packet: Packet) -> str:
    """The first class that takes the packet."""
    for entry in classes:
        if "match" not in entry or any(takes(match, packet) for match in listed(entry["match"])):
            return str(entry["name"])
    return NOBODY


# --- packets on the wire ---


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _payload(packet: Packet) -> bytes:
    ports = struct.pack("!HH", packet.source_port, packet.destination_port)
    return (ports if packet.protocol in WITH_PORTS else b"\x08\0\0\0") + bytes(4) + b"\x50" + bytes(15)


def frame(packet: Packet, tagged: bool) -> bytes:
    """As it goes to a raw socket, with its tag in it where asked. Checksums are of no interest here."""
    tag = struct.pack("!HH", 0x8100, packet.vlan) if tagged else b""
    head = _bytes(packet.destination_mac) + _bytes(packet.source_mac) + tag
    head += struct.pack("!H", ETHERTYPES[packet.family])
    data = _payload(packet)
    if packet.family == "arp":
        return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20) + data
    ends = ipaddress.ip_address(packet.source).packed + ipaddress.ip_address(packet.destination).packed
    if packet.family == "ipv4":
        start = struct.pack("!BBHHHBBH", 0x45, packet.dscp << 2, 20 + len(data), 1, 0, 64, packet.protocol, 0)
    else:
        start = struct.pack("!IHBB", 6 << 28 | packet.dscp << 22, len(data), packet.protocol, 64)
    return head + start + ends + data


class Sender:
    """Raw sockets at an interface and its VLANs. `tagged`: all at the interface itself, with tags in the packets."""

    def __init__(self, device: str, tagged: bool = False) -> None:
        self.device, self.tagged = device, tagged
        self._sockets: dict[tuple[str, int], socket.socket] = {}

    def send(self, packet: Packet) -> None:
        within = self.tagged and packet.vlan > 0
        device = f"{self.device}.{packet.vlan}" if packet.vlan and not within else self.device
        made = self._sockets.get((device, packet.mark))
        if made is None:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind((device, 0))
            made.setsockopt(socket.SOL_SOCKET, SO_MARK, packet.mark)
            self._sockets[device, packet.mark] = made
        made.send(frame(packet, within))


# --- which class took them ---


def with_rates(classes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each class gets a rate of its own, by which tc tells it."""
    return [{**entry, "rate": f"{100 + index}mbit"} for index, entry in enumerate(classes)]


def counted(device: str, classes: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Packets that each class has sent, by tc."""
    shown = sh(f"tc -s class show dev {device}")
    found = re.findall(r"class htb (\S+) .*?rate (\S+) .*\n Sent \d+ bytes (\d+) pkt", shown)
    names = {f"{100 + index}Mbit": str(entry["name"]) for index, entry in enumerate(classes)}
    return Counter({names.get(rate, NOBODY): int(packets) for classid, rate, packets in found if classid != "7e57:1"})


def taken(
    device: str, classes: Sequence[Mapping[str, Any]], packets: Sequence[Packet], sender: Sender | None = None
) -> Counter[str]:
    """How many of the packets each class takes; sent now, one by one, out of the device if nothing else is said."""
    before = counted(device, classes)
    sender = sender or Sender(device)
    for packet in packets:
        sender.send(packet)
    deadline = time.monotonic() + 2
    found: Counter[str] = Counter()
    while time.monotonic() < deadline and found.total() < len(packets):
        found = counted(device, classes) - before
    return found
