# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files/bpf/impair.c does at clsact's egress to packets on a wire, by senders, receivers, tc's counters."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.module_utils.bpf import program as programs
from plugins.module_utils.bpf import syscall
from tests.integration import bpf_program as kernel
from tests.integration.bpf_program import ALL, EVERY, EXACTLY, OTHERS, Chooser, Fields, Loaded, Rule
from tests.integration.engine import inside, namespace
from tests.integration.load import DEVICE, FAR, FIRST, NEAR, Load, ends
from tests.integration.places import Netns
from tests.integration.wire import ETHERTYPE, Wire, numbers
from tests.oracle import packets

SOURCES = {source.stem: source for source in OTHERS}
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # linux/sockios.h, linux/ethtool.h
SENDERS = 4


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A BPF file system, there before any command runs in a namespace."""
    folder = tmp_path_factory.mktemp("bpf")
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def program(pins: Path) -> Iterator[Loaded]:
    made = Loaded(kernel.compiled())
    syscall.pin(made.program.descriptor, str(pins / "impair"))
    syscall.pin(made.arriving.descriptor, str(pins / "arriving"))
    yield made
    made.close()


@pytest.fixture
def pair(pins: Path, program: Loaded) -> Iterator[Netns]:
    """A namespace with t0, at whose egress the program is, and its other end p0."""
    with namespace(1) as made:
        attach(made, "t0", pins / "impair")
        yield made


def attach(place: Netns, device: str, pinned: Path, priority: int = 10, hook: str = "egress") -> None:
    """As a person would."""
    shell = f"tc qdisc show dev {device} | grep -q clsact || tc qdisc add dev {device} clsact"
    place.run(["sh", "-ec", shell])
    at = ["dev", device, hook, "protocol", "all", "prio", str(priority)]
    place.run(["tc", "filter", "add", *at, "bpf", "da", "object-pinned", str(pinned)])


def counted(place: Netns, device: str) -> dict[str, int]:
    """The kernel's count of what the device sent."""
    (shown,) = json.loads(place.run(["ip", "-s", "-j", "link", "show", "dev", device]).stdout)
    return {key: int(shown["stats64"]["tx"][key]) for key in ("packets", "dropped")}


# ---- Which packets ----


def test_exactly_every_twentieth_is_missing(pair: Netns, program: Loaded) -> None:
    program.only(Rule(drop=Chooser(kind=EVERY, every=20, place=19)))
    with inside(pair):
        wire = Wire("t0", "p0")
        wire.send(1000, 100, at="t0")
        assert numbers(wire.receive("p0")) == [number for number in range(1000) if number % 20 != 19]


def test_exactly_every_twentieth_of_four_senders_is_dropped(pins: Path, program: Loaded, tmp_path: Path) -> None:
    """As fast as they can, on whatever CPUs there are."""
    program.only(Rule(drop=Chooser(kind=EVERY, every=20, place=19)))
    with ends(f"bpf-{os.getpid()}") as (near, far):
        attach(near, DEVICE, pins / "impair")
        before = counted(near, DEVICE)
        sent = flood(Load(near, far, tmp_path))
        state = program.state()
        after = counted(near, DEVICE)
    assert sum(sent) > 500
    assert state.seen == sum(sent)
    assert state.dropped == sum(sent) // 20
    passed = sum(after[key] - before[key] for key in after)  # the other end may take less than comes
    assert passed == sum(sent) - state.dropped


