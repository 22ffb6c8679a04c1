# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace that exists only for the length of a `with` block.

Whatever is tried there (rules, qdiscs, links) can neither disturb the node nor stay behind.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingCapability

CLONE_NEWNET = 0x40000000  # linux/sched.h
SO_NETNS_COOKIE = 71  # asm-generic/socket.h


@contextmanager
def throwaway_namespace(what: str) -> Iterator[None]:
    """Run the block, and the programs it starts, in an empty network namespace; the thread comes back in any case.

    Only the calling thread moves. The kernel destroys the namespace when the last program and socket in it are
    gone. `what` names the purpose in the error: MissingCapability where the kernel or the caller's rights lack it.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter_new(what)
        try:
            yield
        finally:
            _libc_call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Run the block in the network namespace of a file; sockets that it opens stay there. Raises OSError."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _libc_call("setns", there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _libc_call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


def _enter_new(what: str) -> None:
    try:
        _libc_call("unshare", CLONE_NEWNET)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise MissingCapability(what, "root's rights (CAP_SYS_ADMIN)", "set `become: true`") from error
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise MissingCapability(what, "network namespaces (CONFIG_NET_NS)") from error
        raise MissingCapability(what, f"a new network namespace ({error.strerror})") from error


def _libc_call(function: str, *arguments: int) -> None:
    """os.unshare and os.setns came with Python 3.12; nodes may have 3.10."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def number() -> int:
    """The number of the network namespace that we are in; no other one has had it since the machine was started.

    Before Linux 5.14 there is none but that of its file, which a namespace to come may have again.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            return int.from_bytes(asking.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError:
            return os.stat("/proc/thread-self/ns/net").st_ino
