# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cable between two nodes: carries packets, each as it was sent and in order.

Each end listens on a unix socket; a node's driver connects when its interface goes up and closes when it goes down, as
often as it likes. (A socketpair handed over as a descriptor would do without this process, but User-Mode-Linux closes
the descriptor at the first `ip link set … down` and cannot open it again.) Nothing is dropped where both ends are
connected: a reader that lags stops the writer. What is sent to an unplugged end is lost, as on a cable.

User-Mode-Linux connects to the path itself, a socket of packets. QEMU knows byte streams only, where each packet stands
behind its length (net/stream.c): it connects to the path with `.stream` behind it.

Standard library only, as keeper.py: it runs from the run directory. Usage: wire.py SOCKET SOCKET
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import sys
import threading

BATCH = 64  # packets a system call, the same as UML's own vector
PACKET = 66000  # bytes, more than any MTU of a node
BUFFER = 4 << 20  # bytes of send buffer towards a node
STREAM_BUFFER = 1 << 19  # the same towards QEMU: what is in there while the guest's interface is down comes late
MSG_WAITFORONE = 0x10000
HEADER = struct.Struct(">I")  # a packet's length on a stream
SLOT = HEADER.size + PACKET
PATIENCE = 5000  # milliseconds

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
    """Room for one system call's worth of packets, each with room for its length before it."""

    def __init__(self) -> None:
        self.space = ctypes.create_string_buffer(BATCH * SLOT)
        self.view = memoryview(self.space).cast("B")
        self.base = ctypes.addressof(self.space)
        self.vectors = (Iovec * BATCH)()
        self.messages = (Message * BATCH)()
        for message, vector in zip(self.messages, self.vectors):
            message.iov = ctypes.pointer(vector)
            message.iovlen = 1

    def put(self, number: int, start: int, length: int) -> None:
        """The packet with this number stands there."""
        vector = self.vectors[number]
        vector.base, vector.length = self.base + start, length

    def send(self, descriptor: int, count: int) -> None:
        """All of them, waiting where the node lags; gives up where it has closed."""
        done = 0
        while done < count:
            sent = libc.sendmmsg(descriptor, ctypes.byref(self.messages[done]), count - done, socket.MSG_NOSIGNAL)
            if sent < 0:
                return
            done += sent


class Packets:
    """A node that sends and takes packets as such."""

    buffer = BUFFER

    def __init__(self, node: socket.socket) -> None:
        self.node = node

    def receive(self, batch: Batch) -> int:
        """How many packets came; 0 where the other side has closed."""
        for number in range(BATCH):
            batch.put(number, number * SLOT + HEADER.size, PACKET)
        count = max(libc.recvmmsg(self.node.fileno(), batch.messages, BATCH, MSG_WAITFORONE, None), 0)
        for number in range(count):
            length = batch.messages[number].received
            if length == 0:  # end of file comes as an empty packet
                return number
            batch.vectors[number].length = length
        return count

    def send(self, batch: Batch, count: int) -> None:
        batch.send(self.node.fileno(), count)


class Stream:
    """A node that sends and takes bytes: packets behind their lengths."""

    buffer = STREAM_BUFFER

    def __init__(self, node: socket.socket) -> None:
        self.node = node
        self.first = self.last = 0  # bytes of the batch's room that came and were not handed on yet
        self.room = select.poll()
        self.room.register(node, select.POLLOUT)
        self.patience = PATIENCE

    def receive(self, batch: Batch) -> int:
        """How many packets came whole; 0 where the other side has closed."""
        while True:
            count = self._whole(batch)
            if count:
                return count
            batch.view[: self.last - self.first] = batch.view[self.first : self.last]
            self.first, self.last = 0, self.last - self.first
            try:
                came = self.node.recv_into(batch.view[self.last :])
            except OSError:
                return 0
            if came == 0:
                return 0
            self.last += came

    def _whole(self, batch: Batch) -> int:
        count = 0
        while count < BATCH and self.last - self.first >= HEADER.size:
            (length,) = HEADER.unpack_from(batch.view, self.first)
            if self.last - self.first < HEADER.size + length:
                break
            batch.put(count, self.first + HEADER.size, length)
            self.first += HEADER.size + length
            count += 1
        return count

    def send(self, batch: Batch, count: int) -> None:
        """QEMU stops reading while the guest's interface is down: then packets are lost, as on a cable.

        There is room for a whole batch where poll says so, as it does from three quarters of the buffer on.
        """
        if not self.room.poll(self.patience):
            self.patience = 0
            return
        self.patience = PATIENCE
        for vector in batch.vectors[:count]:
            vector.base -= HEADER.size
            HEADER.pack_into(batch.view, vector.base - batch.base, vector.length)
            vector.length += HEADER.size
        batch.send(self.node.fileno(), count)


class End:
    """One end of the cable: nobody or one node is plugged in."""

    def __init__(self, path: str) -> None:
        self.listening = select.poll()
        self.listeners: dict[int, tuple[socket.socket, type[Packets] | type[Stream]]] = {}
        # The path itself comes last: the keeper waits for it.
        self._listen(f"{path}.stream", socket.SOCK_STREAM, Stream)
        self._listen(path, socket.SOCK_SEQPACKET, Packets)
        self.plugged: Packets | Stream | None = None
        self.lock = threading.Lock()

    def _listen(self, path: str, kind: socket.SocketKind, plug: type[Packets] | type[Stream]) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(path)
        listener.listen(4)
        self.listeners[listener.fileno()] = listener, plug
        self.listening.register(listener, select.POLLIN)

    def plug(self) -> Packets | Stream:
        listener, plug = self.listeners[self.listening.poll()[0][0]]
        node = listener.accept()[0]
        node.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, plug.buffer)
        with self.lock:
            self.plugged = plug(node)
        return self.plugged

    def unplug(self) -> None:
        with self.lock:
            if self.plugged is not None:
                self.plugged.node.close()
            self.plugged = None


def carry(here: End, there: End) -> None:
    """One direction, for ever."""
    batch = Batch()
    while True:
        node = here.plug()
        while count := node.receive(batch):
            with there.lock:
                if there.plugged is not None:
                    there.plugged.send(batch, count)
        here.unplug()


def main() -> None:
    ends = [End(path) for path in sys.argv[1:3]]
    sys.stderr.write(f"carrying between {sys.argv[1]} and {sys.argv[2]}: pid {os.getpid()}\n")
    other = threading.Thread(target=carry, args=(ends[1], ends[0]), daemon=True)
    other.start()
    carry(ends[0], ends[1])


if __name__ == "__main__":
    main()
