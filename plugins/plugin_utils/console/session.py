# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and files over a console, by the node's side in files/console/agent.

Each request is a line that may be repeated until its answer is heard whole; so whatever the kernel prints meanwhile,
the result is the right one or an error.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import secrets
import time
from pathlib import Path

from .door import Door, Login
from .frames import Answer, Frames, Torn, checksum, said
from .hearing import Ear
from .port import ConsoleError, Port

AGENT = Path(__file__).resolve().parents[3] / "files/console/agent"
# Typed into whatever shell there is, so everything stands in one pair of quotes; shorter than the 4096 bytes of a
# terminal's line (N_TTY_BUF_SIZE). The folder's name is the terminal's: what an earlier connection left there goes.
START = (
    " sh -c 'token_={token};tty_=$(stty -g);mask_=$(umask);umask 077;ulimit -c 0;"
    "stty -echo icanon isig icrnl opost onlcr;"
    'for dir_ in /run /dev/shm /tmp;do dir_=$dir_/impair.testbed-$(id -u)$(tty|tr "/ " -_);rm -rf "$dir_" 2>/dev/null;'
    'mkdir "$dir_" 2>/dev/null&&break;dir_=;done;'
    'printf "\\n~%s:%s:%s~\\n" $token_ "b $dir_" "b $dir_";'
    'while read -r l;do [ "$l" = . ]&&break;printf "%s\\n" "$l";done>"$dir_/agent";'
    'case $(sha256sum<"$dir_/agent") in {hash}*). "$dir_/agent";;'
    '*)stty "$tty_";printf "\\n~%s:%s:%s~\\n" $token_ no no;;esac\'\n'
)
INTERRUPT = b"\x03\x1c"  # bash as sh waits for its command after Ctrl-C; Ctrl-\ ends it
LINE = 2000  # characters of an upload's line: half of what a terminal keeps
TRIES = 10
PATIENCE = 0.8  # seconds after which a request is repeated, beyond its time on the wire; each time longer
UNPACKING = 3.0  # the same, for what has to be unpacked first
STARTING = 5.0  # the same, for the node's side to begin
# That begins with a dozen programs. A node that takes longer than this (seconds) for them is a slow one, and all
# patience grows with it, within reason. An emulated board with a third of a processor took 6 to 12 s.
BRISK = 0.6
SLOWEST = 20.0
LONGEST_PATIENCE = 60.0
ROUNDS = 40  # of asking for frames without getting one


class CommandTimeout(ConsoleError):
    """The command still runs."""


