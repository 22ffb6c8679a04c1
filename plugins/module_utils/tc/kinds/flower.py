# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flower classifier: dissected fields, looked up in one hash table per mask (net/sched/cls_flower.c, tc-flower(8)).

Unlike u32 it sees ports behind IP options and IPv6 extension headers, and a VLAN tag that the device took out.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Literal, NamedTuple

from ...netlink import attribute, attributes, integer, string, text, u32
from ..model import ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, PROTOCOLS, Raw, handle_text
from .filters import (
    Action,
    decode_actions,
    encode_actions,
    render_actions,
)

CLASSID, INDEV, ACT, ETH_TYPE, FLAGS, VLAN_ETH_TYPE, IN_HW_COUNT = 1, 2, 3, 8, 22, 25, 86  # TCA_FLOWER_*
SKIPS = {"skip_hw": 1, "skip_sw": 2}  # TCA_CLS_FLAGS_*; the kernel adds whether it is in hardware
IP_FLAGS = {"frag": 1, "firstfrag": 2}  # TCA_FLOWER_KEY_FLAGS_*


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
    "ip_flags": Field(47, 48, 32),
    "arp_sip": Field(57, 58, 32),
    "arp_tip": Field(59, 60, 32),
    "arp_op": Field(61, 62, 8),
    "arp_sha": Field(63, 64, 48),
    "arp_tha": Field(65, 66, 48),
    # Ranges of ports are no masks: the kernel tries them one by one, before the table.
    "src_port_min": Field(87, 0, 16),
    "src_port_max": Field(88, 0, 16),
    "dst_port_min": Field(89, 0, 16),
    "dst_port_max": Field(90, 0, 16),
}
PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
IP_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
KNOWN = {CLASSID, INDEV, ACT, ETH_TYPE, FLAGS, VLAN_ETH_TYPE, IN_HW_COUNT}
KNOWN |= {number for field in FIELDS.values() for number in (field.value, field.mask)}


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
    skip: int = 0  # of SKIPS

    @property
    def shape(self) -> tuple[object, ...]:
        """What filters of one hash table have in common."""
        return (
            self.ethertype,
            self.inner,
            bool(self.indev),
            self.skip,
            tuple((key.field, key.mask) for key in self.keys),
        )


def whole(field: str) -> int:
    """The mask under which all bits of a field count."""
    return (1 << FIELDS[field].bits) - 1


def _order(name: str) -> Literal["big", "little"]:
    """The network's order of bytes, but for the VLAN's id, which netlink carries as a number."""
    return sys.byteorder if name == "vlan_id" else "big"


def encode(options: Flower) -> bytes:
    data = attribute(CLASSID, u32(options.target)) if options.target else b""
    if options.indev:
        data += attribute(INDEV, string(options.indev))
    if options.ethertype != PROTOCOLS["all"]:
        data += attribute(ETH_TYPE, options.ethertype.to_bytes(2, "big"))
    if options.inner:
        data += attribute(VLAN_ETH_TYPE, options.inner.to_bytes(2, "big"))
    if options.skip:
        data += attribute(FLAGS, u32(options.skip))
    for key in options.keys:
        field = FIELDS[key.field]
        data += attribute(field.value, key.value.to_bytes(-(-field.bits // 8), _order(key.field)))
        if field.mask:
            data += attribute(field.mask, key.mask.to_bytes(-(-field.bits // 8), "big"))
    return data + encode_actions(ACT, options.actions)


def decode(data: bytes) -> Flower | Raw:
    """Raw where it asks for a key that is not known here."""
    found = attributes(data)
    if not found.keys() <= KNOWN:
        return Raw(data)
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
        integer(found.get(FLAGS, b"")) & sum(SKIPS.values()),
    )


def render(options: Flower) -> str:
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
    parts += [word for word, bit in SKIPS.items() if options.skip & bit]
    parts += [f"classid {handle_text(options.target)}" if options.target else "", render_actions(options.actions)]
    return " ".join(part for part in parts if part)


def _render_key(key: Key) -> str:
    name, value, partial = key.field, str(key.value), key.mask != whole(key.field)
    if name.startswith("ip") and name[4:5] == "_":
        version = ipaddress.IPv4Address if name[3] == "4" else ipaddress.IPv6Address
        prefix = f"/{key.mask.bit_count()}" if partial else ""
        return f"{name[5:]}_ip {version(key.value)}{prefix}"
    if name in ("arp_sip", "arp_tip"):
        return f"{name} {ipaddress.IPv4Address(key.value)}" + (f"/{key.mask.bit_count()}" if partial else "")
    if name == "ip_flags":
        return "ip_flags " + "/".join(
            word if key.value & bit else f"no{word}" for word, bit in IP_FLAGS.items() if key.mask & bit
        )
    if name.endswith(("_mac", "_sha", "_tha")):
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


def place(options: Flower, protocol: int) -> Flower:
    """The options of a filter for an Ethernet protocol. Raises ValueError where its keys cannot be there."""
    family = next((key.field[:4] for key in options.keys if key.field.startswith("ipv")), "")
    tagged = protocol == ETH_P_8021Q
    about = options.inner if tagged else protocol
    if (options.inner or any(key.field.startswith("vlan") for key in options.keys)) and not tagged:
        raise ValueError("the vlan_ keys need protocol 802.1Q")
    if any(key.field.startswith("arp_") for key in options.keys) and about != ETH_P_ARP:
        raise ValueError("the arp_ keys need protocol arp")
    if family and about != {"ipv4": ETH_P_IP, "ipv6": ETH_P_IPV6}[family]:
        key = "vlan_ethtype" if tagged else "protocol"
        raise ValueError(f"its addresses need {key} {'ip' if family == 'ipv4' else 'ipv6'}")
    if any(key.field.startswith(("ip_", "tcp", "udp", "sctp")) for key in options.keys) and about not in (
        ETH_P_IP,
        ETH_P_IPV6,
    ):
        raise ValueError(f"IP keys need {'vlan_ethtype' if tagged else 'protocol'} ip or ipv6")
    return options._replace(ethertype=protocol)
