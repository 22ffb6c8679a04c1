# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flower classifier: dissected fields, looked up in one hash table per mask (net/sched/cls_flower.c, tc-flower(8)).

Unlike u32 it sees ports behind IP options and IPv6 extension headers, and a VLAN tag that the device took out.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from typing import Any, Literal, NamedTuple

from ... import schema, units
from ...netlink import attribute, attributes, integer, string, text, u32
from ..model import ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, PROTOCOLS, handle_text, parse_handle
from .base import Kind
from .filters import (
    Action,
    check_target,
    decode_actions,
    encode_actions,
    parse_actions,
    parse_interface,
    render_actions,
)

CLASSID, INDEV, ACT, ETH_TYPE, VLAN_ETH_TYPE = 1, 2, 3, 8, 25  # TCA_FLOWER_*


class Field(NamedTuple):
    """A key's attribute, that of its mask (0: it has none, and counts whole), and its size in bits."""

    value: int
    mask: int
    bits: int


FIELDS = {
    "dst_mac": Field(4, 5, 48),
    "src_mac": Field(6, 7, 48),
    "vlan_id": Field(23, 0, 12),
    "vlan_prio": Field(24, 0, 3),
    "ip_proto": Field(9, 0, 8),
    "ip_tos": Field(73, 74, 8),
    "ip_ttl": Field(75, 76, 8),
    "ipv4_src": Field(10, 11, 32),
    "ipv4_dst": Field(12, 13, 32),
    "ipv6_src": Field(14, 15, 128),
    "ipv6_dst": Field(16, 17, 128),
    "tcp_src": Field(18, 35, 16),
    "tcp_dst": Field(19, 36, 16),
    "udp_src": Field(20, 37, 16),
    "udp_dst": Field(21, 38, 16),
    "sctp_src": Field(41, 39, 16),
    "sctp_dst": Field(42, 40, 16),
    "tcp_flags": Field(71, 72, 12),
    # Ranges of ports are no masks: the kernel tries them one by one, before the table.
    "src_port_min": Field(87, 0, 16),
    "src_port_max": Field(88, 0, 16),
    "dst_port_min": Field(89, 0, 16),
    "dst_port_max": Field(90, 0, 16),
}
PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
IP_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}


class Key(NamedTuple):
    """One field: its name in FIELDS, and its value under its mask."""

    field: str
    value: int
    mask: int


