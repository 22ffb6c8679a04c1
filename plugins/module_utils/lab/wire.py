# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cable between two nodes: carries packets, each as it was sent and in order, between two packet sockets.

Each end listens on a unix socket; a node's driver connects when its interface goes up and closes when it goes down, as
often as it likes. (A socketpair handed over as a descriptor would do without this process, but User-Mode-Linux closes
the descriptor at the first `ip link set … down` and cannot open it again.) Nothing is dropped where both ends are
connected: a reader that lags stops the writer. What is sent to an unplugged end is lost, as on a cable.

Standard library only, as keeper.py: it runs from the run directory. Usage: wire.py SOCKET SOCKET
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading

BATCH = 64  # packets a system call, the same as UML's own vector
PACKET = 66000  # bytes, more than any MTU of a node
BUFFER = 4 << 20  # bytes of send buffer towards a node
MSG_WAITFORONE = 0x10000

libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """struct mmsghdr of recvmmsg(2) on 64-bit Linux."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("received", ctypes.c_uint),
    ]


class Batch:
    """Room for one system call's worth of packets."""

    def __init__(self) -> None:
        self.space = ctypes.create_string_buffer(BATCH * PACKET)
        base = ctypes.addressof(self.space)
        self.vectors = (Iovec * BATCH)(*[Iovec(base + n * PACKET, PACKET) for n in range(BATCH)])
        self.messages = (Message * BATCH)()
        for message, vector in zip(self.messages, self.vectors):
            message.iov = ctypes.pointer(vector)
            message.iovlen = 1

    def receive(self, descriptor: int) -> int:
        """How many packets came; 0 where the other side has closed."""
        count = libc.recvmmsg(descriptor, self.messages, BATCH, MSG_WAITFORONE, None)
        for n in range(max(count, 0)):
            length = self.messages[n].received
            if length == 0:  # end of file comes as an empty packet
                return n
            self.vectors[n].length = length
        return max(count, 0)

    def send(self, descriptor: int, count: int) -> None:
        """All of them, waiting where the node lags; gives up where it has closed."""
        done = 0
        while done < count:
            sent = libc.sendmmsg(descriptor, ctypes.byref(self.messages[done]), count - done, socket.MSG_NOSIGNAL)
            if sent < 0:
                return
            done += sent

    def reset(self, count: int) -> None:
        for n in range(count):
            self.vectors[n].length = PACKET


class End:
    """One end of the cable: nobody or one node is plugged in."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(4)
        self.plugged: socket.socket | None = None
        self.lock = threading.Lock()

    def plug(self) -> socket.socket:
        node = self.listener.accept()[0]
        node.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        with self.lock:
            self.plugged = node
        return node

    def unplug(self) -> None:
        with self.lock:
            if self.plugged is not None:
                self.plugged.close()
            self.plugged = None


def carry(here: End, there: End) -> None:
    """One direction, for ever."""
    batch = Batch()
    while True:
        node = here.plug()
        while True:
            count = batch.receive(node.fileno())
            if count == 0:
                break
            with there.lock:
                if there.plugged is not None:
                    batch.send(there.plugged.fileno(), count)
            batch.reset(count)
        here.unplug()


def main() -> None:
    ends = [End(path) for path in sys.argv[1:3]]
    sys.stderr.write(f"carrying between {sys.argv[1]} and {sys.argv[2]}: pid {os.getpid()}\n")
    other = threading.Thread(target=carry, args=(ends[1], ends[0]), daemon=True)
    other.start()
    carry(ends[0], ends[1])


if __name__ == "__main__":
    main()
