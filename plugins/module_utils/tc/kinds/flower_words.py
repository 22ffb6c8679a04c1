# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users of the module tc write for flower, in the words of tc-flower(8)."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from ... import schema, units
from ..model import ETH_P_IP, ETH_P_IPV6, parse_handle
from .base import Kind
from .filters import Action, check_target, parse_actions, parse_interface
from .flower import FIELDS, IP_FLAGS, IP_PROTOCOLS, PORTS, SKIPS, Flower, Key, decode, encode, render, whole


def _address(value: object) -> tuple[str, int, int]:
    network = ipaddress.ip_network(str(value))
    return f"ipv{network.version}", int(network.network_address), int(network.netmask)


def _mac(value: object) -> tuple[int, int]:
    parts = str(value).split("/")
    if len(parts) > 2 or not all(re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", part) for part in parts):
        raise ValueError("write a MAC address such as 52:54:00:00:00:01, or MAC/MASK, in quotes")
    numbers = [int(part.replace(":", ""), 16) for part in parts]
    return numbers[0], numbers[1] if len(numbers) == 2 else (1 << 48) - 1


def _port(value: object) -> tuple[str, int, int]:
    """("range", first, last) or ("port", value, mask)."""
    if found := re.fullmatch(r"(\d+)-(\d+)", str(value)):
        first, last = (units.parse_integer(part, 1, 65535) for part in found.groups())
        if first >= last:
            raise ValueError("write a range as FIRST-LAST, FIRST below LAST")
        return "range", first, last
    number, mask = _masked(value, 16)
    return "port", number, mask


def _masked(value: object, bits: int) -> tuple[int, int]:
    """`VALUE` or `VALUE/MASK`, both decimal or, with 0x, hexadecimal."""
    most = (1 << bits) - 1
    number, slash, mask = str(value).partition("/")
    try:
        found = int(number, 0), int(mask, 0) if slash else most
    except ValueError:
        raise ValueError(f"write a number, or VALUE/MASK, of {bits} bits") from None
    if not (0 <= found[0] <= most and 0 < found[1] <= most and not found[0] & ~found[1]):
        raise ValueError(f"write a value within its mask, both of {bits} bits")
    return found


def _arp_address(value: object) -> tuple[int, int]:
    try:
        network = ipaddress.IPv4Network(str(value))
    except ValueError as error:
        raise ValueError(f"write an IPv4 address or ADDRESS/PREFIX ({error})") from None
    return int(network.network_address), int(network.netmask)


def _operation(value: object) -> int:
    known = {"request": 1, "reply": 2}
    return known.get(str(value)) or units.parse_integer(value, 0, 255)


def _flags(value: object) -> tuple[int, int]:
    """(value, mask) of `frag/nofirstfrag`, as tc has them."""
    number = mask = 0
    for word in str(value).split("/"):
        bit = IP_FLAGS.get(word.removeprefix("no"), 0)
        if not bit or mask & bit:
            raise ValueError("write frag or nofrag, firstfrag or nofirstfrag, or two of them with a slash between")
        number |= 0 if word.startswith("no") else bit
        mask |= bit
    return number, mask


def _protocol(value: object) -> int:
    return IP_PROTOCOLS.get(str(value)) or units.parse_integer(value, 0, 255)


def _ethertype(value: object) -> int:
    if value in ("ip", "ipv4"):
        return ETH_P_IP
    return ETH_P_IPV6 if value == "ipv6" else units.parse_integer(value, 0x600, 0xFFFF)


def _build(
    flowid: int | None = None,
    indev: str = "",
    vlan_ethtype: int = 0,
    action: tuple[Action, ...] = (),
    **given: Any,
) -> Flower:
    keys: dict[str, tuple[int, int]] = {}
    for name, value in given.items():
        if name in ("src_ip", "dst_ip"):
            family, number, mask = value
            keys[f"{family}_{name[:3]}"] = number, mask
        elif name in ("src_port", "dst_port"):
            _place_port(keys, name, value, given.get("ip_proto"))
        elif name not in SKIPS:
            keys[name] = value if isinstance(value, tuple) else (value, whole(name))
    if len({name[:4] for name in keys if name.startswith("ipv")}) > 1:
        raise ValueError("src_ip and dst_ip are of different families")
    skip = sum(bit for word, bit in SKIPS.items() if given.get(word))
    ordered = tuple(Key(name, *keys[name]) for name in FIELDS if name in keys)
    return Flower(check_target(flowid, action), ordered, indev, 0, vlan_ethtype, action, skip)


def _place_port(keys: dict[str, tuple[int, int]], name: str, value: tuple[str, int, int], protocol: Any) -> None:
    if protocol not in PORTS:
        raise ValueError(f"{name} needs ip_proto tcp, udp or sctp")
    what, first, second = value
    if what == "range":
        keys[f"{name}_min"], keys[f"{name}_max"] = (first, 0xFFFF), (second, 0xFFFF)
    else:
        keys[f"{PORTS[protocol]}_{name[:3]}"] = first, second


FLOWER = Kind(
    "flower",
    {
        "flowid": schema.leaf(parse_handle),
        "indev": schema.leaf(parse_interface),
        "action": parse_actions,
        "src_mac": schema.leaf(_mac),
        "dst_mac": schema.leaf(_mac),
        "vlan_id": schema.leaf(lambda value: units.parse_integer(value, 0, 4095)),
        "vlan_prio": schema.leaf(lambda value: units.parse_integer(value, 0, 7)),
        "vlan_ethtype": schema.leaf(_ethertype),
        "ip_proto": schema.leaf(_protocol),
        "ip_tos": schema.leaf(lambda value: _masked(value, 8)),
        "ip_ttl": schema.leaf(lambda value: _masked(value, 8)),
        "src_ip": schema.leaf(_address),
        "dst_ip": schema.leaf(_address),
        "src_port": schema.leaf(_port),
        "dst_port": schema.leaf(_port),
        "ip_flags": schema.leaf(_flags),
        "arp_op": schema.leaf(_operation),
        "arp_sip": schema.leaf(_arp_address),
        "arp_tip": schema.leaf(_arp_address),
        "arp_sha": schema.leaf(_mac),
        "arp_tha": schema.leaf(_mac),
        "skip_hw": schema.leaf(units.parse_boolean),
        "skip_sw": schema.leaf(units.parse_boolean),
        "tcp_flags": schema.leaf(lambda value: _masked(value, 12)),
    },
    _build,
    encode,
    decode,
    render,
)
