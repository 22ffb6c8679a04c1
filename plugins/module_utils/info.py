# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node is, for people and playbooks: interfaces, versions, program variants, and what we hold there."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct
from collections.abc import Mapping
from typing import Any

from . import netlink as nl
from .chains.domain import owned
from .chains.variants import FAMILIES, choose
from .errors import MissingCapability
from .programs import find, run
from .usb import drivers

_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO = 1, 3, 4, 10, 18  # linux/if_link.h
_IFF_UP = 1
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"gro": 0x2B, "gso": 0x23, "tso": 0x1E}  # ETHTOOL_GGRO, GGSO, GTSO; linux/ethtool.h
_VERSIONS = {"iproute2": ("tc", "-V"), "iptables": ("iptables", "-V"), "ebtables": ("ebtables", "-V")}


def node(capabilities: Mapping[str, bool | str]) -> dict[str, Any]:
    """Everything at once; nothing is written."""
    return {
        "capabilities": {**capabilities, **drivers.capabilities()},
        "interfaces": interfaces(),
        "rules": rules(),
        "owned": [line for domain in owned(capabilities) for line in domain.describe(domain.observe())],
        "variants": variants(capabilities),
        "versions": versions(),
    }


def interfaces() -> list[dict[str, Any]]:
    """Interfaces in the order of the kernel, each with its master (a bridge, say), offloads and top qdiscs."""
    with nl.Socket() as kernel:
        bodies = kernel.dump(nl.link_message(nl.RTM_GETLINK, 0, 0))
        qdiscs = _qdiscs(kernel)
    names = {}
    for body in bodies:
        _family, _type, index, _flags, _change = nl.IFINFOMSG.unpack_from(body)
        names[index] = nl.text(nl.attributes(body, nl.IFINFOMSG.size)[_IFNAME])
    return [_interface(body, names, qdiscs) for body in bodies]


def rules() -> list[dict[str, Any]]:
    """What the rules of BPF programs of ours have counted."""
    from .tc import hooks

    with nl.Socket() as kernel:
        programs = hooks.programs(kernel)
    if not programs:
        return []
    from .bpf.counters import counted
    from .bpf.rules import RulesDomain

    return counted(RulesDomain(programs))


def variants(capabilities: Mapping[str, bool | str]) -> dict[str, str | None]:
    """The variant that our modules would use for each family; None where no program works."""
    chosen: dict[str, str | None] = {}
    for family in FAMILIES:
        try:
            chosen[family] = choose(capabilities, family).variant
        except MissingCapability:
            chosen[family] = None
    return chosen


def versions() -> dict[str, str]:
    """Versions of the kernel, of Python, and of the programs that are installed."""
    found = {"kernel": os.uname().release, "python": platform.python_version()}
    for name, argv in _VERSIONS.items():
        if find(argv[0]) is not None:
            found[name] = run(argv).stdout.strip()
    return found


def _interface(body: bytes, names: Mapping[int, str], qdiscs: Mapping[int, list[str]]) -> dict[str, Any]:
    _family, _type, index, flags, _change = nl.IFINFOMSG.unpack_from(body)
    attributes = nl.attributes(body, nl.IFINFOMSG.size)
    master = nl.integer(attributes[_MASTER]) if _MASTER in attributes else 0
    return {
        "name": names[index],
        "address": attributes.get(_ADDRESS, b"").hex(":"),
        "kind": nl.text(nl.attributes(attributes.get(_LINKINFO, b"")).get(1, b"")) or None,
        "master": names.get(master),
        "mtu": nl.integer(attributes[_MTU]),
        "up": bool(flags & _IFF_UP),
        "offloads": _offloads(names[index]),
        "qdiscs": qdiscs.get(index, []),
    }


def _qdiscs(kernel: nl.Socket) -> dict[int, list[str]]:
    """Per interface, the qdiscs at the root and at ingress, as `kind handle:`."""
    found: dict[int, list[str]] = {}
    for body in kernel.dump(nl.tc_message(nl.RTM_GETQDISC, 0, 0, 0, 0)):
        _family, index, handle, parent, _info = nl.TCMSG.unpack_from(body)
        if parent in (0xFFFFFFFF, 0xFFFFFFF1):  # TC_H_ROOT, TC_H_INGRESS
            kind = nl.text(nl.attributes(body, nl.TCMSG.size)[1])
            found.setdefault(index, []).append(f"{kind} {handle >> 16:x}:")
    return found


def _offloads(interface: str) -> dict[str, bool]:
    """Offloads that merge packets; one that the driver does not know is left out."""
    state = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for name, command in _OFFLOADS.items():
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
            try:
                fcntl.ioctl(handle, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), ctypes.addressof(value)))
            except OSError:
                continue
            state[name] = struct.unpack("=II", value.raw)[1] != 0
    return state
