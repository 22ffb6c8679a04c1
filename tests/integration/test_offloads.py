# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP with the offloads that everybody has by default: single packets suffer, and clear gives all offloads back.

Runs on this machine's kernel, and under User-Mode-Linux (6.1) as well.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.path import Capture, Frame, Path, path
from tests.integration.places import caller, run
from tests.integration.program import compiled

PORT = 5000
SIZE = 1 << 20  # bytes
EVERY = 50
Apply = Callable[..., engine.Outcome]


@pytest.fixture(scope="module", params=["bridge", "router"])
def made(request: pytest.FixtureRequest) -> Iterator[Path]:
    load()  # it brings the kernel's modules
    with path(request.param) as found:
        if found.kind == "bridge":
            found.n.run(["ip", "addr", "add", "10.7.0.9/24", "dev", "br0"])
        yield found


@pytest.fixture
def apply(made: Path) -> Iterator[Apply]:
    """The engine at work on the node in between; what it switches is as before in the end."""
    program = compiled()

    def applied(*interfaces: dict[str, Any], **how: Any) -> engine.Outcome:
        with inside(made.n):
            return engine.apply(list(interfaces), [], program=program, **how)

    before = offloads(made)
    yield applied
    with inside(made.n):
        engine.clear()
    assert offloads(made) == before


def offloads(made: Path) -> list[str]:
    """As ethtool and ip show them, of everybody."""
    found = []
    for end, devices in (("s", ["s0"]), ("n", ["n0", "n1", "br0"]), ("r", ["r0"])):
        for device in devices:
            shown = made.place(end).run(["ethtool", "-k", device], check=False).stdout
            link = made.place(end).run(["ip", "-d", "link", "show", device], check=False).stdout.split()
            segments = link[link.index("gso_max_segs") + 1] if link else ""
            found += [f"{device} {line}" for line in shown.splitlines()] + [f"{device} {segments}"]
    return found


def dropping(direction: str = "egress", device: str = "n1") -> dict[str, Any]:
    match = {"protocol": "tcp", "destination_port": PORT}
    return {
        "name": device,
        "direction": direction,
        "classes": [{"name": "t", "match": match, "drop": {"every": EVERY}}],
    }


def transfer(made: Path, end: str = "s") -> None:
    """All data arrive, whatever is sent again."""
    data = os.urandom(SIZE)
    with inside(made.r):
        listener = socket.create_server((made.address("r"), PORT))
    listener.settimeout(60)
    with listener, ThreadPoolExecutor() as pool:
        received = pool.submit(_receive_all, listener)
        with inside(made.place(end)):
            sender = socket.create_connection((made.address("r"), PORT), timeout=60)
        with sender:
            sender.sendall(data)
        assert received.result(90) == data


def _receive_all(listener: socket.socket) -> bytes:
    connection, _address = listener.accept()
    with connection:
        connection.settimeout(60)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def counted(made: Path) -> tuple[int, int]:
    """(packets, superpackets) of the one rule, as bpftool shows its counters (struct state of files/bpf/impair.h)."""
    pins = f"/sys/fs/bpf/impair_testbed/{made.n.number()}"
    (rule,) = json.loads(run(["bpftool", "-j", "map", "dump", "pinned", f"{pins}/rules"]).stdout)
    place = [*rule["key"][:2], "0", "0"]
    entry = json.loads(run(["bpftool", "-j", "map", "lookup", "pinned", f"{pins}/states", "key", *place]).stdout)
    numbers = struct.unpack_from("=7Q", bytes(int(byte, 16) for byte in entry["value"]))
    return numbers[0], numbers[5]


def passing(made: Path, into: str, out: str = "n1", end: str = "s") -> tuple[list[bytes], list[bytes]]:
    """What came in and what went out of one transfer, told by IPv4's identification and TCP's numbers.

    All on one processor: packets that two of them carry are captured in another order than they are counted in.
    """
    captures = Capture(made.n, into), Capture(made.n, out)
    processors = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(processors)})
        transfer(made, end)
        came, went = (capture.frames() for capture in captures)
    finally:
        os.sched_setaffinity(0, processors)
        for capture in captures:
            capture.close()
    return tcp(came, outgoing=into == out), tcp(went, outgoing=True)