class Flower(NamedTuple):
    """`ethertype` is the filter's protocol; `inner` the one behind a VLAN tag, 0: any. Keys in the order of FIELDS."""

    target: int
    keys: tuple[Key, ...] = ()
    indev: str = ""
    ethertype: int = 0
    inner: int = 0
    actions: tuple[Action, ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What filters of one hash table have in common."""
        return self.ethertype, self.inner, bool(self.indev), tuple((key.field, key.mask) for key in self.keys)


def whole(field: str) -> int:
    """The mask under which all bits of a field count."""
    return (1 << FIELDS[field].bits) - 1


def _order(name: str) -> Literal["big", "little"]:
    """The network's order of bytes, but for the VLAN's id, which netlink carries as a number."""
    return sys.byteorder if name == "vlan_id" else "big"


def _encode(options: Flower) -> bytes:
    data = attribute(CLASSID, u32(options.target)) if options.target else b""
    if options.indev:
        data += attribute(INDEV, string(options.indev))
    if options.ethertype != PROTOCOLS["all"]:
        data += attribute(ETH_TYPE, options.ethertype.to_bytes(2, "big"))
    if options.inner:
        data += attribute(VLAN_ETH_TYPE, options.inner.to_bytes(2, "big"))
    for key in options.keys:
        field = FIELDS[key.field]
        data += attribute(field.value, key.value.to_bytes(-(-field.bits // 8), _order(key.field)))
        if field.mask:
            data += attribute(field.mask, key.mask.to_bytes(-(-field.bits // 8), "big"))
    return data + encode_actions(ACT, options.actions)


def _decode(data: bytes) -> Flower:
    found = attributes(data)
    keys = []
    for name, field in FIELDS.items():
        if field.value not in found:
            continue
        mask = int.from_bytes(found[field.mask], "big") if field.mask in found else whole(name)
        keys.append(Key(name, int.from_bytes(found[field.value], _order(name)), mask))
    return Flower(
        integer(found.get(CLASSID, b"")),
        tuple(keys),
        text(found.get(INDEV, b"")),
        0,  # what the dump says of it depends on the tag; the message's header has it
        int.from_bytes(found.get(VLAN_ETH_TYPE, b""), "big"),
        decode_actions(found.get(ACT, b"")),
    )


def _render(options: Flower) -> str:
    """tc takes ports only after their protocol, and addresses behind a tag only after their family."""
    parts = [f"indev {options.indev}"] if options.indev else []
    if options.inner:
        name = {ETH_P_IP: "ip", ETH_P_IPV6: "ipv6"}.get(options.inner, f"{options.inner:#x}")
        parts.append(f"vlan_ethtype {name}")
    ends: dict[str, int] = {}
    for key in options.keys:
        if key.field.endswith("_min"):
            ends[key.field] = key.value
        elif key.field.endswith("_max"):
            parts.append(f"{key.field[:8]} {ends[key.field[:8] + '_min']}-{key.value}")
        else:
            parts.append(_render_key(key))
    parts += [f"classid {handle_text(options.target)}" if options.target else "", render_actions(options.actions)]
    return " ".join(part for part in parts if part)


def _render_key(key: Key) -> str:
    name, value, partial = key.field, str(key.value), key.mask != whole(key.field)
    if name.startswith("ip") and name[4:5] == "_":
        version = ipaddress.IPv4Address if name[3] == "4" else ipaddress.IPv6Address
        prefix = f"/{key.mask.bit_count()}" if partial else ""
        return f"{name[5:]}_ip {version(key.value)}{prefix}"
    if name.endswith("_mac"):
        text_of = [":".join(f"{part:02x}" for part in number.to_bytes(6, "big")) for number in (key.value, key.mask)]
        return f"{name} {'/'.join(text_of) if partial else text_of[0]}"
    if name == "ip_proto":
        known = (word for word, number in IP_PROTOCOLS.items() if number == key.value)
        return f"ip_proto {next(known, hex(key.value))}"  # tc takes numbers for hexadecimal
    if name in ("ip_tos", "tcp_flags"):
        return f"{name} {key.value:#x}/{key.mask:#x}"
    if name.partition("_")[0] in PORTS.values():
        return f"{name.partition('_')[2]}_port {value}" + (f"/{key.mask:#x}" if partial else "")
    return f"{name} {value}" + (f"/{key.mask}" if partial else "")


# --- what users of the module tc write ---


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
        else:
            keys[name] = value if isinstance(value, tuple) else (value, whole(name))
    if len({name[:4] for name in keys if name.startswith("ipv")}) > 1:
        raise ValueError("src_ip and dst_ip are of different families")
    ordered = tuple(Key(name, *keys[name]) for name in FIELDS if name in keys)
    return Flower(check_target(flowid, action), ordered, indev, 0, vlan_ethtype, action)


def _place_port(keys: dict[str, tuple[int, int]], name: str, value: tuple[str, int, int], protocol: Any) -> None:
    if protocol not in PORTS:
        raise ValueError(f"{name} needs ip_proto tcp, udp or sctp")
    what, first, second = value
    if what == "range":
        keys[f"{name}_min"], keys[f"{name}_max"] = (first, 0xFFFF), (second, 0xFFFF)
    else:
        keys[f"{PORTS[protocol]}_{name[:3]}"] = first, second


def place(options: Flower, protocol: int) -> Flower:
    """The options of a filter for an Ethernet protocol. Raises ValueError where its keys cannot be there."""
    family = next((key.field[:4] for key in options.keys if key.field.startswith("ipv")), "")
    tagged = protocol == ETH_P_8021Q
    about = options.inner if tagged else protocol
    if (options.inner or any(key.field.startswith("vlan") for key in options.keys)) and not tagged:
        raise ValueError("the vlan_ keys need protocol 802.1Q")
    if family and about != {"ipv4": ETH_P_IP, "ipv6": ETH_P_IPV6}[family]:
        key = "vlan_ethtype" if tagged else "protocol"
        raise ValueError(f"its addresses need {key} {'ip' if family == 'ipv4' else 'ipv6'}")
    if any(key.field.startswith(("ip_", "tcp", "udp", "sctp")) for key in options.keys) and about not in (
        ETH_P_IP,
        ETH_P_IPV6,
    ):
        raise ValueError(f"IP keys need {'vlan_ethtype' if tagged else 'protocol'} ip or ipv6")
    return options._replace(ethertype=protocol)


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
        "tcp_flags": schema.leaf(lambda value: _masked(value, 12)),
    },
    _build,
    _encode,
    _decode,
    _render,
)
