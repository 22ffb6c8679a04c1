# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel holds of IPsec, read by ip-xfrm(8); its options of IP-TFS from the kernel's own bytes.

ip-xfrm(8) up to 7.3 has no word for IP-TFS. Imports nothing of the collection.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from typing import NamedTuple


class Association(NamedTuple):
    """A state as ip prints it."""

    source: str
    destination: str
    spi: int
    reqid: int
    mode: str
    keys: tuple[str, ...]  # hexadecimal
    sent: int  # sequence number
    received: int
    made: str  # when
    packets: int  # that passed it
    window: int


def states(namespace: str) -> dict[tuple[str, str], Association]:
    """By source and destination."""
    printed = _ip(namespace, "-s", "xfrm", "state", "show")
    blocks = [block for block in re.split(r"^(?=src )", printed, flags=re.MULTILINE) if block.strip()]
    found = [_association(block) for block in blocks]
    return {(one.source, one.destination): one for one in found}


def _association(block: str) -> Association:
    def first(pattern: str, default: str = "") -> str:
        match = re.search(pattern, block)
        return match[1] if match else default

    return Association(
        *(first(r"^src (\S+)"), first(r"^src \S+ dst (\S+)")),
        *(int(first(r"spi (0x\w+)"), 16), int(first(r"reqid (\d+)"))),
        first(r"mode (\S+)"),
        tuple(re.findall(r"(?:aead|auth-trunc|enc) \S+ 0x(\w+)", block)),
        *(int(first(r"oseq (0x\w+)", "0x0"), 16), int(first(r"[ :] ?seq (0x\w+), oseq"), 16)),
        first(r"add (\S+ \S+) "),
        int(first(r"\(bytes\), (\d+)\(packets\)\s+add", "0")),
        int(first(r"replay_window (\d+)", "0")),
    )


def policies(namespace: str) -> list[str]:
    """Direction, networks, ends, reqid and mode of each, in order."""
    printed = _ip(namespace, "xfrm", "policy", "show")
    shape = r"^src (\S+) dst (\S+) *\n\s+dir (\w+).*\n"
    shape += r"\s+tmpl src (\S+) dst (\S+)\n\s+proto esp .*?reqid (\d+)\S* mode (\S+)"
    rows = re.findall(shape, printed, flags=re.MULTILINE)
    return sorted(
        f"{way} {source} {there} by {a} {b} reqid {reqid} {mode}" for source, there, way, a, b, reqid, mode in rows
    )


def _ip(namespace: str, *words: str) -> str:
    done = subprocess.run(["ip", "-n", namespace, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def iptfs_options() -> dict[str, dict[str, int | bytes]]:
    """Those of each state of the namespace that we are in, by destination, as the kernel dumps them (linux/xfrm.h)."""
    names = {
        36: "drop_time",
        37: "reorder",
        38: "dont_frag",
        39: "init_delay",
        40: "max_qsize",
        41: "pkt_size",
        33: "dir",
    }
    found: dict[str, dict[str, int | bytes]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6) as kernel:
        kernel.send(struct.pack("=IHHII", 16, 0x12, 0x301, 1, 0))  # XFRM_MSG_GETSA, a dump
        while True:
            data = kernel.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == 3:
                    return found
                assert kind == 0x10, kind
                body, data = data[16:length], data[(length + 3) & ~3 :]
                options: dict[str, int | bytes] = {"mode": body[214]}
                rest = body[224:]
                while rest:
                    size, number = struct.unpack_from("=HH", rest)
                    if number in names:
                        options[names[number]] = int.from_bytes(rest[4:size], "little")
                    rest = rest[(size + 3) & ~3 :]
                found[socket.inet_ntoa(body[56:60])] = options


class Sent:
    """What leaves an interface of the namespace that we are in: IP packets without their Ethernet header.

    What arrives is not looked at: what was inside an ESP packet arrives at the same interface once more.
    """

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        self._socket.bind((interface, 3))
        self._socket.settimeout(0.2)

    def packets(self) -> list[bytes]:
        """All IP packets since the last call, until nothing came for a moment."""
        found: list[bytes] = []
        while True:
            try:
                data, address = self._socket.recvfrom(1 << 16)
            except TimeoutError:
                return found
            if address[1] in (0x0800, 0x86DD) and address[2] == socket.PACKET_OUTGOING:
                found.append(data)

    def close(self) -> None:
        self._socket.close()


def protocol(packet: bytes) -> int:
    """Of what the IP header says follows it."""
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def spi(packet: bytes) -> int:
    """Of an ESP packet."""
    start = 20 if packet[0] >> 4 == 4 else 40
    return int(struct.unpack_from("!I", packet, start)[0])
