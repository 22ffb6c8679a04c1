# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node between two others, as three network namespaces: it bridges or routes what goes from `s` to `r`, and back.

s: s0 ── n0 :n: n1 ── r0 :r
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tests.integration.engine import inside, namespace
from tests.integration.places import Netns
from tests.integration.wire import SO_RCVBUFFORCE

ADDRESSES = {
    "bridge": {"s": ("10.7.0.1", "fd07::1"), "r": ("10.7.0.2", "fd07::2")},
    "router": {"s": ("10.7.1.1", "fd07:1::1"), "r": ("10.7.2.1", "fd07:2::1")},
}
GATEWAYS = {"n0": ("10.7.1.2", "fd07:1::2"), "n1": ("10.7.2.2", "fd07:2::2")}
BOUND = 1 << 26  # bytes of a capture that nobody reads yet
PACKET_OUTGOING = 4  # linux/if_packet.h
QUIET = 0.06  # seconds without a packet after which no more are expected


class Frame(NamedTuple):
    """A captured frame and which way it passed."""

    data: bytes
    outgoing: bool


class Path(NamedTuple):
    """The three namespaces."""

    kind: str
    s: Netns
    n: Netns
    r: Netns

    def address(self, end: str, family: int = 4) -> str:
        return ADDRESSES[self.kind][end][family == 6]

    def place(self, end: str) -> Netns:
        return {"s": self.s, "n": self.n, "r": self.r}[end]


@contextmanager
def path(kind: str) -> Iterator[Path]:
    """`bridge` or `router`. Nobody asks for neighbours: all know each other from the beginning."""
    with namespace(0) as s, namespace(0) as n, namespace(0) as r:
        made = Path(kind, s, n, r)
        for place, near, far in ((s, "s0", "n0"), (r, "r0", "n1")):
            n.run(["ip", "link", "add", far, "type", "veth", "peer", "name", near])
            n.run(["ip", "link", "set", near, "netns", place.name])
        _enable(made)
        yield made


def _enable(made: Path) -> None:
    devices = {"s": ["s0"], "n": ["n0", "n1"], "r": ["r0"]}
    for end, names in devices.items():
        place = made.place(end)
        place.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.accept_dad=0"])
        for name in names:
            place.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=0", f"net.ipv6.conf.{name}.accept_dad=0"])
            place.run(["ip", "link", "set", name, "up"])
    for end in ("s", "r"):
        for family, bits in ((4, "24"), (6, "64")):
            made.place(end).run(["ip", "addr", "add", f"{made.address(end, family)}/{bits}", "dev", f"{end}0"])
    if made.kind == "bridge":
        made.n.run(["ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])
        for name in ("n0", "n1"):
            made.n.run(["ip", "link", "set", name, "master", "br0"])
        made.n.run(["ip", "link", "set", "br0", "up"])
        return
    made.n.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    for end, name in (("s", "n0"), ("r", "n1")):
        for family, bits in ((4, "24"), (6, "64")):
            gateway = GATEWAYS[name][family == 6]
            made.n.run(["ip", "addr", "add", f"{gateway}/{bits}", "dev", name])
            words = ["ip", f"-{family}", "route", "add", "default", "via", gateway]
            made.place(end).run(words)


class Capture:
    """Frames that pass an interface from now on, in their order; of IPv4 and IPv6 only."""

    def __init__(self, place: Netns, device: str) -> None:
        with inside(place):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BOUND)
            self._socket.bind((device, 3))

    def frames(self, quiet: float = QUIET) -> list[Frame]:
        """What passed, once nothing more passes."""
        found = []
        while select.select([self._socket], [], [], quiet)[0]:
            data, address = self._socket.recvfrom(1 << 17)
            if data[12:14] in (b"\x08\x00", b"\x86\xdd"):
                found.append(Frame(data, address[2] == PACKET_OUTGOING))
        return found

    def close(self) -> None:
        self._socket.close()


def numbered(frames: Sequence[Frame], port: int) -> list[int]:
    """Numbers in UDP packets to a port, in their order."""
    found = []
    for frame in frames:
        at = 14 + ((frame.data[14] & 15) * 4 if frame.data[12:14] == b"\x08\x00" else 40)
        if struct.unpack_from("!H", frame.data, at + 2)[0] == port:
            found.append(struct.unpack_from("!I", frame.data, at + 8)[0])
    return found


def send(
    made: Path, count: int, port: int, end: str = "s", family: int = 4, first: int = 0, processor: int = 0
) -> None:
    """Numbered UDP packets from one end to the other, as fast as they go; a veth holds none back.

    From one processor, whichever the number means: after a move to another they could overtake those before.
    """
    other = "r" if end == "s" else "s"
    with inside(made.place(end)):
        sender = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[processor % len(processors)]})
    with sender:
        to = (made.address(other, family), port)
        for number in range(first, first + count):
            sender.sendto(struct.pack("!I", number) + bytes(18), to)
    os.sched_setaffinity(0, processors)
