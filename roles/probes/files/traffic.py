# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and answers over many TCP connections; needs nothing but Python.

    python3 traffic.py server 32 ping 16 0.0.0.0:23324
    python3 traffic.py client 32 echo 16 10.0.1.3:23324 --seconds 5

Both sides are told the same mode and size: echo gives a request's bytes back, ping answers with four. Each connection
has one request under way. The client prints what it saw as JSON: times in microseconds, from before the request is
handed to the kernel until the whole answer was taken from it.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time

ANSWER = b"pong"
CONNECT = 10  # seconds
STUCK = 30  # seconds without any answer
CHUNK = 1 << 16
PERCENTILES = (50, 90, 99)


def place(text: str) -> tuple[str, int]:
    """10.0.0.1:80 or [fd00::1]:80."""
    host, _colon, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def reset_at_close(connection: socket.socket) -> None:
    """SO_LINGER of 0 s: closing sends RST in the place of FIN, and leaves no TIME_WAIT (socket(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    """Answers each request once it is whole."""

    def __init__(self, asked: argparse.Namespace) -> None:
        host, port = place(asked.address)
        self.asked = asked
        self.selector = selectors.DefaultSelector()
        both = host == "::" and socket.has_dualstack_ipv6()
        backlog = max(asked.connections, 128)
        self.listener = socket.create_server((host, port), family=family(host), backlog=backlog, dualstack_ipv6=both)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.waiting: dict[socket.socket, int] = {}  # bytes of the request that are here
        self.unsent: dict[socket.socket, bytearray] = {}

    def serve(self) -> None:
        while True:
            for key, events in self.selector.select():
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                connection = key.fileobj
                try:
                    if events & selectors.EVENT_READ:
                        self.read(connection)
                    if connection in self.unsent:
                        self.write(connection)
                except OSError:  # the other side has gone; Python ignores SIGPIPE
                    self.close(connection)

    def accept(self) -> None:
        try:
            connection, _address = self.listener.accept()
        except OSError:  # gone before it was taken
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.asked.linger:
            reset_at_close(connection)
        self.waiting[connection] = 0
        self.unsent[connection] = bytearray()
        self.selector.register(connection, selectors.EVENT_READ)

    def read(self, connection: socket.socket) -> None:
        data = connection.recv(CHUNK)
        if not data:
            self.close(connection)
            return
        whole, self.waiting[connection] = divmod(self.waiting[connection] + len(data), self.asked.size)
        answer = ANSWER if self.asked.mode == "ping" else bytes(self.asked.size)
        self.unsent[connection] += answer * whole

    def write(self, connection: socket.socket) -> None:
        unsent = self.unsent[connection]
        if unsent:
            try:
                del unsent[: connection.send(unsent)]
            except BlockingIOError:
                pass
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if unsent else 0)
        if self.selector.get_key(connection).events != wanted:
            self.selector.modify(connection, wanted)

    def close(self, connection: socket.socket) -> None:
        if connection in self.waiting:
            self.selector.unregister(connection)
            del self.waiting[connection], self.unsent[connection]
            connection.close()


class Client:
    """Sends the next request when the answer is there, on each connection."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.host, self.port = place(asked.address)
        self.answer = len(ANSWER) if asked.mode == "ping" else asked.size
        self.selector = selectors.DefaultSelector()
        self.request = bytes(asked.size)
        self.took: list[float] = []
        self.opened = 0

    def run(self) -> dict[str, object]:
        for _number in range(self.asked.connections):
            self.open()
        began = time.monotonic()
        self.end = began + self.asked.seconds
        last = began
        for key in list(self.selector.get_map().values()):
            self.ask(key)
        while self.selector.get_map():
            ready = self.selector.select(1)
            for key, _events in ready:
                self.work(key)
                last = time.monotonic()
            if time.monotonic() - last > STUCK:
                sys.exit(f"no answer within {STUCK} s on {len(self.selector.get_map())} connections")
        return self.report(time.monotonic() - began)

    def open(self) -> selectors.SelectorKey:
        connection = socket.create_connection((self.host, self.port), CONNECT)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.asked.linger:
            reset_at_close(connection)
        self.opened += 1
        return self.selector.register(
            connection, selectors.EVENT_READ, {"unsent": 0, "missing": 0, "began": 0.0, "done": 0}
        )

    def ask(self, key: selectors.SelectorKey) -> None:
        state = key.data
        state.update(unsent=self.asked.size, missing=self.answer, began=time.perf_counter())
        self.send(key)

    def send(self, key: selectors.SelectorKey) -> None:
        state = key.data
        try:
            state["unsent"] -= key.fileobj.send(self.request[-state["unsent"] :])
        except BlockingIOError:
            pass
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if state["unsent"] else 0)
        if key.events != wanted:
            self.selector.modify(key.fileobj, wanted, state)

    def work(self, key: selectors.SelectorKey) -> None:
        state = key.data
        if state["unsent"]:
            self.send(key)
            return
        data = key.fileobj.recv(CHUNK)
        if not data:
            sys.exit("the server closed a connection")
        state["missing"] -= len(data)
        if state["missing"]:
            return
        self.took.append(time.perf_counter() - state["began"])
        state["done"] += 1
        if time.monotonic() >= self.end:
            self.close(key)
        elif state["done"] == self.asked.per_connection:
            self.close(key)
            self.ask(self.open())
        else:
            self.ask(key)

    def close(self, key: selectors.SelectorKey) -> None:
        self.selector.unregister(key.fileobj)
        key.fileobj.close()

    def report(self, seconds: float) -> dict[str, object]:
        took = sorted(self.took)
        times = {f"p{percent}": took[min(len(took) * percent // 100, len(took) - 1)] for percent in PERCENTILES}
        times.update(mean=sum(took) / len(took), max=took[-1])
        return {
            "mode": self.asked.mode,
            "port": self.port,
            "size": self.asked.size,
            "connections": self.asked.connections,
            "opened": self.opened,
            "seconds": round(seconds, 3),
            "requests": len(took),
            "per_second": round(len(took) / seconds, 1),
            "bytes_out": len(took) * self.asked.size,
            "bytes_in": len(took) * self.answer,
            "latency": {name: round(value * 1e6, 1) for name, value in times.items()},
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["server", "client"])
    parser.add_argument("connections", type=int)
    parser.add_argument("mode", choices=["echo", "ping"])
    parser.add_argument("size", type=int, help="bytes of a request")
    parser.add_argument("address", help="10.0.0.1:80 or [fd00::1]:80")
    parser.add_argument("--seconds", type=float, default=5, help="how long the client asks")
    parser.add_argument("--linger", action="store_true", help="SO_LINGER of 0 s: close by RST, without TIME_WAIT")
    parser.add_argument("--per-connection", type=int, default=0, help="requests before a new connection; 0: never")
    parser.add_argument("--daemon", metavar="PIDFILE", help="the server goes on in the background once it listens")
    asked = parser.parse_args()
    if asked.connections < 1 or asked.size < 1 or asked.seconds <= 0:
        parser.error("connections, size and seconds are above 0")
    return asked


def background(pidfile: str) -> None:
    child = os.fork()
    if child:
        with open(pidfile, "w", encoding="ascii") as file:
            file.write(f"{child}\n")
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)


def main() -> None:
    asked = arguments()
    if asked.side == "client":
        print(json.dumps(Client(asked).run()))
        return
    server = Server(asked)
    if asked.daemon:
        background(asked.daemon)
    server.serve()


if __name__ == "__main__":
    main()
