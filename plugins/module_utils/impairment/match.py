# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which traffic a class takes: the conditions of `match`, checked. Knows no kernel call."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from .. import schema, units
from ..errors import InvalidInput
from ..schema import not_supported, whole_number

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

INTERFACE_NAME_MAX = 15  # IFNAMSIZ without its zero
TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132}
PROTOCOLS = {"icmp": 1, "igmp": 2, **TRANSPORTS, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58}
FAMILIES = ("ipv4", "ipv6", "arp")


class Match(NamedTuple):
    """One set of conditions; all must hold. `address`, `port` and `mac` are either side."""

    protocol: str | int | None = None  # a name of PROTOCOLS or FAMILIES, or an IP protocol number
    address: Network | None = None
    source: Network | None = None
    destination: Network | None = None
    port: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    dscp: int | None = None
    mac: str | None = None
    mark: tuple[int, int] | None = None  # value, mask
    bridged: bool = False
    in_interface: str | None = None


def interface_name(value: object, path: str) -> str:
    """A name that the kernel takes (dev_valid_name)."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value) or value in (".", ".."):
        raise InvalidInput(
            path, value, f"write an interface name of 1 to {INTERFACE_NAME_MAX} characters without space, `/` or `:`"
        )
    return value


def _network(value: object, path: str) -> Network:
    allowed = "write an address or a network such as 10.0.0.0/8 or 2001:db8::1"
    if not isinstance(value, str) or "%" in value:  # a packet carries no scope
        raise InvalidInput(path, value, allowed)
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise InvalidInput(path, value, f"{allowed} ({error})") from None


def _protocol(value: object, path: str) -> str | int:
    if isinstance(value, str) and (value in PROTOCOLS or value in FAMILIES):
        return value
    try:
        return units.parse_integer(value, 0, 255)
    except ValueError:
        allowed = ", ".join((*PROTOCOLS, *FAMILIES))
        raise InvalidInput(path, value, f"write one of {allowed}, or an IP protocol number from 0 to 255") from None


def _dscp(value: object, path: str) -> int:
    """A number, or ef, csN and afXY (RFC 2474, RFC 2597, RFC 3246)."""
    name = value.lower() if isinstance(value, str) else ""
    if name == "ef":
        return 46
    if match := re.fullmatch(r"cs([0-7])", name):
        return int(match.group(1)) * 8
    if match := re.fullmatch(r"af([1-4])([1-3])", name):
        return int(match.group(1)) * 8 + int(match.group(2)) * 2
    try:
        return units.parse_integer(value, 0, 63)
    except ValueError:
        raise InvalidInput(path, value, "write a number from 0 to 63, ef, cs0 to cs7, or af11 to af43") from None


def _mac(value: object, path: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", value):
        raise InvalidInput(path, value, "write a MAC address such as 52:54:00:00:00:01, in quotes")
    return value.lower()


def _mark(value: object, path: str) -> tuple[int, int]:
    allowed = "write a mark such as 0x2, or value/mask such as 0x20000/0xff0000"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidInput(path, value, allowed)
    number, slash, mask = value.partition("/") if isinstance(value, str) else (value, "", "")
    try:
        found = units.parse_integer(number), units.parse_integer(mask if slash else 0xFFFFFFFF, 1)
    except ValueError:
        raise InvalidInput(path, value, allowed) from None
    if found[0] & ~found[1]:
        raise InvalidInput(path, value, allowed + "; the value must lie within the mask")
    return found


def _true(value: object, path: str) -> bool:
    if value is not True:
        raise InvalidInput(path, value, "write true, or leave the key out; what is not bridged falls to a later class")
    return True


_PORT = whole_number(1, 65535)
_MATCH: dict[str, schema.Parser] = {
    "protocol": _protocol,
    "address": _network,
    "source": _network,
    "destination": _network,
    "port": _PORT,
    "source_port": _PORT,
    "destination_port": _PORT,
    "dscp": _dscp,
    "mac": _mac,
    "vlan": not_supported("a VLAN tag cannot be matched by the classifiers u32 and fw of this version"),
    "mark": _mark,
    "bridged": _true,
    "in_interface": interface_name,
}


def parse_match(value: object, path: str) -> Match:
    """One set of conditions."""
    found = schema.mapping(_MATCH)(value, path)
    match = Match(**found)
    if not found:
        raise InvalidInput(path, value, "write at least one condition; a class for all other traffic has no match")
    if match.port is not None and (match.source_port is not None or match.destination_port is not None):
        raise InvalidInput(
            f"{path}.port", match.port, "port is either side; write it, or source_port and destination_port"
        )
    if match.address is not None and (match.source is not None or match.destination is not None):
        raise InvalidInput(
            f"{path}.address", str(match.address), "address is either side; write it, or source and destination"
        )
    _check_family(match, path)
    return match


def _check_family(match: Match, path: str) -> None:
    ports = (match.port, match.source_port, match.destination_port)
    transports = (None, *TRANSPORTS, *TRANSPORTS.values())
    if any(port is not None for port in ports) and match.protocol not in transports:
        raise InvalidInput(f"{path}.protocol", match.protocol, "ports are matched in tcp, udp and sctp")
    addresses = [address for address in (match.address, match.source, match.destination) if address is not None]
    versions = {f"ipv{address.version}" for address in addresses}
    if match.protocol in FAMILIES:
        versions.add(str(match.protocol))
    if match.protocol in ("icmp", 1):
        versions.add("ipv4")
    if match.protocol in ("icmpv6", 58):
        versions.add("ipv6")
    if len(versions) > 1:
        raise InvalidInput(path, ", ".join(sorted(versions)), "no packet is both; write alternatives as a list")
    if match.protocol == "arp" and (addresses or match.dscp is not None):
        raise InvalidInput(f"{path}.protocol", "arp", "ARP has no IP addresses or dscp to match")


def parse_matches(value: object, path: str) -> tuple[Match, ...]:
    """A set of conditions, or a list of alternatives."""
    if isinstance(value, Mapping):
        return (parse_match(value, path),)
    found = schema.sequence(parse_match)(value, path)
    if not found:
        raise InvalidInput(
            path, value, "write a set of conditions or a list of them; a class for all other traffic has no match"
        )
    return tuple(found)
