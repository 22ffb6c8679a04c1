# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which traffic a class takes: the conditions of `match`, checked. Knows no kernel call."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from .. import schema, units
from ..errors import InvalidInput
from ..tc.model import ETH_P_ARP, ETH_P_IP, ETH_P_IPV6

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

INTERFACE_NAME_MAX = 15  # IFNAMSIZ without its zero
TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132}
PROTOCOLS = {"icmp": 1, "igmp": 2, **TRANSPORTS, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58}
ETHERTYPES = {"ipv4": ETH_P_IP, "ipv6": ETH_P_IPV6, "arp": ETH_P_ARP}
FAMILIES = tuple(ETHERTYPES)


class Range(NamedTuple):
    """Numbers from first to last."""

    first: int
    last: int


class Match(NamedTuple):
    """One set of conditions; all must hold, each by one of its alternatives. () and None: not asked.

    `address`, `port` and `mac` are either side. `excluded`: what is taken out again. `path`: where it is written.
    """

    protocol: str | int | None = None  # a name of PROTOCOLS or FAMILIES, or an IP protocol number
    address: tuple[Network, ...] = ()
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    port: tuple[Range, ...] = ()
    source_port: tuple[Range, ...] = ()
    destination_port: tuple[Range, ...] = ()
    dscp: tuple[int, ...] = ()
    mac: tuple[str, ...] = ()
    source_mac: tuple[str, ...] = ()
    destination_mac: tuple[str, ...] = ()
    vlan: tuple[int, ...] = ()
    mark: tuple[int, int] | None = None  # value, mask
    bridged: bool = False
    in_interface: str | None = None
    excluded: tuple[Match, ...] = ()
    path: str = ""


