# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other network namespaces of this machine, by the ids that this one has for them (ip-netns(8), `ip netns list-id`).

An id alone lets us read there, but not write: with IFLA_TARGET_NETNSID the kernel would move an interface of ours there
(net/core/rtnetlink.c, do_setlink). So the namespace is looked for among those that have a name or a process.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from .namespace import entered
from .netlink import HEADER, NLM_F_REQUEST, NLMSG_ERROR, RECEIVE_BYTES, Socket, attribute, attributes, u32

RTM_GETNSID, NETNSA_NSID, NETNSA_FD = 90, 1, 3  # linux/rtnetlink.h, linux/net_namespace.h
_RTGENMSG = struct.Struct("=Bxxx")
NAMED = "/run/netns"


def socket_in(identity: int) -> Socket | None:
    """A socket in the namespace with this id; None where nobody is found there, or we have no right to enter it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        for file in _files():
            try:
                if _identity(asking, file) == identity:
                    with entered(file):
                        return Socket()
            except OSError:  # it ended meanwhile, or is another user's
                continue
    return None


def _files() -> Iterator[str]:
    """One file for each namespace: those with names, then those of processes."""
    seen = set()
    named = [f"{NAMED}/{name}" for name in _entries(NAMED)]
    for file in (*named, *(f"/proc/{entry}/ns/net" for entry in _entries("/proc") if entry.isdigit())):
        try:
            number = os.stat(file).st_ino
        except OSError:  # no process, or one that ended
            continue
        if number not in seen:
            seen.add(number)
            yield file


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _identity(asking: socket.socket, file: str) -> int:
    """-1: our namespace has no id for it."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        body = _RTGENMSG.pack(socket.AF_UNSPEC) + attribute(NETNSA_FD, u32(descriptor))
        asking.send(HEADER.pack(HEADER.size + len(body), RTM_GETNSID, NLM_F_REQUEST, 0, 0) + body)
        data = asking.recv(RECEIVE_BYTES)
    finally:
        os.close(descriptor)
    if HEADER.unpack_from(data)[1] == NLMSG_ERROR:
        return -1
    found = attributes(data, HEADER.size + _RTGENMSG.size).get(NETNSA_NSID, b"")
    return int(struct.unpack("=i", found)[0]) if found else -1
