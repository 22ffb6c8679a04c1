# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of addresses in matches, made the fewest networks by netaddr: on the controller, as nodes have no packages."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..module_utils.errors import InvalidInput

if TYPE_CHECKING:
    from netaddr import IPSet

KEYS = ("address", "source", "destination")
LIMITS = ("of", "except")
ALLOWED = (
    "write an address, a network such as 10.0.0.0/8 or 2001:db8::/32, a range such as 10.0.0.5-10.0.0.20 or "
    "10.0.0.5-20, a list of these, or {of: …, except: …}"
)


def in_interfaces(value: Any, path: str) -> Any:
    """impairment_interfaces with the addresses in all matches merged. What is no such list is left to the module.

    Raises InvalidInput with the path of a set that cannot be used.
    """
    if not isinstance(value, list):
        return value
    return [_in_interface(entry, f"{path}[{index}]") for index, entry in enumerate(value)]


def in_matches(value: Any, path: str) -> Any:
    """A match, or a list of them, with the addresses merged."""
    if isinstance(value, list):
        return [in_matches(entry, f"{path}[{index}]") for index, entry in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    found = dict(value)
    for key in KEYS:
        if key in found:
            found[key] = merged(found[key], f"{path}.{key}")
    if "not" in found:
        found["not"] = in_matches(found["not"], f"{path}.not")
    return found


def merged(value: Any, path: str) -> Any:
    """The fewest networks that are these addresses: one as a text, several as a list; a plain value as it is.

    Raises InvalidInput where something is no address, or nothing is left.
    """
    if not isinstance(value, (list, Mapping)) and not (isinstance(value, str) and _is_range(value)):
        return value
    if find_spec("netaddr") is None:
        raise InvalidInput(path, value, "sets of addresses need the Python package netaddr on the controller")
    networks = [str(network) for network in _addresses(value, path).iter_cidrs()]
    if not networks:
        raise InvalidInput(path, value, "nothing is left of this set; a class for no address is no class")
    return networks[0] if len(networks) == 1 else networks


def _in_interface(entry: Any, path: str) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("classes"), list):
        return entry
    classes = [
        {**one, "match": in_matches(one["match"], f"{path}.classes[{index}].match")}
        if isinstance(one, Mapping) and "match" in one
        else one
        for index, one in enumerate(entry["classes"])
    ]
    return {**entry, "classes": classes}


def _is_range(value: str) -> bool:
    return "-" in value or "*" in value


def _addresses(value: Any, path: str) -> IPSet:
    """What is written, as a set."""
    from netaddr import IPSet

    if isinstance(value, Mapping):
        return _limited(value, path)
    if not isinstance(value, list):
        return IPSet(_blocks(value, path))
    blocks = []
    for index, entry in enumerate(value):
        place = f"{path}[{index}]"
        blocks += list(_limited(entry, place).iter_cidrs()) if isinstance(entry, Mapping) else _blocks(entry, place)
    return IPSet(blocks)  # merged once: adding one by one would take quadratic time


def _limited(value: Mapping[str, Any], path: str) -> IPSet:
    """`{of: …, except: …}`"""
    for key in value:
        if key not in LIMITS:
            raise InvalidInput(f"{path}.{key}", value[key], "unknown key; allowed: " + ", ".join(LIMITS))
    for key in LIMITS:
        if value.get(key) is None:
            raise InvalidInput(f"{path}.{key}", None, "this key is required")
    return _addresses(value["of"], f"{path}.of") - _addresses(value["except"], f"{path}.except")


def _blocks(value: Any, path: str) -> list[Any]:
    """One address, network or range as netaddr's networks."""
    import netaddr

    if not isinstance(value, str) or "%" in value:  # a packet carries no scope
        raise InvalidInput(path, value, ALLOWED)
    text = str(value)  # without Ansible's tags
    try:
        if not _is_range(text):
            return [netaddr.IPNetwork(str(ipaddress.ip_network(text)))]  # which refuses what netaddr would round
        if netaddr.valid_glob(text):
            return list(netaddr.glob_to_cidrs(text))
        first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-"))
        if first.version != last.version or int(first) > int(last):
            raise ValueError("a range goes from the lower to the higher address of one family")
        return list(netaddr.iprange_to_cidrs(str(first), str(last)))
    except (ValueError, netaddr.core.AddrFormatError) as error:
        raise InvalidInput(path, value, f"{ALLOWED} ({error})") from None
