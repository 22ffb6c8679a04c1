# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probes are to see, and where the kernel has it: struct limits of files/bpf/observe.c. Knows no BPF call."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from ..bpf import btf
from ..errors import InvalidInput, MissingCapability

TYPES = "/sys/kernel/btf/vmlinux"
LAYOUT = struct.Struct("=QQ5I3I8III16s")
SOCK = "sock.__sk_common."
# Members in the order of struct limits; the last one is a place in sk_buff.cb.
PLACES = (
    "task_struct.nsproxy",
    "nsproxy.net_ns",
    "net.ns.inum",
    f"{SOCK}skc_net.net",
    f"{SOCK}skc_family",
    f"{SOCK}skc_num",
    f"{SOCK}skc_dport",
    f"{SOCK}skc_rcv_saddr",
    f"{SOCK}skc_daddr",
    f"{SOCK}skc_v6_rcv_saddr",
    f"{SOCK}skc_v6_daddr",
)
BUFFER, SEGMENTS = "sk_buff.cb", "tcp_skb_cb.tcp_gso_segs"
FAILURE = "trace_event_raw_tcp_retransmit_skb.err"
OPTIONAL = (f"{SOCK}skc_v6_rcv_saddr", f"{SOCK}skc_v6_daddr")  # kernels without IPv6


class Limits(NamedTuple):
    """`ports` of services, none: of each connection that is opened; `address` of either end, "": any.

    `chosen`: system calls of chosen processes only, else of all in this network namespace and PID namespace.
    """

    ports: tuple[int, ...] = ()
    address: str = ""
    chosen: bool = True


def parse(ports: Sequence[int], address: str | None, chosen: bool) -> Limits:
    """Raises InvalidInput."""
    for index, port in enumerate(ports):
        if not 1 <= port <= 65535:
            raise InvalidInput(f"ports[{index}]", port, "a port is 1 to 65535")
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidInput("address", address, "write an IPv4 or IPv6 address, without a mask") from None
    return Limits(tuple(dict.fromkeys(ports)), address or "", chosen)


def pack(limits: Limits, places: Sequence[int]) -> bytes:
    """The value of the map, for the namespaces that we are in; `places`: of `members`, or zeros."""
    spaces = os.stat("/proc/thread-self/ns/pid")
    network = os.stat("/proc/thread-self/ns/net").st_ino
    flags = (int(limits.chosen), int(not limits.ports), int(not limits.address))
    return LAYOUT.pack(
        os.minor(spaces.st_dev),  # as the kernel has it: nsfs is of the major number 0
        spaces.st_ino,
        network,
        os.getpid(),
        *flags,
        *places,
        0,
        _mapped(limits.address),
    )


def no_places() -> tuple[int, ...]:
    return (0,) * (len(PLACES) + 1)


def members(what: str) -> tuple[int, ...]:
    """Places of the kernel's members in bytes, as `pack` takes them. Raises MissingCapability."""
    try:
        return chosen(_offsets(TYPES), what)
    except OSError:
        raise MissingCapability(what, "the kernel's own types (CONFIG_DEBUG_INFO_BTF)") from None


def tells_failures() -> bool:
    """Whether the kernel tells also of segments that it could not send again (since Linux 6.16). Raises OSError."""
    return FAILURE in _offsets(TYPES)


@cache
def _offsets(path: str) -> dict[str, int]:
    """Half a second of reading."""
    with open(path, "rb") as file:
        return btf.offsets(file.read(), (*PLACES, BUFFER, SEGMENTS, FAILURE))


def chosen(found: Mapping[str, int], what: str) -> tuple[int, ...]:
    """Of BTF's answer. Raises MissingCapability where the kernel has something else in this place."""
    for path in (*PLACES, BUFFER, SEGMENTS):
        if path not in found and path not in OPTIONAL:
            raise MissingCapability(what, f"a kernel with the member {path}")
    return (*(found.get(path, 0) for path in PLACES), found[BUFFER] + found[SEGMENTS])


def _mapped(address: str) -> bytes:
    """IPv4 as IPv6 writes it."""
    if not address:
        return bytes(16)
    found = ipaddress.ip_address(address)
    return found.packed if found.version == 6 else bytes(10) + b"\xff\xff" + found.packed
