# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cable between nodes of both kinds: those that speak in packets and those that speak in a stream of bytes."""

from __future__ import annotations

import socket
import struct
import threading
from itertools import product
from pathlib import Path

import pytest

from plugins.module_utils.lab import wire

PACKETS = [bytes([number % 251]) * (60 + 37 * number % 9000) for number in range(300)]


class Node:
    """A node's driver: `stream` as QEMU's, otherwise as UML's."""

    def __init__(self, path: Path, stream: bool) -> None:
        self.stream = stream
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if stream else socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(f"{path}.stream" if stream else str(path))
        self.file = self.sock.makefile("rb")

    def send(self, packets: list[bytes]) -> None:
        if not self.stream:
            for packet in packets:
                self.sock.send(packet)
            return
        whole = b"".join(struct.pack(">I", len(packet)) + packet for packet in packets)
        for start in range(0, len(whole), 1009):  # packets in pieces, and several in one
            self.sock.sendall(whole[start : start + 1009])

    def receive(self, count: int) -> list[bytes]:
        if not self.stream:
            return [self.sock.recv(1 << 17) for _number in range(count)]
        return [self.file.read(struct.unpack(">I", self.file.read(4))[0]) for _number in range(count)]


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "a", tmp_path / "b"
    ends = [wire.End(str(path)) for path in found]
    for here, there in (ends, ends[::-1]):
        threading.Thread(target=wire.carry, args=(here, there), daemon=True).start()
    return found


def plugged(paths: tuple[Path, Path], kinds: tuple[bool, bool]) -> list[Node]:
    nodes = [Node(path, stream) for path, stream in zip(paths, kinds)]
    for here, there in (nodes, nodes[::-1]):  # what is sent before the other is plugged in is lost
        there.sock.settimeout(0.1)
        while True:
            here.send([b"?"])
            try:
                assert there.receive(1) == [b"?"]
                break
            except TimeoutError:
                there.file = there.sock.makefile("rb")
        there.sock.settimeout(20)
    return nodes


@pytest.mark.parametrize("kinds", list(product([False, True], repeat=2)))
def test_every_packet_arrives_as_it_was_sent(paths: tuple[Path, Path], kinds: tuple[bool, bool]) -> None:
    nodes = plugged(paths, kinds)
    for here, there in (nodes, nodes[::-1]):
        sender = threading.Thread(target=here.send, args=(PACKETS,))
        sender.start()
        assert there.receive(len(PACKETS)) == PACKETS
        sender.join()


def test_a_machine_that_does_not_read_loses_packets_and_stops_nobody(
    paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As QEMU does while the interface of its guest is down."""
    monkeypatch.setattr(wire, "PATIENCE", 100)
    here, there = plugged(paths, (False, True))
    there.send([b"before"])
    assert here.receive(1) == [b"before"]
    here.send([bytes(1500)] * 5000)  # returns
    came = [there.receive(1)[0]]
    while came[-1] == bytes(1500):  # what found room; the machine reads again, so the wire takes packets again
        here.send([b"after"])
        came += there.receive(1)
    assert 1 < len(came) < 5000
    assert came[-1] == b"after"


def test_another_kind_of_node_can_be_plugged_in(paths: tuple[Path, Path]) -> None:
    first, second = plugged(paths, (True, False))
    first.sock.close()
    first.file.close()
    third = Node(paths[0], stream=False)
    third.send([b"third"])
    assert second.receive(1) == [b"third"]
