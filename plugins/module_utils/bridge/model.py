# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bridge is asked to be: the user's values, checked.

Every refusal is an InvalidInput whose path is the role's variable (`bridge_ports[1]`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidInput

NAME_LENGTH = 15  # IFNAMSIZ - 1, include/uapi/linux/if.h
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
NAME_ALLOWED = f"allowed is an interface name of 1 to {NAME_LENGTH} letters, digits and _ . -"
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
MAC_ALLOWED = "allowed is a unicast MAC address such as 02:00:00:00:00:01, or the name of one of bridge_ports"
ADDRESS_ALLOWED = "allowed is an address of a host with its prefix length, such as 192.168.1.107/24"
FORWARD_DELAY_ALLOWED = "allowed are whole seconds: 0, or 2 to 30 (2 at least with bridge_stp)"


class Bridge(NamedTuple):
    """One bridge over some ports. `address` and `gateway` are empty where none is asked."""

    name: str
    ports: tuple[str, ...]
    address: str  # with prefix length
    gateway: str
    hw: str  # a MAC, the name of a port, or empty: the management port's
    stp: bool
    forward_delay: int  # seconds

    @property
    def family(self) -> str:
        """ifupdown's name of the address family."""
        return "inet6" if ":" in self.address else "inet"


def parse(params: Mapping[str, Any]) -> Bridge:
    """The values of the module's arguments as a Bridge; raises InvalidInput at the first that cannot be used."""
    name = parse_name("bridge_name", params.get("name"))
    ports = _ports(params.get("ports"), name)
    address = _address(params.get("address"))
    return Bridge(
        name=name,
        ports=ports,
        address=address,
        gateway=_gateway(params.get("gateway"), address),
        hw=_hw(params.get("hw"), ports),
        stp=bool(params.get("stp")),
        forward_delay=_forward_delay(params.get("fd"), bool(params.get("stp"))),
    )


def parse_name(path: str, value: Any) -> str:
    """An interface name that the kernel, ifupdown and our own files can carry."""
    text = "" if value is None else str(value)
    if len(text) > NAME_LENGTH:
        raise InvalidInput(path, value, f"it has {len(text)} characters; {NAME_ALLOWED}")
    if not NAME.fullmatch(text):
        raise InvalidInput(path, value, NAME_ALLOWED)
    if text in ("lo", "all", "default"):
        raise InvalidInput(path, value, "this name is the kernel's own; " + NAME_ALLOWED)
    return text


def _ports(value: Any, bridge: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InvalidInput("bridge_ports", value, "allowed is a list of at least one interface of the node")
    ports: list[str] = []
    for index, entry in enumerate(value):
        path = f"bridge_ports[{index}]"
        port = parse_name(path, entry)
        if port == bridge:
            raise InvalidInput(path, port, "a bridge cannot be its own port; allowed are other interfaces of the node")
        if port in ports:
            first = ports.index(port)
            raise InvalidInput(path, port, f"it is bridge_ports[{first}] already; every port stands once")
        ports.append(port)
    return tuple(ports)


def _address(value: Any) -> str:
    if value in (None, ""):
        return ""
    text = str(value)
    if "/" not in text:
        raise InvalidInput("bridge_address", value, "the prefix length is missing; " + ADDRESS_ALLOWED)
    try:
        found = ipaddress.ip_interface(text)
    except ValueError as error:
        raise InvalidInput("bridge_address", value, f"{error}; {ADDRESS_ALLOWED}") from error
    if not text.rpartition("/")[2].isdigit():
        raise InvalidInput("bridge_address", value, "the prefix length is a number; " + ADDRESS_ALLOWED)
    if found.ip.is_multicast or found.ip.is_loopback or found.ip.is_unspecified:
        raise InvalidInput("bridge_address", value, "multicast, loopback and 0 are no host's; " + ADDRESS_ALLOWED)
    short = found.network.prefixlen < found.max_prefixlen - 1
    if short and found.version == 4 and found.ip in (found.network[0], found.network[-1]):
        raise InvalidInput("bridge_address", value, "it is the network's own or its broadcast; " + ADDRESS_ALLOWED)
    return found.with_prefixlen


def _gateway(value: Any, address: str) -> str:
    if value in (None, ""):
        return ""
    if not address:
        raise InvalidInput("bridge_gateway", value, "a gateway needs bridge_address")
    network = ipaddress.ip_interface(address)
    allowed = f"allowed is another address in {network.network}"
    try:
        found = ipaddress.ip_address(str(value))
    except ValueError as error:
        raise InvalidInput("bridge_gateway", value, f"{error}; {allowed}") from error
    reachable = found in network.network or (found.version == 6 and network.version == 6 and found.is_link_local)
    if not reachable or found == network.ip:
        raise InvalidInput("bridge_gateway", value, allowed)
    return str(found)


def _hw(value: Any, ports: Sequence[str]) -> str:
    if value in (None, ""):
        return ""
    text = str(value)
    if text in ports:
        return text
    mac = text.lower().replace("-", ":")
    if not MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidInput("bridge_hw", value, MAC_ALLOWED)
    return mac


def _forward_delay(value: Any, stp: bool) -> int:
    text = "0" if value is None else str(value)
    if not text.isdecimal() or not (2 <= int(text) <= 30 or (text == "0" and not stp)):
        raise InvalidInput("bridge_fd", value, FORWARD_DELAY_ALLOWED)
    return int(text)
