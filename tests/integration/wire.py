# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A veth pair in this kernel: numbered frames go in at one end, and are counted and timed at the other."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

NEAR, FAR = "eth0", "far"
ETHERTYPE = 0x88B5  # IEEE 802, for experiments
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33  # asm-generic/socket.h
QUIET = 0.15  # seconds without a packet after which no more are expected
FULL = 1514  # bytes
SOURCE, OTHER_SOURCE = "02:00:00:00:00:01", "02:00:00:00:00:99"


class Arrival(NamedTuple):
    """A packet at the far end: its number, its length, the kernel's time, and the last byte of its MAC."""

    number: int
    length: int
    ns: int
    source: int

    @property
    def at(self) -> float:
        """Seconds."""
        return self.ns / 1e9


def sh(*lines: str) -> str:
    """What a shell prints."""
    done = subprocess.run(["sh", "-e"], input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Wire:
    """Raw sockets at interfaces of this kernel. What is received there has passed everything that holds it up."""

    def __init__(self, *names: str) -> None:
        self._sockets = {name: self._socket(name) for name in names}

    @staticmethod
    def _socket(name: str) -> socket.socket:
        """Of one protocol: a socket for all of them sees packets before the ingress queue."""
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        made.bind((name, ETHERTYPE))
        return made

    def send(self, count: int, size: int = FULL, at: str = NEAR, source: str = SOURCE, first: int = 0) -> None:
        """Frames with a number each, all at once."""
        for number in range(first, first + count):
            head = b"\xff" * 6 + bytes.fromhex(source.replace(":", "")) + struct.pack("!HI", ETHERTYPE, number)
            with contextlib.suppress(OSError):  # ENOBUFS: how the kernel tells a local sender of a drop
                self._sockets[at].send(head + bytes(size - len(head)))

    def receive(self, at: str = FAR, quiet: float = QUIET, most: int = 1_000_000) -> list[Arrival]:
        """What came, until nothing more comes, or so many packets are there."""
        found: list[Arrival] = []
        end = self._sockets[at]
        while len(found) < most and select.select([end], [], [], quiet)[0]:
            frame, extra, _flags, _address = end.recvmsg(2048, 64)
            seconds, nanoseconds = struct.unpack("=qq", extra[0][2])
            number = struct.unpack_from("!I", frame, 14)[0]
            found.append(Arrival(number, len(frame), seconds * 10**9 + nanoseconds, frame[11]))
        return found

    def burst(self, count: int, size: int = FULL, at: str = NEAR, quiet: float = QUIET) -> list[Arrival]:
        """Frames into one end, and what came out of the other."""
        self.send(count, size, at)
        return self.receive(FAR if at == NEAR else NEAR, quiet)


def numbers(arrivals: Sequence[Arrival]) -> list[int]:
    return [arrival.number for arrival in arrivals]


# A burst meets a rate at which a packet takes 120 ms: the kernel may be halted for nearly as long while it is sent.
SLOW = {FULL: {"rate": "100kbit", "burst": "1600B"}, 100: {"rate": "6600bit", "burst": "1600B"}}
AT_ONCE = {FULL: 2, 100: 17}  # what a burst of 1600 bytes lets pass; the last one overdraws it


def fill(wire: Wire, device: str, size: int = FULL, at: str = NEAR) -> list[int]:
    """Numbers of what is left of 200 frames that a slow class got at once. Then it is made fast, by tc, to see them."""
    wire.send(200, size, at)
    deadline = time.monotonic() + 0.3  # not every buffer drops
    while time.monotonic() < deadline and not re.search(r"dropped [1-9]", sh(f"tc -s qdisc show dev {device}")):
        pass
    shown = sh(f"tc class show dev {device}")
    (classid,) = re.findall(r"class htb (\S+) parent .* rate (?:100Kbit|6600bit)", shown)
    sh(f"tc class change dev {device} parent 7e57:1 classid {classid} htb rate 1gbit quantum 1514")
    return numbers(wire.receive(FAR if at == NEAR else NEAR, quiet=0.2))
