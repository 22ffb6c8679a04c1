# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Consoles as bytes: serial ports by pyserial, unix and TCP sockets without it. One console serves one process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Protocol

from ...module_utils.errors import InvalidInput, TestbedError

AT_ONCE = 65536  # bytes


class ConsoleError(TestbedError):
    """The console, or the node at its end, does not do what it should."""


class Port(Protocol):
    """A console's two directions."""

    def read(self, seconds: float) -> bytes:
        """What has come, or comes within so many seconds; nothing where nothing does. ConsoleError: it was closed."""

    def write(self, data: bytes) -> None:
        """Send all of it. Raises ConsoleError."""

    def close(self) -> None:
        """Let others have it."""


def open_port(name: str, baudrate: int, flow: str, seconds: float) -> Port:
    """The console `unix:PATH`, `tcp:HOST:PORT`, a device, or whatever URL pyserial knows. Raises ConsoleError."""
    kind, _colon, rest = name.partition(":")
    try:
        if kind == "unix":
            return _Socket(name, _unix(rest, seconds))
        if kind == "tcp":
            host, _colon, port = rest.rpartition(":")
            if not (host and port.isdigit()):
                raise InvalidInput("ansible_serial_port", name, "write tcp:HOST:PORT")
            return _Socket(name, socket.create_connection((host.strip("[]"), int(port)), seconds))
    except OSError as error:
        raise ConsoleError(f"{name}: {error.strerror or error}") from None
    return _Serial(name, baudrate, flow)


def _unix(path: str, seconds: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(seconds)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made


class _Socket:
    """A console that a virtual machine or a console server offers."""

    def __init__(self, name: str, made: socket.socket) -> None:
        self._name = name
        self._socket = made
        self._arrived = select.poll()
        self._arrived.register(made, select.POLLIN)
        made.settimeout(60)  # of one write; a node that hangs takes nothing

    def read(self, seconds: float) -> bytes:
        if not self._arrived.poll(1000 * max(0.0, seconds)):
            return b""
        try:
            data = self._socket.recv(AT_ONCE)
        except OSError as error:
            raise ConsoleError(f"{self._name}: {error.strerror or error}") from None
        if not data:
            raise ConsoleError(f"{self._name} was closed by the other side")
        return data

    def write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConsoleError(f"{self._name}: {error.strerror or error}") from None

    def close(self) -> None:
        self._socket.close()


class _Serial:
    """A serial port, or what pyserial makes of a URL: `socket://`, `rfc2217://`, `hwgrep://` …"""

    def __init__(self, name: str, baudrate: int, flow: str) -> None:
        try:
            import serial
        except ImportError:
            raise ConsoleError(f"{name}: serial ports need the Python package pyserial on the controller") from None
        self._name = name
        options: dict[str, Any] = {"rtscts": flow == "rtscts", "xonxoff": flow == "xonxoff", "write_timeout": 60}
        if "://" not in name:
            options["exclusive"] = True  # flock on the device: also against terminal programs that ask for it
        try:
            self._port = serial.serial_for_url(name, baudrate=baudrate, timeout=0, **options)
        except (OSError, ValueError) as error:  # pyserial's own are OSErrors
            raise ConsoleError(f"{name}: {error}") from None

    def read(self, seconds: float) -> bytes:
        try:
            self._port.timeout = max(0.0, seconds)
            first = bytes(self._port.read(1))
            if not first:
                return b""
            return first + bytes(self._port.read(min(AT_ONCE, self._port.in_waiting)))
        except (OSError, ValueError) as error:  # pyserial's own are OSErrors
            raise ConsoleError(f"{self._name}: {error}") from None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
            self._port.flush()
        except (OSError, ValueError) as error:  # pyserial's own are OSErrors
            raise ConsoleError(f"{self._name}: {error}") from None

    def close(self) -> None:
        self._port.close()


@contextlib.contextmanager
def locked(name: str, seconds: float) -> Iterator[None]:
    """Have the console alone among this user's processes. Raises ConsoleError where another keeps it for so long."""
    folder = os.path.join(tempfile.gettempdir(), f"impair.testbed-consoles-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.lstat(folder).st_uid != os.getuid():
        raise ConsoleError(f"{folder} belongs to somebody else; it is for the locks of consoles")
    path = os.path.join(folder, hashlib.sha256(_one_name(name).encode()).hexdigest()[:16])
    with open(path, "a+", encoding="utf-8") as lock:
        end = time.monotonic() + seconds
        while not _taken(lock.fileno()):
            if time.monotonic() >= end:
                lock.seek(0)
                raise ConsoleError(
                    f"{name} is used by process {lock.read() or '?'} for longer than {seconds:g} s "
                    "(ansible_serial_lock_timeout)"
                )
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _one_name(name: str) -> str:
    """The same for links such as /dev/serial/by-id/… and what they lead to."""
    kind, colon, rest = name.partition(":")
    if kind == "unix":
        return kind + colon + os.path.realpath(rest)
    return os.path.realpath(name) if name.startswith("/") else name


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
