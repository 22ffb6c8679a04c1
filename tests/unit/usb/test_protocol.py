# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's side of the wire against servers that answer as they should, and as they should not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from plugins.module_utils.usb import client, listening, protocol
from plugins.module_utils.usb.client import Wanted
from plugins.module_utils.usb.protocol import Refused

DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")


def device(busid: str, product: int = 0x0204, interfaces: int = 2) -> bytes:
    return DEVICE.pack(b"/sys/x", busid.encode(), 1, 5, 3, 0x0D28, product, 0x100, 0, 0, 0, 1, 1, interfaces)


def devlist(*devices: bytes) -> bytes:
    more = b"".join(one + bytes(4 * one[-1]) for one in devices)
    return struct.pack(">HHII", 0x0111, 0x0005, 0, len(devices)) + more


@contextmanager
def server(*answers: bytes) -> Iterator[int]:
    """A server that gives each connection one answer to whatever it asks, in small pieces; its port."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            for answer in answers:
                connection, _address = door.accept()
                with connection:
                    connection.recv(64)
                    for place in range(0, len(answer), 100):
                        connection.sendall(answer[place : place + 100])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield door.getsockname()[1]
        thread.join(10)


def test_what_is_exported() -> None:
    with server(devlist(device("1-1"), device("3-1.4", 0xBEEF, 0))) as port:
        found = protocol.exported("127.0.0.1", port)
    assert [str(one) for one in found] == ["1-1 (0d28:0204)", "3-1.4 (0d28:beef)"]
    assert (found[0].devid, found[0].speed) == (0x10005, 3)


def test_a_connection_for_the_kernel_notices_a_dead_link() -> None:
    with server(struct.pack(">HHI", 0x0111, 0x0003, 0) + device("1-1")) as port:
        connection, remote = protocol.request("127.0.0.1", port, "1-1", 15)
    with connection:
        assert remote.busid == "1-1"
        assert connection.gettimeout() is None
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15000
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (struct.pack(">HHI", 0x0111, 0x0003, 4), r"1-1 of 127.0.0.1 port \d+: no such device"),
        (struct.pack(">HHI", 0x0111, 0x0003, 2), "another client uses it"),
        (struct.pack(">HHI", 0x0111, 0x0003, 77), "status 77"),
        (struct.pack(">HHI", 0x0111, 0x0003, 0) + device("1-2"), "instead of 1-1"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "none of USB over IP"),
        (b"", "closed the connection"),
    ],
)
def test_what_a_server_refuses(answer: bytes, said: str) -> None:
    with server(answer) as port, pytest.raises(Refused, match=said):
        protocol.request("127.0.0.1", port, "1-1", 15)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with pytest.raises(Refused, match=rf"127.0.0.1 port {port}: Connection refused"):
        protocol.exported("127.0.0.1", port)


@pytest.mark.parametrize(
    ("wanted", "devices", "said"),
    [
        ({"product": "0d28:0204"}, ["1-1", "1-2"], "2 devices are meant; name the bus id of one: 1-1 .*, 1-2"),
        ({"product": "dead:beef"}, ["1-1"], r"no such device is free there; the server has 1-1 \(0d28:0204\)"),
        ({"busid": "9-9"}, [], "the server has no free device"),
    ],
)
def test_which_device_is_meant(wanted: dict[str, str], devices: list[str], said: str) -> None:
    with server(devlist(*map(device, devices))) as port, pytest.raises(Refused, match=said):
        client.find(Wanted("127.0.0.1", port, **wanted))


def test_a_listener_is_found_by_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        found = listening.listener(port)
        assert found is not None
        assert found[1].startswith(("python", "pytest"))
        assert door.fileno() in listening.descriptors(found[0], port)
    assert listening.listener(port) is None
