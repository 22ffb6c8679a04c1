# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the interface of a VF is: in this namespace, or in one that has a name (ip-netns(8))."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..namespace import entered
from ..netlink import Socket
from . import codec

NAMED = Path("/run/netns")
APPEARS_WITHIN = 20.0  # seconds: some drivers make their interface after they took the device (iavf)


class Place(NamedTuple):
    """`space` is the namespace's name, "" for ours."""

    space: str
    name: str
    index: int  # type: ignore[assignment]  # hides tuple.index


def index(interface: str) -> int:
    return socket.if_nametoindex(interface)


def find(address: str) -> Place | None:
    """The interface of the device with this address."""
    return _here(address, "") or next(filter(None, (_there(address, path) for path in _spaces())), None)


def _spaces() -> list[Path]:
    return sorted(NAMED.iterdir()) if NAMED.is_dir() else []


def _there(address: str, path: Path) -> Place | None:
    try:
        with entered(str(path)):
            return _here(address, path.name)
    except OSError:  # it has just gone, or is no namespace
        return None


def _here(address: str, space: str) -> Place | None:
    with Socket() as rtnetlink:
        for number, link in codec.links(rtnetlink):
            if codec.device(link) == address:
                return Place(space, codec.name(link), number)
    return None


def move(address: str, space: str, name: str | None) -> None:
    """Give the interface of a device to a namespace, "" for ours; it is made where it is missing. Raises OSError.

    Driver and kernel may take a moment to make the interface.
    """
    end = time.monotonic() + APPEARS_WITHIN
    while (place := find(address)) is None:
        if time.monotonic() > end:
            raise OSError(errno.ENODEV, f"{address} has no interface after {APPEARS_WITHIN:.0f} s; see dmesg")
        time.sleep(0.05)
    if space and not (NAMED / space).exists():
        programs.run(["ip", "netns", "add", space])
    target = os.open(NAMED / space if space else "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if place.space:
            with entered(str(NAMED / place.space)):
                _send(place.index, target, name)
        else:
            _send(place.index, target, name)
    finally:
        os.close(target)


def _send(number: int, target: int, name: str | None) -> None:
    with Socket() as rtnetlink:
        rtnetlink.request(codec.move(number, target, name))
