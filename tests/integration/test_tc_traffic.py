# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes under traffic: numbered frames pass an interface while its tree changes; none is lost, none goes astray."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.engine import Bench, inside
from tests.oracle import tc as oracle

pytestmark = pytest.mark.alone

ETH_P_IP = 0x0800
SO_RCVBUFFORCE = 33
HEADERS = bytes(12) + struct.pack("!H", ETH_P_IP) + struct.pack("!BBHHHBBH4s4s", 0x45, 0, 92, 0, 0, 64, 17, 0, b"", b"")
PAYLOAD = struct.Struct("!Q56x")
PORT = 7575
RATE = 10_000  # frames a second


def frame(number: int) -> bytes:
    return HEADERS + struct.pack("!HHHH", 1, PORT, 72, 0) + PAYLOAD.pack(number)


def both_ends(bench: Bench) -> tuple[socket.socket, socket.socket]:
    """A socket that sends frames out of the bench's interface, and one that takes what arrives at its peer."""
    with inside(bench.place):
        sender, receiver = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _end in range(2))
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 27)
        sender.bind((bench.device, ETH_P_IP))
        receiver.bind((bench.device.replace("t", "p"), ETH_P_IP))
    return sender, receiver


def numbers(receiver: socket.socket) -> list[int]:
    """Numbers of the frames that arrived, in their order; until none has come for a while."""
    receiver.settimeout(0.3)
    found: list[int] = []
    while True:
        try:
            data = receiver.recv(2048)
        except TimeoutError:
            return found
        if len(data) >= 106 and data[36:38] == struct.pack("!H", PORT):
            found.append(PAYLOAD.unpack_from(data, 42)[0])


def send_until_told(sender: socket.socket, told: int) -> None:
    """RATE frames a second until a signal; then the count goes into the pipe."""
    ending = False

    def end(_signal: int, _frame: Any) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    os.write(told, b"!")
    sent, start = 0, time.monotonic()
    while not ending:
        due = int((time.monotonic() - start) * RATE)
        while sent < due:
            sender.send(frame(sent))
            sent += 1
        time.sleep(0.0005)
    os.write(told, struct.pack("=Q", sent))


@contextmanager
def traffic(bench: Bench) -> Iterator[Callable[[], tuple[int, list[int]]]]:
    """Frames through the bench's interface; the function ends them: how many were sent, which arrived at the peer."""
    sender, receiver = both_ends(bench)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            send_until_told(sender, write)
        finally:
            os._exit(0)
    os.close(write)
    os.read(read, 1)

    def finish() -> tuple[int, list[int]]:
        os.kill(child, signal.SIGTERM)
        sent = struct.unpack("=Q", os.read(read, 8))[0]
        return sent, numbers(receiver)

    try:
        yield finish
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        sender.close()
        receiver.close()


def shape(rate: str = "500mbit", prio: int = 10, others: int = 0) -> oracle.Tree:
    """The uniform shape: one wrapping class, a class for PORT, one for the rest by a last filter that takes all."""
    bursts: dict[str, Any] = {"kind": "htb", "burst": "1MB", "cburst": "1MB"}
    top = {**bursts, "parent": "1:", "classid": "1:ff", "rate": "10gbit"}
    under = {**bursts, "parent": "1:ff", "quantum": 60000}
    classes = [top, {**under, "classid": "1:1", "rate": rate}, {**under, "classid": "1:2", "rate": "1mbit"}]
    classes += [{**under, "classid": f"1:{0x10 + number:x}", "rate": "2mbit"} for number in range(others)]
    common: dict[str, Any] = {"parent": "1:", "kind": "u32"}
    filters: list[dict[str, Any]] = [{**common, "prio": prio, "match": [f"ip dport {PORT} 0xffff"], "flowid": "1:1"}]
    filters += [
        {**common, "prio": 1 + number, "match": [f"ip dport {number + 1} 0xffff"], "flowid": f"1:{0x10 + number:x}"}
        for number in range(others)
    ]
    filters.append({**common, "prio": 1000, "match": ["u32 0 0"], "flowid": "1:2"})
    return {"qdiscs": [{"parent": "root", "handle": "1:", "kind": "htb"}], "classes": classes, "filters": filters}


CHANGES = {
    "rate 100 times": [shape(rate=f"{500 + turn % 2}mbit") for turn in range(100)],
    "classes come and go 60 times": [shape(others=turn % 2 * 3) for turn in range(60)],
    "the filter moves 60 times": [shape(prio=10 + 10 * (turn % 2)) for turn in range(60)],
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_frame_is_lost_or_astray(benches: list[Bench], name: str) -> None:
    bench = benches[0]
    bench.run(shape())
    with traffic(bench) as finish:
        for tree in CHANGES[name]:
            report = bench.run(tree)
            assert not any("disruptive" in step for step in report.steps)
        sent, arrived = finish()
    assert sent > 500
    assert arrived == list(range(sent))
    assert packets(bench, "class htb 1:1") == sent
    assert packets(bench, "class htb 1:2") == 0


def packets(bench: Bench, start: str) -> int:
    """Frames that the class has sent, by tc."""
    shown = bench.typed(f"tc -s class show dev {bench.device}")
    found = re.search(rf"^{start} .*\n Sent \d+ bytes (\d+) pkt", shown, re.MULTILINE)
    assert found
    return int(found[1])


def test_a_class_that_goes_is_drained_first(benches: list[Bench]) -> None:
    bench = benches[0]
    slow = shape(rate="400kbit")
    bench.run({**slow, "classes": [{**entry, "burst": "200B", "cburst": "200B"} for entry in slow["classes"]]})
    sender, receiver = both_ends(bench)
    with sender, receiver:
        for number in range(100):
            sender.send(frame(number))
        bench.run({**slow, "classes": [slow["classes"][0], slow["classes"][2]], "filters": slow["filters"][1:]})
        assert numbers(receiver) == list(range(100))
