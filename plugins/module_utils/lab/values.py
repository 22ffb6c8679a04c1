# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single values of a topology. Every refusal is an InvalidInput with the path of the value."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput

MANAGEMENT = "mgmt0"
INTERFACE_LIMIT = 15  # IFNAMSIZ - 1
MANAGEMENT_NET = ipaddress.ip_network("169.254.0.0/16")
MEMORY = (64, 4096)  # MiB
MTU = (68, 9000)  # bytes: the least that IPv4 needs (RFC 791), the most that User-Mode Linux and boards take
IPV6_MTU = 1280  # bytes, the least that IPv6 needs (RFC 8200)
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]+")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def mapping(path: str, value: object, keys: Sequence[str], required: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(path, value, f"a mapping with {', '.join(required)} is expected")
    for key in value:
        if key not in keys:
            raise InvalidInput(f"{path}.{key}", value[key], f"unknown key; known are {', '.join(keys)}")
    for key in required:
        if value.get(key) is None:
            raise InvalidInput(f"{path}.{key}", None, "it must be given")
    return value


def sequence(path: str, value: object) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(path, value, "a list is expected")
    return value


def name(path: str, value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidInput(path, value, "allowed are letters, digits and inner hyphens, 63 at most")
    return value


def interface_name(path: str, value: object) -> str:
    if not isinstance(value, str) or not INTERFACE_NAME.fullmatch(value) or value in (".", "..", "all", "default"):
        raise InvalidInput(path, value, "an interface name has letters, digits, `_`, `-` and `.` only")
    if len(value) > INTERFACE_LIMIT:
        raise InvalidInput(
            path, value, f"an interface name has {INTERFACE_LIMIT} characters at most, this has {len(value)}"
        )
    if value in (MANAGEMENT, "lo") or value.startswith("vec"):
        raise InvalidInput(path, value, f"{MANAGEMENT}, lo and vec… are taken by the lab itself")
    return value


def choice(path: str, value: object, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InvalidInput(path, value, f"known are {', '.join(sorted(choices))}")
    return str(value)


def address(path: str, value: object) -> str:
    """An address with its prefix length."""
    try:
        if not isinstance(value, str) or "/" not in value:
            raise ValueError
        found = ipaddress.ip_interface(value)
    except ValueError:
        raise InvalidInput(path, value, "an address with its prefix length is expected, as 192.168.1.147/24") from None
    if found.version == 4 and found.network.overlaps(MANAGEMENT_NET):
        raise InvalidInput(path, value, f"{MANAGEMENT_NET} carries the lab's own management")
    return str(found)


def gateway(path: str, value: object, own: Sequence[str]) -> str:
    """The address of a neighbour; `own` are the node's addresses that it may be next to."""
    try:
        found = ipaddress.ip_address(str(value))
    except ValueError:
        raise InvalidInput(path, value, "an address is expected") from None
    # An IPv6 router may be named by its link-local address, but then nothing says over which interface.
    if not any(found in ipaddress.ip_interface(one).network for one in own):
        networks = ", ".join(str(ipaddress.ip_interface(one).network) for one in own)
        raise InvalidInput(path, value, f"a gateway stands in an own network, {networks or 'and there is none'}")
    return str(found)


def destination(path: str, value: object) -> str:
    """What a route leads to; `default` is that of IPv4 or IPv6, as its gateway says."""
    if value == "default":
        return "default"
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError:
        raise InvalidInput(path, value, "a network is expected, as 10.0.2.0/24, or `default`") from None


def mac(path: str, value: object) -> str:
    text = str(value).lower()
    if not MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise InvalidInput(path, value, "a unicast MAC address is expected, as 52:54:00:12:34:56")
    return text


def whole(path: str, value: object, limits: tuple[int, int], what: str) -> int:
    """A whole number within limits; `what` it is, with its unit."""
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(path, value, f"{what}, {low} to {high}")
    return value
