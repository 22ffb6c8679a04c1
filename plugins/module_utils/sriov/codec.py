# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of VFs as bytes of rtnetlink: IFLA_VFINFO_LIST and what is in it (linux/if_link.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..netlink import (
    IFINFOMSG,
    RTM_GETLINK,
    RTM_NEWLINK,
    Message,
    Socket,
    attribute,
    attributes,
    each_attribute,
    link_message,
    nested,
    string,
    text,
    u32,
)
from .model import LINK_STATES, Vf

IFLA_IFNAME, IFLA_VFINFO_LIST, IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_PARENT_DEV_NAME = 3, 22, 28, 29, 56
IFLA_VF_INFO = 1
IFLA_VF_MAC, IFLA_VF_VLAN, IFLA_VF_SPOOFCHK, IFLA_VF_LINK_STATE, IFLA_VF_RATE, IFLA_VF_TRUST = 1, 2, 4, 5, 6, 9
RTEXT_FILTER_VF, RTEXT_FILTER_SKIP_STATS = 1, 8  # linux/rtnetlink.h
UNKNOWN = 0xFFFFFFFF  # rtnl_fill_vfinfo: what a driver does not report is -1
_MAC, _VLAN, _RATE, _SETTING = (struct.Struct(layout) for layout in ("=I32s", "=III", "=III", "=II"))


def links(rtnetlink: Socket) -> Iterator[tuple[int, dict[int, bytes]]]:
    """(index, attributes) of each interface of this namespace, with its VFs."""
    mask = attribute(IFLA_EXT_MASK, u32(RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS))
    for body in rtnetlink.dump(link_message(RTM_GETLINK, 0, 0, mask)):
        yield IFINFOMSG.unpack_from(body)[2], attributes(body, IFINFOMSG.size)


def name(link: dict[int, bytes]) -> str:
    return text(link[IFLA_IFNAME])


def device(link: dict[int, bytes]) -> str:
    """The bus's name of the device behind an interface, such as 0000:01:10.0 (since Linux 5.14)."""
    return text(link.get(IFLA_PARENT_DEV_NAME, b""))


def settings(link: dict[int, bytes]) -> dict[int, Vf]:
    """The VFs of an interface by their number."""
    found = {}
    for _kind, info in each_attribute(link.get(IFLA_VFINFO_LIST, b"")):
        parts = attributes(info)
        number, address = _MAC.unpack_from(parts[IFLA_VF_MAC])
        _number, vlan, qos = _VLAN.unpack_from(parts[IFLA_VF_VLAN])
        _number, least, most = _RATE.unpack_from(parts[IFLA_VF_RATE]) if IFLA_VF_RATE in parts else (number, 0, 0)
        state = _setting(parts, IFLA_VF_LINK_STATE)
        found[number] = Vf(
            address[:6].hex(":"),
            vlan,
            qos,
            least,
            most,
            _switch(_setting(parts, IFLA_VF_SPOOFCHK)),
            _switch(_setting(parts, IFLA_VF_TRUST)),
            LINK_STATES[state] if state is not None and state < len(LINK_STATES) else None,
        )
    return found


def _setting(parts: dict[int, bytes], kind: int) -> int | None:
    value = _SETTING.unpack_from(parts[kind])[1] if kind in parts else UNKNOWN
    return None if value == UNKNOWN else int(value)


def _switch(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def mac(number: int, address: str) -> bytes:
    return attribute(IFLA_VF_MAC, _MAC.pack(number, bytes.fromhex(address.replace(":", ""))))


def vlan(number: int, tag: int, qos: int) -> bytes:
    return attribute(IFLA_VF_VLAN, _VLAN.pack(number, tag, qos))


def rate(number: int, least: int, most: int) -> bytes:
    return attribute(IFLA_VF_RATE, _RATE.pack(number, least, most))


def spoofchk(number: int, value: bool) -> bytes:
    return attribute(IFLA_VF_SPOOFCHK, _SETTING.pack(number, value))


def trust(number: int, value: bool) -> bytes:
    return attribute(IFLA_VF_TRUST, _SETTING.pack(number, value))


def state(number: int, value: str) -> bytes:
    return attribute(IFLA_VF_LINK_STATE, _SETTING.pack(number, LINK_STATES.index(value)))


def change(ifindex: int, *parts: bytes) -> Message:
    """Set something of one VF of an interface."""
    return link_message(RTM_NEWLINK, 0, ifindex, nested(IFLA_VFINFO_LIST, nested(IFLA_VF_INFO, *parts)))


def move(ifindex: int, space: int, new_name: str | None) -> Message:
    """Give an interface to the namespace of a descriptor, under a name of its own there; it has to be down."""
    payload = attribute(IFLA_NET_NS_FD, u32(space)) + (attribute(IFLA_IFNAME, string(new_name)) if new_name else b"")
    return link_message(RTM_NEWLINK, 0, ifindex, payload)