def interface_name(value: object, path: str) -> str:
    """A name that the kernel takes (dev_valid_name)."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value) or value in (".", ".."):
        raise InvalidInput(
            path, value, f"write an interface name of 1 to {INTERFACE_NAME_MAX} characters without space, `/` or `:`"
        )
    return value


def _networks(value: object, path: str) -> list[Network]:
    """An address, a network, or a range FIRST-LAST as the networks that it consists of."""
    allowed = "write an address, a network or a range such as 10.0.0.7, 2001:db8::/32 or 10.0.0.5-10.0.0.20"
    if not isinstance(value, str) or "%" in value:  # a packet carries no scope
        raise InvalidInput(path, value, allowed)
    first, dash, last = value.partition("-")
    try:
        if not dash:
            return [ipaddress.ip_network(value)]
        ends = [ipaddress.ip_address(end.strip()) for end in (first, last)]
        return list(ipaddress.summarize_address_range(*ends))
    except (TypeError, ValueError) as error:
        raise InvalidInput(path, value, f"{allowed} ({error})") from None


def _port(value: object, path: str) -> list[Range]:
    """A port, or a range FIRST-LAST."""
    found = re.fullmatch(r"(\d+)-(\d+)", value) if isinstance(value, str) else None
    try:
        ends = [units.parse_integer(part, 1, 65535) for part in (found.groups() if found else (value, value))]
    except ValueError:
        ends = [1, 0]
    if ends[0] > ends[1]:
        raise InvalidInput(path, value, "write a port from 1 to 65535, or a range such as 5000-5999")
    return [Range(*ends)]


def _several(parse: Callable[[object, str], list[Any]]) -> schema.Parser:
    """One alternative, or a list of them."""

    def parsed(value: object, path: str) -> tuple[Any, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return tuple(parse(value, path))
        if not value:
            raise InvalidInput(path, [], "write at least one, or leave the key out")
        return tuple(one for index, entry in enumerate(value) for one in parse(entry, f"{path}[{index}]"))

    return parsed


def _single(parse: schema.Parser) -> schema.Parser:
    return _several(lambda value, path: [parse(value, path)])


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


def parse_mark(value: object, path: str) -> tuple[int, int]:
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


def _vlan(value: object, path: str) -> int:
    try:
        return units.parse_integer(value, 1, 4094)
    except ValueError:
        raise InvalidInput(path, value, "write the number of a VLAN from 1 to 4094") from None


_CONDITIONS: dict[str, schema.Parser] = {
    "protocol": _protocol,
    "address": _several(_networks),
    "source": _several(_networks),
    "destination": _several(_networks),
    "port": _several(_port),
    "source_port": _several(_port),
    "destination_port": _several(_port),
    "dscp": _single(_dscp),
    "mac": _single(_mac),
    "source_mac": _single(_mac),
    "destination_mac": _single(_mac),
    "vlan": _single(_vlan),
    "mark": parse_mark,
    "bridged": _true,
    "in_interface": interface_name,
}
SIDES = {"port": "port", "address": "address", "mac": "MAC address"}
NO_FIELD = ("bridged", "in_interface", "vlan")  # nothing that a negation could cut out of a packet's fields


def parse_match(value: object, path: str) -> Match:
    """One set of conditions."""
    found = schema.mapping({**_CONDITIONS, "not": _excluded})(value, path)
    if not found:
        raise InvalidInput(path, value, "write at least one condition; a class for all other traffic has no match")
    excluded = found.pop("not", ())
    return _checked(Match(**found, excluded=excluded, path=path), value)


def _excluded(value: object, path: str) -> tuple[Match, ...]:
    return tuple(_alternatives(_cut, value, path))


def _cut(value: object, path: str) -> Match:
    found = schema.mapping(_CONDITIONS)(value, path)
    for key in NO_FIELD:
        if key in found:
            allowed = "this cannot be excluded; give it a class of its own, before this one"
            raise InvalidInput(f"{path}.{key}", found[key], allowed)
    if not found:
        raise InvalidInput(path, value, "write at least one condition, or leave the key out")
    return _checked(Match(**found, path=path), value)


def _checked(match: Match, value: object) -> Match:
    for either, what in SIDES.items():
        tail = "" if either == "address" else f"_{either}"
        sides = f"source{tail}", f"destination{tail}"
        if getattr(match, either) and any(getattr(match, side) for side in sides):
            written = value[either] if isinstance(value, Mapping) else None
            allowed = f"{either} is the {what} of either side; write it, or {sides[0]} and {sides[1]}"
            raise InvalidInput(f"{match.path}.{either}", written, allowed)
    _check_family(match)
    return match


def _check_family(match: Match) -> None:
    path = match.path
    transports = (None, *TRANSPORTS, *TRANSPORTS.values())
    if (match.port or match.source_port or match.destination_port) and match.protocol not in transports:
        raise InvalidInput(f"{path}.protocol", match.protocol, "ports are matched in tcp, udp and sctp")
    places = (match.address, match.source, match.destination)
    about = [{f"ipv{one.version}" for one in networks} for networks in places]
    if match.protocol in FAMILIES:
        about.append({str(match.protocol)})
    if match.protocol in ("icmp", 1):
        about.append({"ipv4"})
    if match.protocol in ("icmpv6", 58):
        about.append({"ipv6"})
    about = [versions for versions in about if versions]
    if about and not set.intersection(*about):
        allowed = "no packet is both; write alternatives as a list"
        raise InvalidInput(path, ", ".join(sorted(set().union(*about))), allowed)
    if match.protocol == "arp" and match.dscp:
        raise InvalidInput(f"{path}.protocol", "arp", "ARP has no IP addresses or dscp to match")


def _alternatives(parse: Callable[[object, str], Match], value: object, path: str) -> list[Match]:
    """A set of conditions, or a list of alternatives."""
    if isinstance(value, Mapping):
        return [parse(value, path)]
    found: list[Match] = schema.sequence(parse)(value, path)
    if not found:
        raise InvalidInput(
            path, value, "write a set of conditions or a list of them; a class for all other traffic has no match"
        )
    return found


def parse_matches(value: object, path: str) -> tuple[Match, ...]:
    """A set of conditions, or a list of alternatives."""
    return tuple(_alternatives(parse_match, value, path))
