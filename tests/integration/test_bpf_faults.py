# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of chosen packets by the BPF program: exactly the asked packets, judged by what was captured on the wire.

Runs on this machine's kernel (JIT), and under User-Mode-Linux (interpreter) as well.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.path import Capture, Path, numbered, path, send
from tests.integration.program import compiled
from tests.integration.wire import sh

PORT = 5000
COUNT = 2000
UDP = {"protocol": "udp", "port": PORT}
Apply = Callable[..., engine.Outcome]


@pytest.fixture(scope="module", params=["bridge", "router"])
def made(request: pytest.FixtureRequest) -> Iterator[Path]:
    load()  # it brings the kernel's modules
    with path(request.param) as found:
        yield found


@pytest.fixture
def alone() -> Iterator[None]:
    """All on one processor: packets that two of them carry are captured in another order than they are counted in."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(processors)})
    yield
    os.sched_setaffinity(0, processors)


@pytest.fixture
def apply(made: Path) -> Iterator[Apply]:
    """The engine at work on the node in between."""
    program = compiled()

    def applied(*interfaces: dict[str, Any]) -> engine.Outcome:
        with inside(made.n):
            return engine.apply(list(interfaces), [], program=program)

    yield applied
    with inside(made.n):
        assert "7e57:" in sh("tc qdisc show")
        engine.clear()
        assert [line for line in sh("tc qdisc show").splitlines() if " noqueue " not in line] == []
        assert not re.search(r": imp[0-9a-f]{12}[:@]", sh("ip -o link"))
    assert not os.path.exists(f"/sys/fs/bpf/impair_testbed/{made.n.number()}")


def one_class(device: str, direction: str = "egress", match: Any = None, **faults: Any) -> dict[str, Any]:
    entry = {"name": "udp", "match": match or UDP, **faults}
    return {"name": device, "direction": direction, "classes": [entry]}


def missing(made: Path, device: str = "r0", count: int = COUNT, **how: Any) -> list[int]:
    """Numbers that went in at one end and did not come out at the other, where none came twice."""
    capture = Capture(made.r if device == "r0" else made.s, device)
    try:
        send(made, count, PORT, end="s" if device == "r0" else "r", **how)
        found = numbered(capture.frames(), PORT)
    finally:
        capture.close()
    assert len(found) == len(set(found))
    return sorted(set(range(how.get("first", 0), how.get("first", 0) + count)) - set(found))


@pytest.mark.parametrize(
    ("every", "packet"), [(2, 0), (2, 1), (3, 1), (20, 0), (20, 19), (20, 7), (333, 5), (1000, 999)]
)
@pytest.mark.parametrize("family", [4, 6])
def test_every_nth(made: Path, apply: Apply, every: int, packet: int, family: int) -> None:
    out = apply(one_class("n1", drop={"every": every, "packet": packet}))
    assert [one["backend"] for one in out.backends if one["impairment"] == "drop"] == ["bpf"]
    assert missing(made, family=family) == list(range(packet, COUNT, every))


@pytest.mark.parametrize("pattern", ["1101", "01", "0" * 63 + "11", "1" + "0" * 1022 + "1"])
def test_a_pattern(made: Path, apply: Apply, pattern: str) -> None:
    apply(one_class("n1", drop={"pattern": pattern}))
    assert missing(made) == [number for number in range(COUNT) if pattern[number % len(pattern)] == "1"]


def test_two_directions_count_apart(made: Path, apply: Apply) -> None:
    apply(one_class("n1", drop={"every": 7}), one_class("n0", drop={"every": 11, "packet": 2}))
    assert missing(made, "r0") == list(range(6, COUNT, 7))
    assert missing(made, "s0") == list(range(2, COUNT, 11))


def test_across_two_ports_counts_once(made: Path, apply: Apply) -> None:
    drop = {"every": 10, "packet": 0, "across": ["n0", "n1"]}
    apply(one_class("n1", drop=drop), one_class("n0", drop=drop))
    for start in (0, 15, 30):  # 15 there, 10 back: 25 in all
        gone = missing(made, "r0", 15, first=start), missing(made, "s0", 10, first=start)
        expected = [number for number in range(start // 15 * 25, start // 15 * 25 + 25) if number % 10 == 0]
        assert len(gone[0]) + len(gone[1]) == len(expected), (gone, expected)


def test_four_senders_at_once(made: Path, apply: Apply) -> None:
    """One class for all: the count is exact on all processors together. A class each: so is each set."""
    ports = [PORT, PORT + 1, PORT + 2, PORT + 3]
    apply(one_class("n1", match={"protocol": "udp", "destination_port": f"{PORT}-{PORT + 3}"}, drop={"every": 3}))
    assert sum(len(gone) for gone in _together(made, ports)) == 4 * COUNT // 3
    classes = [
        {"name": f"to {port}", "match": {"protocol": "udp", "destination_port": port}, "drop": {"every": 3 + number}}
        for number, port in enumerate(ports)
    ]
    apply({"name": "n1", "classes": classes})
    for number, gone in enumerate(_together(made, ports)):
        assert gone == list(range(2 + number, COUNT, 3 + number))


def _together(made: Path, ports: Sequence[int]) -> list[list[int]]:
    """What is missing of each port's packets, sent by processes of their own."""
    capture = Capture(made.r, "r0")
    try:
        children = [_child(partial(send, made, COUNT, port, processor=n)) for n, port in enumerate(ports)]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(ports)
        frames = capture.frames()
    finally:
        capture.close()
    return [sorted(set(range(COUNT)) - set(numbered(frames, port))) for port in ports]


