# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes out of a console: waiting for something, remembering the end, and noticing that a kernel dies."""

from __future__ import annotations

import re
import time

from .frames import KERNEL_LINE, views
from .port import ConsoleError, Port

ANSI = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>])")
PANIC = re.compile(rb"Kernel panic - not syncing")
OOPS = re.compile(
    rb"\bOops\b|\bBUG: |kernel BUG at |Unable to handle kernel |Internal error: |general protection fault|"
    rb"self-detected stall|Kernel panic - not syncing"
)
RESTART = re.compile(rb"Linux version \d+\.\d+|U-Boot (?:SPL )?20\d\d\.")
LAST_WORDS = 5.0  # seconds that a panicking kernel has to finish its report, or to prove that it lives
REPORT_LINES = 40
KEPT = 4000  # bytes of the end, for errors


class Ear:
    """Listens to a port."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.heard = bytearray()  # since forget()
        self._end = b""
        self._line = b""  # the unfinished one
        self.trouble: list[str] = []  # lines of an oops or a panic
        self._panicked: float | None = None
        self._minds_restart = False
        self._restarted = ""

    def forget(self) -> None:
        """What comes from now on matters."""
        self.heard.clear()

    def mind_restart(self) -> None:
        """From now on a boot loader's or a kernel's first line is a disaster."""
        self._minds_restart = True

    def listen(self, seconds: float) -> bytes:
        """What comes next, waiting for so long at most."""
        data = self._port.read(seconds)
        self.heard += data
        self._end = (self._end + data)[-KEPT:]
        if data:
            self._watch(data)
        return data

    def text(self) -> bytes:
        """What was heard since forget(), without the terminal's codes and the kernel's lines."""
        return KERNEL_LINE.sub(b"", ANSI.sub(b"", bytes(self.heard)))

    def until(self, wanted: re.Pattern[bytes], seconds: float, alive: bytes = b"") -> re.Match[bytes] | None:
        """Wait for something said; None after so many seconds without it, counted anew whenever `alive` is heard.

        Raises ConsoleError where the kernel panics or the node starts anew.
        """
        end = time.monotonic() + seconds
        looked = 0
        while True:
            # What is wanted is short, and a kernel's lines in the midst of it are hundreds of bytes.
            for view in views(bytes(self.heard[max(0, looked - KEPT) :])):
                found = wanted.search(view)
                if found:
                    self._panicked = None
                    return found
            looked = len(self.heard)
            now = time.monotonic()
            self._check(now)
            if now >= end:
                return None
            data = self.listen(min(1.0, end - now))
            if alive and alive in data:
                end = time.monotonic() + seconds

    def tail(self) -> str:
        """The last lines, as part of an error."""
        text = ANSI.sub(b"", self._end).decode(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
        return " | ".join(line for line in lines[-12:] if line and not line.startswith("~"))[-1000:] or "(nothing)"

    def _watch(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-KEPT:]
        for line in lines:
            if self._minds_restart and RESTART.search(line):
                self._restarted = _readable(line)
            follows = 0 < len(self.trouble) < REPORT_LINES and line.strip() and not line.startswith(b"~")
            if OOPS.search(line) or follows:
                self.trouble.append(_readable(line))
            if PANIC.search(line) and self._panicked is None:
                self._panicked = time.monotonic()

    def _check(self, now: float) -> None:
        if self._restarted:
            raise ConsoleError(f"the node started anew: {self._restarted}{self.report()}")
        if self._panicked is not None and now > self._panicked + LAST_WORDS:
            raise ConsoleError(f"the node's kernel panicked{self.report()}")

    def report(self) -> str:
        """What a dying kernel said, to be added to a message."""
        return "\n".join(["; its console said:", *self.trouble[:REPORT_LINES]]) if self.trouble else ""


def _readable(line: bytes) -> str:
    return ANSI.sub(b"", line).decode(errors="replace").strip("\r\n\0 ")
