# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Consoles to test with: a program on a terminal of its own, behind a unix socket or a serial port, on a bad wire."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import socket
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.places import CHECKOUT, Done, run

TIME = b"[%5d.%06d] "
KERNEL = b"br0: port %d(eth%d) entered forwarding state: ~r 1:e 1 1:~ QUJDREVG\r\n"


class Wire:
    """What happens to bytes: a kernel's lines anywhere in what is said, bytes of what is typed that are lost."""

    def __init__(self, noise: float = 0, lost: float = 0, times: bool = True, speed: int = 0, seed: int = 1) -> None:
        self.noise = noise  # probability of a line, a byte
        self.lost = lost
        self.speed = speed  # baud; 0: as fast as it goes
        self._times = times  # CONFIG_PRINTK_TIME
        self.lines = 0
        self._chance = random.Random(seed)

    def said(self, data: bytes) -> bytes:
        if not self.noise:
            return data
        out = bytearray()
        for byte in data:
            if self._chance.random() < self.noise:
                out += self.line()
            out.append(byte)
        return bytes(out)

    def line(self) -> bytes:
        self.lines += 1
        n = self.lines
        said = KERNEL % (n % 9, n % 5)
        return TIME % (n // 7, n * 104729 % 10**6) + said if self._times else said

    def typed(self, data: bytes) -> bytes:
        if not self.lost:
            return data
        return bytes(byte for byte in data if self._chance.random() >= self.lost)


CLEAN = Wire()
VARIABLES = "ansible_python_interpreter=/usr/bin/python3 ansible_serial_timeout=100"  # this machine may be busy


def ansible(
    console: Console, module: str, arguments: str = "", *options: str, check: bool = True, pipelining: bool = True
) -> Done:
    """One module over this console, as a user has it."""
    argv = [*("ansible", "node", "-i", "node,", "-c", "impair.testbed.serial", "-m", f"ansible.builtin.{module}")]
    argv += ["-e", f"ansible_serial_port={console.name} {VARIABLES}"]
    settings = ["ANSIBLE_NOCOLOR=1", "ANSIBLE_CALLBACK_RESULT_FORMAT=json", f"ANSIBLE_PIPELINING={pipelining}"]
    argv += [*(["-a", arguments] if arguments else []), *options]
    return run(["env", "-C", str(CHECKOUT), *settings, *argv], None, check, timeout=560)


class Console:
    """A program with a terminal, whose other side is `name`; `log` is all that it said."""

    def __init__(self, argv: Sequence[str], socket_path: Path, wire: Wire = CLEAN, serial: bool = False) -> None:
        self.wire = wire
        self.log = bytearray()
        self.ended = threading.Event()
        self._piece = 64 if wire.speed else 4096  # bytes at once
        self._keys = bytearray()  # typed, and not yet taken
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        environment = {"PATH": os.environ["PATH"], "HOME": str(socket_path.parent), "TERM": "vt100", "PS1": "node# "}
        # setsid --ctty: the terminal on standard input becomes the program's own.
        # env: a run in the background minds no Ctrl-C, and a shell that inherits that cannot make its programs mind.
        self.process = subprocess.Popen(
            ["env", "--default-signal=INT,QUIT", "setsid", "--ctty", "--wait", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=socket_path.parent,
        )
        self._terminal = slave
        self._listener: socket.socket | None = None
        self._far: Any = None
        if serial:
            self._far, self._kept = pty.openpty()  # kept open, so that nobody hangs up
            tty.setraw(self._kept, termios.TCSANOW)
            self.name = os.ttyname(self._kept)
        else:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(socket_path))
            self._listener.listen()
            self.name = f"unix:{socket_path}"
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.ended.set()
        self.process.kill()
        self.process.wait()
        self._thread.join()
        os.close(self._terminal)

    def type(self, keys: bytes) -> None:
        """As somebody at the console would."""
        self._keys += keys

    def foreground(self) -> int:
        """The process group that reads what is typed."""
        return os.tcgetpgrp(self._master)

    def waiting(self) -> int:
        """Bytes that nobody has read yet."""
        return int.from_bytes(fcntl.ioctl(self._terminal, termios.FIONREAD, bytes(4)), sys.byteorder)

    def wait_for(self, text: bytes, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, bytes(self.log[-2000:])
            time.sleep(0.01)

    def say(self, data: bytes) -> None:
        """As a kernel would, between what the program says."""
        self._to_far(data)

    def _carry(self) -> None:
        """Both directions at once: a program that cannot say anything more does not listen either."""
        while not self.ended.is_set():
            far = self._far.fileno() if isinstance(self._far, socket.socket) else self._far
            watched = [self._master, *([far] if far is not None else []), *([self._listener] if self._listener else [])]
            ready, takes, _broken = select.select(watched, [self._master] if self._keys else [], [], 0.02)
            try:
                if takes:
                    del self._keys[: os.write(self._master, self._keys[: self._piece])]
                if self._master in ready:
                    data = os.read(self._master, self._piece)
                    self.log += data
                    self._to_far(self.wire.said(data))
                if far in ready:
                    self._typed(os.read(far, self._piece))
                if self.wire.speed:
                    time.sleep(self._piece * 10 / self.wire.speed)
                if self._listener in ready and self._listener and self._far is None:
                    self._far = self._listener.accept()[0]
            except BlockingIOError:  # nothing was to be had after all
                pass
            except ConnectionError:  # the controller left without hearing all
                self._typed(b"")
            except OSError:  # the program ended
                return

    def _typed(self, data: bytes) -> None:
        if not data:
            self._far.close()
            self._far = None
        self._keys += self.wire.typed(data)

    def _to_far(self, data: bytes) -> None:
        try:
            if isinstance(self._far, socket.socket):
                self._far.sendall(data)
            elif self._far is not None:
                os.write(self._far, data)
        except OSError:  # it went away: nobody hears this
            pass