def _child(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.usefixtures("alone")
def test_tcp_loses_the_asked_packets_and_all_data_arrive(made: Path, apply: Apply) -> None:
    """Each 50th packet that came in did not go out, whatever was sent again; offloads gather none meanwhile."""
    apply(one_class("n1", match={"protocol": "tcp", "destination_port": PORT}, drop={"every": 50, "packet": 49}))
    into, out = Capture(made.n, "n0"), Capture(made.n, "n1")
    data = os.urandom(1 << 21)
    with inside(made.r):
        listener = _listener(made)
    with listener, ThreadPoolExecutor() as pool:
        received = pool.submit(_receive_all, listener)
        with inside(made.s):
            sender = _connected(made)
        with sender:
            sender.sendall(data)
        assert received.result(60) == data
    came = [frame.data[14:] for frame in into.frames() if _is_tcp(frame.data) and not frame.outgoing]
    went = [frame.data[14:] for frame in out.frames() if _is_tcp(frame.data) and frame.outgoing]
    into.close()
    out.close()
    assert len(came) > 1000 and max(map(len, came)) <= 1500
    kept = [_told(packet) for number, packet in enumerate(came) if number % 50 != 49]
    assert [_told(packet) for packet in went] == kept


def _is_tcp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and struct.unpack_from("!H", frame, 36)[0] == PORT


def _told(packet: bytes) -> tuple[bytes, bytes]:
    """What tells one IPv4 packet: its identification and its TCP numbers; a router changes the rest of the header."""
    return packet[4:6], packet[24:32]


def _listener(made: Path) -> socket.socket:
    listener = socket.create_server((made.address("r"), PORT))
    listener.settimeout(60)
    return listener


def _connected(made: Path) -> socket.socket:
    return socket.create_connection((made.address("r"), PORT), timeout=60)


def _receive_all(listener: socket.socket) -> bytes:
    connection, _address = listener.accept()
    with connection:
        connection.settimeout(60)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_a_changed_value_keeps_the_count(made: Path, apply: Apply) -> None:
    """One map update, and no other step; the next packet has the next number for the new value too."""
    apply(one_class("n1", drop={"every": 7}))
    assert missing(made) == list(range(6, COUNT, 7))
    out = apply(one_class("n1", drop={"every": 9, "packet": 0}))
    assert [step.split()[0:3] for step in out.report.steps] == [["bpftool", "map", "update"]]
    assert missing(made, first=COUNT) == [number for number in range(COUNT, 2 * COUNT) if number % 9 == 0]
    assert apply(one_class("n1", drop={"every": 9, "packet": 0})).report.steps == []


def test_another_match_keeps_the_count(made: Path, apply: Apply) -> None:
    apply(one_class("n1", drop={"every": 7}))
    assert missing(made) == list(range(6, COUNT, 7))
    apply(one_class("n1", match={"protocol": "udp", "destination_port": PORT}, drop={"every": 7}))
    assert missing(made, first=COUNT) == [number for number in range(COUNT, 2 * COUNT) if number % 7 == 6]


@pytest.mark.parametrize(("device", "direction"), [("n1", "egress"), ("n0", "ingress")])
def test_duplicates(made: Path, apply: Apply, device: str, direction: str) -> None:
    apply(one_class(device, direction, duplicate={"every": 10, "packet": 3}))
    capture = Capture(made.r, "r0")
    send(made, COUNT, PORT)
    counts = Counter(numbered(capture.frames(), PORT))
    capture.close()
    assert counts == {number: 1 + (number % 10 == 3) for number in range(COUNT)}


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_corruption(made: Path, apply: Apply, direction: str) -> None:
    if direction == "ingress" and load()["action.mirred"] is not True:
        with inside(made.n), pytest.raises(Exception, match="CONFIG_NET_ACT_MIRRED"):
            apply(one_class("n0", direction, corrupt={"every": 4}))
        apply(one_class("n1", corrupt={"every": 4}))
        return
    device = "n1" if direction == "egress" else "n0"
    apply(
        one_class(device, direction, corrupt={"every": 4, "packet": 1, "offset": 5, "xor": "81f0", "checksum": "fix"})
    )
    capture = Capture(made.r, "r0")
    send(made, COUNT, PORT)
    frames = [frame for frame in capture.frames() if frame.data[12:14] == b"\x08\x00" and frame.data[23] == 17]
    capture.close()
    assert len(frames) == COUNT
    for number, frame in enumerate(frames):
        payload = frame.data[42:64]
        expected = bytearray(struct.pack("!I", number) + bytes(18))
        if number % 4 == 1:
            expected[5] ^= 0x81
            expected[6] ^= 0xF0
        assert payload == bytes(expected), number


def test_chance_is_repeatable_with_a_seed(made: Path, apply: Apply) -> None:
    lists = []
    for seed in (1, 1, 2):
        apply(one_class("n1", drop={"random": "10%", "seed": seed}))
        lists.append(missing(made))
        apply(one_class("n1"))
        apply(one_class("n1", match={"protocol": "tcp"}))
    assert lists[0] == lists[1] != lists[2]
    assert all(0.07 < len(gone) / COUNT < 0.13 for gone in lists)


def test_marks_are_set(made: Path, apply: Apply) -> None:
    """A filter behind ours drops what has the mark: ld mark; jeq 5; return TC_ACT_SHOT; return TC_ACT_UNSPEC."""
    apply(one_class("n1", set_mark={"value": "0x5/0xff", "every": 3}))
    code = "4,32 0 0 4294963220,21 0 1 5,6 0 0 2,6 0 0 4294967295"
    with inside(made.n):
        bare = "clsact" not in sh("tc qdisc show dev n1")  # ours stands there, or at TCX
        sh("tc qdisc add dev n1 clsact" if bare else "")
        sh(f"tc filter add dev n1 egress pref 65112 bpf bytecode '{code}' direct-action")
    assert missing(made) == list(range(2, COUNT, 3))
    with inside(made.n):
        sh("tc qdisc del dev n1 clsact" if bare else "tc filter del dev n1 egress pref 65112")