class Session:
    """A console's shell, taken over until close()."""

    def __init__(self, port: Port, baudrate: int) -> None:
        self._port = port
        self._baudrate = baudrate
        self._token = secrets.token_hex(4)
        self._ids = 0
        self._asked = 0
        self._busy = False
        self._slow = 1.0  # by how much the node is slower than most
        self.ear = Ear(port)
        self.folder = ""  # on the node, for this connection; files put there go with it

    def open(self, login: Login, seconds: float) -> None:
        """Find a shell and start the node's side. Raises ConsoleError."""
        Door(self.ear, self._port.write, login, self._token).enter(seconds)
        program = [line.strip() for line in AGENT.read_text(encoding="ascii").splitlines()]
        lines = [line for line in program if line and not line.startswith("#")]
        for attempt in range(3):
            if self._start(lines, STARTING * 3**attempt):
                self.ear.mind_restart()
                return
        raise ConsoleError(
            f"the shell does not take its commands whole, or not in time, or there is no sha256sum; {self._console()}"
        )

    def _start(self, lines: list[str], seconds: float) -> bool:
        text = "".join(f"{line}\n" for line in lines)
        self.ear.forget()
        begin = time.monotonic()
        self._port.write(START.format(token=self._token, hash=hashlib.sha256(text.encode()).hexdigest()[:16]).encode())
        place = self.ear.until(said(self._token, r"b (/[^:~\s]+|)"), self._wire(800) + seconds)
        if place is None:
            self._port.write(INTERRUPT)
            return False
        self._slow = min(max(1.0, (time.monotonic() - begin - self._wire(800)) / BRISK), SLOWEST)
        if not place[2]:
            self._port.write(INTERRUPT)
            raise ConsoleError(f"there is no room in /run, /dev/shm and /tmp; {self._console()}")
        self.folder = place[2].decode()
        self._port.write(text.encode() + b".\n")
        answer = self.ear.until(said(self._token, r"ok|no|m[ a-z0-9]+"), self._wire(len(text)) + seconds)
        if answer is not None and answer[1].startswith(b"m"):
            raise ConsoleError(f"the node lacks what a console connection needs:{answer[1][1:].decode()}")
        if answer is None:
            self._port.write(INTERRUPT)
        return answer is not None and answer[1] == b"ok"

    # what a connection does ------------------------------------------------------------------------------------------
    def run(self, script: bytes, stdin: bytes | None = None, seconds: float = 0) -> Answer:
        """Run a script of sh's, with standard input; 0 seconds: for as long as it takes. Raises CommandTimeout."""
        self.upload(script, "s")
        if stdin:
            self.upload(stdin, "i")
        source = "i" if stdin else "n"
        self._ids += 1
        frames = Frames(self._token, self._ids)
        self._busy = True
        count = self._finished(f"r {self._ids} {self._ids} {source}", frames, seconds)
        self._busy = False
        for _attempt in range(3):
            self._complete(frames, count)
            try:
                return frames.answer(count)
            except Torn:
                frames.forget()
        raise ConsoleError("a command's answer did not come whole in three times; is something else using the console?")

    def upload(self, data: bytes, name: str) -> None:
        """Write the folder's file of this name, one letter. Raises ConsoleError."""
        text = base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
        lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
        for _attempt in range(3):
            self._ids += 1
            self._ask(f"u {self._ids} {self._ids} {name}", f"u {self._ids}", PATIENCE)
            self._send_lines(lines)
            if self._ask(f". {self._ids} {name}", rf"\. {self._ids} (\d+)", UNPACKING)[2] == b"0":
                return
        raise ConsoleError(f"a file of {len(data)} bytes did not arrive whole in three times; is {self.folder} full?")

    def close(self) -> None:
        """Leave the shell as it was; a command that still runs goes on."""
        try:
            if self.folder and (self._busy or not self._left()):
                self._port.write(INTERRUPT)
        except ConsoleError:
            pass
        self._port.close()

    def _left(self) -> bool:
        self.ear.forget()
        self._say("x")
        return self.ear.until(said(self._token, "x"), 2 * PATIENCE * self._slow) is not None

    # how -------------------------------------------------------------------------------------------------------------
    def _send_lines(self, lines: list[str]) -> None:
        """One line is under way at a time: a serial port without flow control loses what nobody reads.

        Without an answer, a short question comes before the line again, as a slow node may have the line yet to read:
        what waits must not fill the terminal (a console of User-Mode-Linux that was full once never listens again).
        """
        number = failed = 0
        while number < len(lines):
            line = lines[number]
            self.ear.forget()
            total = checksum(self._ids, number, line.encode())
            self._say(f"c {self._ids} {number} {total} {line}")
            wanted = said(self._token, rf"c {self._ids} {number + 1}|w {self._ids} (\d+)")
            answer = self.ear.until(wanted, self._wire(len(line)) + PATIENCE * self._slow)
            if answer is not None and answer[2] is None:
                number, failed = number + 1, 0
                continue
            failed += 1
            if failed == TRIES:
                raise self._silence("lines of a file do not arrive whole")
            self._asked += 1
            where = self._ask(
                f"p {self._ids} {self._asked}", rf"p {self._ids} {self._asked} (\d+)", PATIENCE, fresh=True
            )
            number, failed = int(where[2]), failed if int(where[2]) <= number else 0

    def _ask(self, request: str, answer: str, seconds: float, fresh: bool = False) -> re.Match[bytes]:
        self.ear.forget()
        for attempt in range(TRIES):
            self._say(request, fresh or attempt > 0)
            found = self.ear.until(said(self._token, answer), seconds * self._slow * (1 + attempt))
            if found is not None:
                return found
        raise self._silence("no answer")

    def _finished(self, request: str, frames: Frames, seconds: float) -> int:
        """Wait for a command's end, take the frames that come with it; how many there are."""
        patience = PATIENCE * self._slow
        end = time.monotonic() + seconds if seconds else None
        self.ear.forget()
        self._say(request)
        while True:
            wait = patience if end is None else min(patience, end - time.monotonic())
            found = self.ear.until(self._end(), wait, self._token.encode())
            frames.take(bytes(self.ear.heard))
            if found is not None:
                return int(found[2])
            if end is not None and time.monotonic() >= end:
                raise CommandTimeout(
                    f"the command takes longer than {seconds:g} s (ansible_serial_command_timeout); it goes on"
                    f"{self.ear.report()}"
                )
            # Asked again while the command runs, this waits in the terminal's 4096 bytes and is answered at its end.
            patience = min(2 * patience, LONGEST_PATIENCE)
            self.ear.forget()
            self._say(request, fresh=True)

    def _complete(self, frames: Frames, count: int) -> None:
        """Ask for the frames that were torn until none is missing."""
        failed = 0
        while missing := frames.missing(count):
            if failed == ROUNDS:
                raise self._silence(f"{sum(b - a for a, b in missing)} of {count} frames of an answer were always torn")
            for first, last in missing[:20]:
                self.ear.forget()
                self._say(f"g {self._ids} {first} {last}", fresh=True)
                self.ear.until(self._end(), PATIENCE * self._slow * (1 + failed), self._token.encode())
                frames.take(bytes(self.ear.heard))
            failed = failed + 1 if frames.missing(count) == missing else 0

    def _end(self) -> re.Pattern[bytes]:
        return said(self._token, rf"e {self._ids} (\d+)")

    def _say(self, request: str, fresh: bool = False) -> None:
        """A line; a `fresh` one where the line before may not have ended."""
        self._port.write(("\n" if fresh else "").encode() + f"{self._token} {request}\n".encode())

    def _wire(self, characters: int) -> float:
        return characters * 10 / self._baudrate

    def _silence(self, what: str) -> ConsoleError:
        return ConsoleError(f"{what}; {self._console()}{self.ear.report()}")

    def _console(self) -> str:
        return f"the console said: {self.ear.tail()}"
