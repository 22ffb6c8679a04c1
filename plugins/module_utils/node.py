# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine has to know about the node it runs on, read from the kernel."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .netlink import IFINFOMSG, RTM_GETLINK, Socket, attributes, integer, link_message, text

IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_INFO_SLAVE_KIND = 3, 10, 18, 4  # linux/if_link.h
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772  # linux/if_arp.h
PINS = "/sys/fs/bpf/impair_testbed"  # the kernel keeps names with dots for itself (kernel/bpf/inode.c, bpf_lookup)
IFB_NAME = re.compile(r"imp[0-9a-f]{12}")  # of an interface that we make for what arrives at another one


class Link(NamedTuple):
    """An interface; `bridge`: whose port it is, "" for none; `ethernet`: its frames begin as Ethernet's do."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    bridge: str = ""
    ethernet: bool = True


def links() -> dict[str, Link]:
    """The interfaces of this network namespace, by name."""
    found, masters = {}, {}
    with Socket() as rtnetlink:
        for body in rtnetlink.dump(link_message(RTM_GETLINK, 0, 0)):
            _family, kind, index, _flags, _change = IFINFOMSG.unpack_from(body)
            link = attributes(body, IFINFOMSG.size)
            name = text(link[IFLA_IFNAME])
            found[name] = Link(index, ethernet=kind in (ARPHRD_ETHER, ARPHRD_LOOPBACK))
            master = attributes(link.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_SLAVE_KIND, b"")
            if text(master) == "bridge":
                masters[name] = integer(link[IFLA_MASTER])
    names = {link.index: name for name, link in found.items()}
    return {
        name: link._replace(bridge=names[masters[name]]) if name in masters else link for name, link in found.items()
    }


def interfaces() -> list[str]:
    """Names of the interfaces in this network namespace."""
    return sorted(name for _index, name in socket.if_nameindex())


def ifb_name(interface: str) -> str:
    """The name, within IFNAMSIZ, of the interface that we make for what arrives at `interface`."""
    return "imp" + hashlib.sha256(interface.encode()).hexdigest()[:12]


def memory() -> int:
    """The node's memory in bytes (proc(5), MemTotal)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def controller() -> str | None:
    """The address that the ssh connection which carries this call comes from; None where there is none.

    sshd sets SSH_CONNECTION (sshd(8)); privilege escalation drops it, so the ancestors are asked too.
    """
    for environment in _environments():
        connection = environment.get("SSH_CONNECTION", "").split()
        if connection:
            try:
                address = ipaddress.ip_address(connection[0].partition("%")[0])
            except ValueError:  # sshd behind a pipe knows no address and says UNKNOWN
                return None
            mapped = getattr(address, "ipv4_mapped", None)
            return None if address.is_loopback else str(mapped or address)
    return None


def _environments() -> Iterator[dict[str, str]]:
    """Our environment, then that of each ancestor."""
    yield dict(os.environ)
    process = os.getppid()
    while process > 1:
        folder = Path("/proc", str(process))
        try:
            raw = (folder / "environ").read_bytes().decode(errors="replace")
            status = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        yield dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
        process = int(status.rpartition(")")[2].split()[1])
