# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the kernel after converge, and where packets really go. Judged by the programs of the node."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

# Ethernet frames into the far end of port1: the bridge forwards them out of port0, past what was converged there.
# The IP checksum is the right one (it covers no port): br_netfilter drops what has a wrong one.
SENDER = """
import socket, struct, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
udp = struct.pack("!4H", 40000, port, 8, 0)
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0xf6cd, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
frame = b"\\xff" * 6 + bytes.fromhex("020000000001") + b"\\x08\\x00" + ip + udp
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("end1", 0))
for _ in range(count):
    out.send(frame)
"""


def classes(host: Host) -> dict[str, int]:
    """Packets that each class of port0 has sent."""
    text = host.check_output("tc -s class show dev port0")
    return {name: int(packets) for name, packets in re.findall(r"class htb (\S+) .*?\n Sent \d+ bytes (\d+) pkt", text)}


def send(host: Host, port: int, count: int) -> dict[str, int]:
    """Send frames to a UDP port and return by how much each class has grown."""
    before = classes(host)
    host.check_output("python3 -c %s %s %s", SENDER, str(port), str(count))
    return {name: packets - before[name] for name, packets in classes(host).items()}


def test_tree(host: Host) -> None:
    qdiscs = host.check_output("tc qdisc show dev port0").splitlines()
    assert [line.split()[1:3] for line in qdiscs] == [["htb", "1:"], ["pfifo", "10:"]]
    assert "default 0x30" in qdiscs[0]
    assert "limit 50p" in qdiscs[1]


@pytest.mark.parametrize(
    ("classid", "words"),
    [
        ("1:1", "rate 100Mbit ceil 100Mbit"),
        ("1:10", "prio 1 rate 10Mbit ceil 100Mbit"),
        ("1:20", "prio 0 rate 128Kbit ceil 128Kbit"),
        ("1:30", "prio 0 rate 1Mbit ceil 10Mbit"),
    ],
)
def test_classes(host: Host, classid: str, words: str) -> None:
    line = host.check_output("tc class show dev port0 classid %s", classid)
    assert words in line


def test_packets_go_where_the_filters_say(host: Host) -> None:
    grown = send(host, 7575, 30)
    assert (grown["1:10"], grown["1:20"]) == (30, 0)
    grown = send(host, 9, 5)
    assert (grown["1:10"], grown["1:20"]) == (0, 5)


def test_ebtables(host: Host) -> None:
    saved = host.check_output("ebtables-save").splitlines()
    assert [line.split(maxsplit=2)[2] for line in saved if "mark" in line and line.startswith("-A")] == [
        "-i port1 -j mark --mark-set 0x2 --mark-target CONTINUE",
        "-o port1 -j mark --mark-set 0x2 --mark-target CONTINUE",
    ]


def marked(host: Host) -> int:
    """Packets that the nth rule has marked."""
    listed = host.check_output("iptables-save -c -t mangle")
    found = re.findall(r"^\[(\d+):\d+\] .*--mode nth --every 20(?: --packet 0)? -j MARK --set-xmark 0x3/", listed, re.M)
    assert len(found) == 1, listed
    return int(found[0])


def test_iptables_marks_every_20th(host: Host) -> None:
    sender = "import socket; s = socket.socket(2, 2); [s.sendto(b'', ('127.0.0.1', 5005)) for _ in range(400)]"
    before = marked(host)
    host.check_output("python3 -c %s", sender)
    assert marked(host) - before == 20


def test_iptables_other_rule(host: Host) -> None:
    saved = host.check_output("iptables-save -t mangle")
    assert "-p tcp -m tcp --dport 7575 -j MARK --set-xmark 0x1/0xffffffff" in saved


def test_nothing_outside_our_chains(host: Host) -> None:
    rules = [line for line in host.check_output("iptables-save").splitlines() if line.startswith("-A")]
    assert all(line.split()[1].startswith("impair-") or "-j impair-" in line for line in rules), rules