def flood(load: Load) -> list[int]:
    """How many packets each sender sent."""
    argv = ["ip", "netns", "exec", load.near.name, str(load.program), "send", FAR]
    receiver = ["ip", "netns", "exec", load.far.name, str(load.program), "receive", str(FIRST), str(SENDERS)]
    with subprocess.Popen(receiver, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        senders = [
            subprocess.Popen([*argv, str(FIRST + number), "1", "1000000"], stdout=subprocess.PIPE, text=True)
            for number in range(SENDERS)
        ]
        time.sleep(0.5)
        for sender in senders:
            sender.terminate()
        sent = [int(sender.communicate(timeout=30)[0].split()[1]) for sender in senders]
        other.terminate()
    return sent


def test_rules_change_and_no_packet_is_counted_twice(pair: Netns, program: Loaded) -> None:
    with inside(pair):
        wire = Wire("t0", "p0")
        program.only(Rule())
        wanted = []
        for turn in range(20):
            place = turn % 5
            program.rule(1, Rule(drop=Chooser(kind=EVERY, every=5, place=place)))
            wire.send(50, 100, at="t0", first=50 * turn)
            wanted += [number for number in range(50 * turn, 50 * turn + 50) if number % 5 != place]
        assert numbers(wire.receive("p0")) == wanted


# ---- What is in them ----


def test_tags_beside_the_frame_and_in_it(pair: Netns, pins: Path, program: Loaded) -> None:
    """One is pushed by another program before ours, as VLAN devices and bridges do; the frame has none, one or two."""
    pushed = programs.load(kernel.compiled(SOURCES["vlan"]), "classifier", {}, "vlan.o").descriptor
    (pins / "vlan").unlink(missing_ok=True)
    syscall.pin(pushed, str(pins / "vlan"))
    os.close(pushed)
    attach(pair, "t0", pins / "vlan", priority=1)
    for inner, tags, ethertype in ((0, 1, 0x88B5), (1, 2, 0x88B5), (2, 2, 0x8100)):
        program.only(Rule())
        program.shape(0, EXACTLY)
        wanted = Fields(vlan=5, tags=tags)
        wanted.source_mac[:] = bytes(range(6))
        wanted.destination_mac[:] = b"\xff" * 6
        wanted.ethertype[:] = struct.pack("!H", ethertype)
        program.match(0, wanted, 1)
        frame = b"\xff" * 6 + bytes(range(6)) + b"\x81\x00\x00\x09" * inner + b"\x88\xb5" + bytes(50)
        with inside(pair), packet_socket("t0") as sender:
            sender.send(frame)
        assert program.state().seen == 1, inner


def test_packets_that_end_within_their_headers(pair: Netns, program: Loaded) -> None:
    """Without a tag before them, as BPF_PROG_TEST_RUN takes none."""
    program.clear()
    program.shape(0, EXACTLY)
    head = b"\xff" * 6 + bytes(range(6))
    ipv4 = b"\x08\x00" + bytes.fromhex("4528001c000000004011abcd0a0000010a000002") + b"\1\2\3\4\0\x08\0\0"
    ipv6 = b"\x86\xdd" + bytes.fromhex("62000000000a11ff") + bytes(range(32)) + b"\1\2\3\4\0\x0a\0\0hi"
    with inside(pair), packet_socket("t0") as sender:
        for whole in (head + ipv4, head + ipv6):
            for end in range(14, len(whole) + 1):
                frame = packets.read(whole[:end])
                wanted = Fields(protocol=frame.protocol, dscp=frame.dscp, ports=frame.ports)
                for name in ("source", "destination", "source_mac", "destination_mac"):
                    value = getattr(frame, name)
                    getattr(wanted, name)[: len(value)] = value
                for name in ("ethertype", "source_port", "destination_port"):
                    getattr(wanted, name)[:] = struct.pack("!H", getattr(frame, name))
                program.match(0, wanted, 1)
                program.rule(1, Rule(), kernel.State())
                sender.send(whole[:end])
                assert program.state().seen == 1, end
                program.no_match(0, wanted)


def packet_socket(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.bind((device, 0))
    return made


def test_superpackets_of_tcp_are_counted(pins: Path, program: Loaded) -> None:
    program.only(Rule())
    with ends(f"bpf-{os.getpid()}") as (near, far):
        attach(near, DEVICE, pins / "impair")
        with inside(far):
            listener = socket.create_server((FAR, 5001))
        with listener, inside(near), socket.create_connection((FAR, 5001), timeout=10) as sender:
            taker, _address = listener.accept()
            taker.settimeout(10)
            sender.sendall(bytes(200_000))
            with taker:
                left = 200_000
                while left:
                    left -= len(taker.recv(left))
    state = program.state()
    assert state.superpackets > 0
    assert state.segments > state.superpackets
    single = state.seen - state.superpackets
    assert (state.segments + single) * 1448 >= 200_000


# ---- Duplicates ----


def test_duplicates_are_intact_and_in_the_same_class(pair: Netns, program: Loaded) -> None:
    """Every third frame twice: a copy as it was, then the frame with its first byte of payload changed."""
    pair.run(["sh", "-e"], stdin=HTB)
    rule = Rule(duplicate=Chooser(kind=EVERY, every=3, place=2), corrupt=Chooser(kind=ALL), length=1, offset=4)
    rule.xor[0] = 0xFF
    program.only(rule, priority=0x10002)
    with inside(pair):
        wire = Wire("t0", "p0")
        receiver = packet_socket("p0")
        receiver.bind(("p0", ETHERTYPE))
        wire.send(30, 100, at="t0")
        found = [(frame[17], frame[18]) for frame in received(receiver)]
    wanted = [(number, byte) for number in range(30) for byte in ((0, 255) if number % 3 == 2 else (255,))]
    assert found == wanted
    state = program.state()
    assert (state.seen, state.duplicated, state.corrupted) == (30, 10, 30)
    shown = pair.run(["tc", "-s", "class", "show", "dev", "t0"]).stdout
    assert dict(re.findall(r"class htb (\S+) .*\n Sent \d+ bytes (\d+) pkt", shown))["1:2"] == "40"


HTB = """
tc qdisc add dev t0 root handle 1: htb default 1
tc class add dev t0 parent 1: classid 1:1 htb rate 1gbit
tc class add dev t0 parent 1: classid 1:2 htb rate 1gbit
"""


def received(receiver: socket.socket, quiet: float = 0.2) -> list[bytes]:
    """What comes until nothing more does."""
    found = []
    while select.select([receiver], [], [], quiet)[0]:
        found.append(receiver.recv(2048))
    return found


def test_neither_a_frame_nor_its_duplicate_is_taken_for_one_elsewhere(pair: Netns, pins: Path, program: Loaded) -> None:
    """The other end has the program too: it counts both."""
    attach(pair, "p0", pins / "arriving", hook="ingress")
    program.clear()
    program.shape(0, Fields(in_interface=0xFFFFFFFF))
    with inside(pair):
        program.match(0, Fields(), 1)
        program.match(0, Fields(in_interface=socket.if_nametoindex("p0")), 2)
        program.rule(1, Rule(duplicate=Chooser(kind=ALL)))
        program.rule(2, Rule())
        wire = Wire("t0", "p0")
        wire.send(10, 100, at="t0")
        assert len(wire.receive("p0")) == 20
    assert (program.state(1).seen, program.state(1).duplicated, program.state(2).seen) == (10, 10, 20)


@pytest.mark.parametrize("hook", ["ifb", "ingress"])
def test_duplicates_of_what_arrives(pair: Netns, pins: Path, program: Loaded, hook: str) -> None:
    """At an IFB's egress, with a class of its own there for the copies too, and where packets arrive."""
    if hook == "ifb":
        pair.run(["sh", "-e"], stdin=IFB + HTB.replace("t0", "i0"))
        attach(pair, "i0", pins / "arriving")
    else:
        attach(pair, "p0", pins / "arriving", hook="ingress")
    program.clear()
    program.shape(0, Fields(in_interface=0xFFFFFFFF))
    rule = Rule(duplicate=Chooser(kind=EVERY, every=4, place=0), drop=Chooser(kind=EVERY, every=10, place=9))
    program.rule(1, rule)
    with inside(pair):
        program.match(0, Fields(in_interface=socket.if_nametoindex("p0")), 1, priority=0x10002)
        wire = Wire("t0", "p0")
        back = packet_socket("t0")
        back.bind(("t0", ETHERTYPE))
        received(back, 0)
        wire.send(40, 100, at="t0")
        found = numbers(wire.receive("p0"))
        assert received(back) == []  # nothing goes back where it came from
    passed = [number for number in range(40) if number % 10 != 9]
    assert sorted(found) == sorted(passed + [number for number in passed if number % 4 == 0])
    assert (program.state().seen, program.state().duplicated, program.state().dropped) == (40, 10, 4)
    if hook == "ifb":
        shown = pair.run(["tc", "-s", "class", "show", "dev", "i0"]).stdout
        assert dict(re.findall(r"class htb (\S+) .*\n Sent \d+ bytes (\d+) pkt", shown))["1:2"] == "46"


IFB = """
ip link add i0 type ifb
ip link set i0 up
tc qdisc add dev p0 clsact
tc filter add dev p0 ingress u32 match u32 0 0 action mirred egress redirect dev i0
"""


# ---- Checksums that a device makes ----


@pytest.mark.parametrize("is_fixed", [True, False], ids=["fixed", "as_it_was"])
@pytest.mark.parametrize("by_device", [True, False], ids=["by_device", "by_sender"])
def test_checksums_fit_or_do_not(pins: Path, program: Loaded, by_device: bool, is_fixed: bool) -> None:
    """A bridge whose ports have checksum offload lets the sender leave the sum to them; one of them has none."""
    with ends(f"bpf-{os.getpid()}") as (near, far):
        near.run(["sh", "-e"], stdin=BRIDGE)
        with inside(near):
            no_checksums(DEVICE)
            if not by_device:
                no_checksums("b0")
        hardware = far.run(["cat", "/sys/class/net/p0/address"]).stdout.strip()
        near.run(["ip", "neighbour", "replace", FAR, "lladdr", hardware, "dev", "b0", "nud", "permanent"])
        attach(near, DEVICE, pins / "impair")
        program.clear()
        program.shape(0, Fields(protocol=0xFF))
        program.match(0, Fields(protocol=packets.UDP), 1)
        rule = Rule(corrupt=Chooser(kind=ALL), offset=1, length=3, fix_checksums=is_fixed)
        rule.xor[:3] = b"\x01\x80\xff"
        program.rule(1, rule)
        frame, delivered = one_datagram(near, far)
    assert frame[42:50] == bytes([0, 0, 0x82, 0xFC, 4, 5, 6, 7])
    fitting = frame if is_fixed else frame[:42] + bytes(range(8)) + frame[50:]  # the sum is right, or that of before
    assert packets.transport_total(fitting, packets.read(frame)) == 0
    assert delivered == ([frame[42:50]] if is_fixed else [])
    assert program.state().corrupted == 1


BRIDGE = f"""
ip address flush dev {DEVICE}
ip link add b0 type bridge
ip link add c0 type veth peer name c1
for port in {DEVICE} c0; do ip link set $port master b0; ip link set $port up; done
ip link set c1 up
ip link set b0 up
ip address add {NEAR}/24 dev b0
"""


def no_checksums(device: str) -> None:
    """`ethtool -K DEVICE tx off`."""
    value = bytearray(struct.pack("=II", ETHTOOL_STXCSUM, 0))
    with socket.socket() as asked:
        buffer = ctypes.create_string_buffer(bytes(value), len(value))
        request = struct.pack("=16sQ16x", device.encode(), ctypes.addressof(buffer))
        fcntl.ioctl(asked.fileno(), SIOCETHTOOL, request)


def one_datagram(near: Netns, far: Netns) -> tuple[bytes, list[bytes]]:
    """The frame that arrives of a datagram, and what a receiver gets of it."""
    with inside(far):
        raw = packet_socket("p0")
        raw.bind(("p0", packets.IPV4))
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((FAR, 5001))
    with inside(near), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(range(8)), (FAR, 5001))
    (frame,) = [one for one in received(raw) if one[23] == packets.UDP]
    return frame, received(receiver)
