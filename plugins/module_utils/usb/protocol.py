# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""USB over IP on the wire, as far as a client needs it (Documentation/usb/usbip_protocol.rst), and dead links noticed.

The kernel takes over a connection once the device was granted; the options set on it before stay.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from ..errors import TestbedError

PORT = 3240  # registered for USB over IP
VERSION = 0x0111
REQ_DEVLIST, REP_DEVLIST, REQ_IMPORT, REP_IMPORT = 0x8005, 0x0005, 0x8003, 0x0003
_COMMON = struct.Struct(">HHI")  # version, code, status
_DEVICE = struct.Struct(">256s32sIIIHHH6B")
_STATUS = {1: "it is not available", 2: "another client uses it", 3: "it is in an error state", 4: "no such device"}
CONNECT = 5.0  # seconds
HIGHEST_COUNT = 1000  # more devices than any bus has: the other side speaks something else


class Refused(TestbedError):
    """The server is not reached, or does not give what is asked."""


class Remote(NamedTuple):
    """A device that a server exports. `speed` is the kernel's enum usb_device_speed (linux/usb/ch9.h)."""

    busid: str
    busnum: int
    devnum: int
    speed: int
    product: str

    @property
    def devid(self) -> int:
        return self.busnum << 16 | self.devnum

    def __str__(self) -> str:
        return f"{self.busid} ({self.product})"


def notice_loss(connection: socket.socket, seconds: int) -> None:
    """A peer that does not answer for so long is gone, whether data wait for it or not (tcp(7))."""
    third = max(1, seconds // 3)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, third)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, third)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def exported(server: str, port: int) -> list[Remote]:
    """What the server exports and nobody uses: usbipd tells no others. Raises Refused."""
    with _connected(server, port) as connection:
        connection.sendall(_COMMON.pack(VERSION, REQ_DEVLIST, 0))
        _reply(connection, REP_DEVLIST, f"{server} port {port}")
        (count,) = struct.unpack(">I", _receive(connection, 4))
        if count > HIGHEST_COUNT:
            raise Refused(f"{server} port {port} does not speak USB over IP")
        found = []
        for _number in range(count):
            remote, interfaces = _device(_receive(connection, _DEVICE.size))
            _receive(connection, 4 * interfaces)
            found.append(remote)
        return found


def request(server: str, port: int, busid: str, seconds: int) -> tuple[socket.socket, Remote]:
    """Ask for a device: the connection that it comes over, for the kernel. Raises Refused."""
    connection = _connected(server, port)
    try:
        notice_loss(connection, seconds)
        connection.sendall(_COMMON.pack(VERSION, REQ_IMPORT, 0) + struct.pack("32s", busid.encode()))
        _reply(connection, REP_IMPORT, f"{busid} of {server} port {port}")
        remote, _interfaces = _device(_receive(connection, _DEVICE.size))
        if remote.busid != busid:
            raise Refused(f"{server} port {port} gave {remote} instead of {busid}")
        connection.settimeout(None)  # the kernel wants a connection that blocks
    except BaseException:
        connection.close()
        raise
    return connection, remote


def _connected(server: str, port: int) -> socket.socket:
    try:
        connection = socket.create_connection((server, port), CONNECT)
    except OSError as error:
        reason = f"no answer within {CONNECT:.0f} s" if isinstance(error, TimeoutError) else error.strerror or error
        raise Refused(f"{server} port {port}: {reason}") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _reply(connection: socket.socket, code: int, what: str) -> None:
    version, got, status = _COMMON.unpack(_receive(connection, _COMMON.size))
    if got != code or version >> 8 != VERSION >> 8:
        raise Refused(f"{what}: the answer is none of USB over IP")
    if status:
        raise Refused(f"{what}: {_STATUS.get(status, f'the server refuses it with status {status}')}")


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except OSError as error:
            raise Refused(f"the server stopped answering: {error}") from error
        if not more:
            raise Refused("the server closed the connection; does it speak USB over IP?")
        data += more
    return data


def _device(data: bytes) -> tuple[Remote, int]:
    """A device, and the number of its interfaces."""
    _path, busid, busnum, devnum, speed, vendor, product, _bcd, *more = _DEVICE.unpack(data)
    name = busid.rstrip(b"\0").decode(errors="replace")
    return Remote(name, busnum, devnum, speed, f"{vendor:04x}:{product:04x}"), more[-1]
