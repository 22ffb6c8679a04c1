# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match as filters of the kernel: u32 keys, the ingress device and the mark (tc-u32(8))."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import InvalidInput, MissingCapability
from ..tc.kinds import u32
from ..tc.kinds.u32 import Key, key
from ..tc.model import ETH_P_ALL, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6
from .match import PROTOCOLS, TRANSPORTS, Match, Network


class Classifier(NamedTuple):
    """What one filter asks: an Ethernet protocol, keys, an ingress device and a mark."""

    protocol: int
    keys: tuple[Key, ...] = ()
    indev: str = ""
    mark: tuple[int, int] | None = None


class Header(NamedTuple):
    """Where a family keeps its fields, in bytes from the network header."""

    ethertype: int
    version: int
    protocol: int
    source: int
    destination: int
    ports: int  # of packets without options or extension headers


HEADERS = {"ipv4": Header(ETH_P_IP, 4, 9, 12, 16, 20), "ipv6": Header(ETH_P_IPV6, 6, 6, 8, 24, 40)}
MAC_SOURCE, MAC_DESTINATION = -8, -14
EVERYTHING = Classifier(ETH_P_ALL, (Key(0, 0, 0),))


class Ports(NamedTuple):
    """A source and a destination port, None where it may be any."""

    source: int | None
    destination: int | None


def classifiers(match: Match, other_ports: Mapping[str, Sequence[str]], interface: str, path: str) -> list[Classifier]:
    """All filters that together mean `match` on `interface`; `other_ports` lists the other ports of its bridge."""
    found = []
    for indev in _devices(match, other_ports, interface, path):
        for protocol, keys in _packets(match):
            found.append(Classifier(protocol, u32.merge(keys) or (Key(0, 0, 0),), indev, match.mark))
    return found


def _devices(match: Match, other_ports: Mapping[str, Sequence[str]], interface: str, path: str) -> Sequence[str]:
    if not match.bridged:
        return [match.in_interface or ""]
    ports = other_ports.get(interface, ())
    if not ports:
        raise InvalidInput(f"{path}.bridged", True, f"{interface} is no port of a bridge with other ports on this node")
    if match.in_interface and match.in_interface not in ports:
        raise InvalidInput(
            f"{path}.in_interface", match.in_interface, "other ports of this bridge: " + ", ".join(ports)
        )
    return [match.in_interface] if match.in_interface else list(ports)


def _packets(match: Match) -> Iterator[tuple[int, list[Key]]]:
    """(Ethernet protocol, keys) of each kind of packet that the match means."""
    for mac in _macs(match):
        families = _families(match)
        if not families:
            yield (ETH_P_ARP if match.protocol == "arp" else ETH_P_ALL), mac
        for family in families:
            header = HEADERS[family]
            for addresses, transport in itertools.product(_addresses(match, header), _transports(match, header)):
                yield header.ethertype, [*mac, *_dscp(match, header), *addresses, *transport]


def _families(match: Match) -> list[str]:
    """The IP families that the match is about; none where it looks at no IP field."""
    addresses = [address for address in (match.address, match.source, match.destination) if address is not None]
    if addresses:
        return [f"ipv{addresses[0].version}"]
    if match.protocol in HEADERS:
        return [str(match.protocol)]
    if match.protocol in ("icmp", 1):
        return ["ipv4"]
    if match.protocol in ("icmpv6", 58):
        return ["ipv6"]
    about_ip = (match.dscp, match.port, match.source_port, match.destination_port)
    if any(value is not None for value in about_ip) or match.protocol not in (None, "arp"):
        return list(HEADERS)
    return []


def _macs(match: Match) -> Iterator[list[Key]]:
    if match.mac is None:
        yield []
        return
    yield u32.mac_keys(match.mac, MAC_SOURCE)
    yield u32.mac_keys(match.mac, MAC_DESTINATION)


def _dscp(match: Match, header: Header) -> list[Key]:
    """The upper 6 bits of the traffic class: byte 1 of IPv4, bits 4 to 9 of IPv6 (RFC 2474)."""
    if match.dscp is None:
        return []
    if header.version == 4:
        return [key(match.dscp << 2, 0xFC, 1, 1)]
    return [key(match.dscp << 6, 0x0FC0, 0, 2)]


def _addresses(match: Match, header: Header) -> Iterator[list[Key]]:
    def at(network: Network | None, offset: int) -> list[Key]:
        return u32.address_keys(network, offset) if network is not None else []

    if match.address is not None:
        yield at(match.address, header.source)
        yield at(match.address, header.destination)
    else:
        yield at(match.source, header.source) + at(match.destination, header.destination)


def _transports(match: Match, header: Header) -> Iterator[list[Key]]:
    """Protocol and ports. Ports are only looked for where they stand for certain: see `_plain_header`."""
    pairs = [Ports(match.source_port, match.destination_port)]
    if match.port is not None:
        pairs = [Ports(match.port, None), Ports(None, match.port)]
    with_ports = any(pair != Ports(None, None) for pair in pairs)
    for number in _protocol_numbers(match, with_ports):
        protocol = [] if number is None else [key(number, 0xFF, header.protocol, 1)]
        for pair in pairs:
            keys = [
                key(port, 0xFFFF, header.ports + at, 2)
                for at, port in ((0, pair.source), (2, pair.destination))
                if port
            ]
            yield protocol + (_plain_header(header) + keys if with_ports else [])


def _protocol_numbers(match: Match, with_ports: bool) -> list[int | None]:
    if isinstance(match.protocol, int):
        return [match.protocol]
    if match.protocol in PROTOCOLS:
        return [PROTOCOLS[match.protocol]]
    return list(TRANSPORTS.values()) if with_ports else [None]


def _plain_header(header: Header) -> list[Key]:
    """IPv4 without options, first fragment: only there the ports stand at byte 20 (RFC 791)."""
    if header.version == 6:
        return []
    return [key(5, 0x0F, 0, 1), key(0, 0x1FFF, 6, 2)]


def check_mark(match: Match, supported: bool) -> None:
    """A kernel without CLS_U32_MARK takes a u32 mark and matches everything: refuse before."""
    if match.mark is not None and not supported:
        raise MissingCapability("matching a mark", "CONFIG_CLS_U32_MARK")