def tcp(frames: list[Frame], outgoing: bool) -> list[bytes]:
    """Identification and TCP numbers of IPv4 packets to the port, in their order."""
    ours = [frame.data for frame in frames if frame.outgoing is outgoing and frame.data[12:14] == b"\x08\x00"]
    ours = [data for data in ours if data[23] == 6 and struct.unpack_from("!H", data, 36)[0] == PORT]
    return [data[18:20] + data[38:46] for data in ours]


def test_single_packets_are_dropped(made: Path, apply: Apply) -> None:
    """Each 50th packet that came in is missing, of packets that are none of them larger than the wire's."""
    out = apply(dropping())
    assert out.warnings == []
    assert "ip link set dev s0 gso_max_segs 1  # the other end of n0" in out.report.steps
    came, went = passing(made, "n0")
    packets, superpackets = counted(made)
    assert (packets, superpackets) == (len(came), 0)
    assert packets > SIZE // 1500
    assert went == [packet for number, packet in enumerate(came) if number % EVERY != EVERY - 1]
    assert apply(dropping()).report.steps == []


def test_what_the_node_itself_sends_comes_singly(made: Path, apply: Apply) -> None:
    apply(dropping())
    transfer(made, "n")
    packets, superpackets = counted(made)
    assert packets > SIZE // 1500
    assert superpackets == 0


def test_nothing_is_gathered_where_packets_come_in(made: Path, apply: Apply) -> None:
    """n0 gathers what s splits before it sends it, as any Ethernet device does; but not for us."""
    made.s.run(["ethtool", "-K", "s0", "tso", "off"])
    made.n.run(["ethtool", "-K", "n0", "gro", "on"])
    before = offloads(made)
    try:
        apply(dropping(), offloads="keep")
        transfer(made)
        start = counted(made)
        assert start[1] > 0
        assert "ethtool -K n0 gro off" in apply(dropping()).report.steps
        made.s.run(["ip", "link", "set", "s0", "gso_max_segs", "65535"])
        transfer(made)
        packets, superpackets = counted(made)
        assert packets - start[0] > SIZE // 1500
        assert superpackets == start[1]
        apply(dropping(), offloads="keep")
        assert offloads(made) == before
    finally:
        made.n.run(["ethtool", "-K", "n0", "gro", "off"])
        made.s.run(["ethtool", "-K", "s0", "tso", "on"])


def test_kept_offloads_gather(made: Path, apply: Apply) -> None:
    before = offloads(made)
    apply(dropping(), offloads="keep")
    assert offloads(made) == before
    transfer(made)
    packets, superpackets = counted(made)
    assert superpackets > 0
    assert packets < SIZE // 1500
    (row,) = apply(dropping(), offloads="keep").rules
    place = {"interface": "n1", "direction": "egress", "class": "t", "asked": "drop every 50 packet 49"}
    assert row.items() >= {**place, "seen": packets, "superpackets": superpackets, "dropped": packets // EVERY}.items()


def test_testbed_info_warns_of_superpackets(made: Path, apply: Apply, tmp_path: pathlib.Path) -> None:
    call = caller(made.n, tmp_path)
    for how in ("keep", "manage"):
        apply()  # and so all counts begin again
        apply(dropping(), offloads=how)
        transfer(made)
        told = call("testbed_info", {})
        (row,) = told["rules"]
        assert (row["seen"], row["superpackets"]) == counted(made)
        warned = f"n1 egress, class t: {row['superpackets']} of {row['seen']} packets were superpackets"
        assert (warned in " ".join(told["said"].split())) is (how == "keep")


def test_a_rate_alone_changes_no_offload(made: Path, apply: Apply) -> None:
    before = offloads(made)
    apply({"name": "n1", "rate": "1gbit"})
    assert offloads(made) == before


def test_offloads_come_back_with_the_last_fault(made: Path, apply: Apply) -> None:
    before = offloads(made)
    said = apply(dropping(), check=True).report.steps
    assert offloads(made) == before
    assert apply(dropping()).report.steps == said
    assert offloads(made) != before
    match = {"protocol": "tcp", "destination_port": PORT}
    back = apply({"name": "n1", "classes": [{"name": "t", "match": match}]}).report.steps
    assert "ip link set dev n1 gso_max_segs 65535" in back
    assert offloads(made) == before
