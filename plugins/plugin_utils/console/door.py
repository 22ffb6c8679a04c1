# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From whatever a console is doing to a shell that answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from .frames import said
from .hearing import Ear
from .port import ConsoleError

# Ctrl-Q, should somebody have stopped the output; to the end of a half-typed line and rub it out; Return. At a prompt
# of login or of a shell this does nothing; a half-typed line is never carried out.
KNOCK = b"\x11\x05\x15\r"
INTERRUPT = b"\x03"
# What else ends programs: pagers, those that mind no Ctrl-C, editors, interpreters.
END = b"\x04"
WAYS_OUT = (b"q", b"\x1c", b"\x1b:q!\r", END)
BOOTING = re.compile(rb"U-Boot|autoboot|Starting kernel")  # a key pressed now would stop it
ANOTHER = re.compile(rb"(?i)(new|current|retype|create)[^\r\n]*password: *$")
SHELL = re.compile(rb"[#$%>] *$")
REFUSED = re.compile(rb"(?i)login incorrect|authentication failure|permission denied|access denied")

# Seconds for login to ask for the password, and to judge it: a slow node takes as many, and keys meanwhile end it.
LOGIN = 30.0
NOISY = 1.0  # seconds after which a prompt is one even though other things follow it


class Login(NamedTuple):
    """Who logs in where a console asks, and how it asks (regular expressions for the end of what it says)."""

    user: str
    password: str
    login_prompt: re.Pattern[bytes]
    password_prompt: re.Pattern[bytes]


def shows(prompt: re.Pattern[bytes], text: bytes) -> bool:
    """Whether a line ends with this prompt, or did before a kernel went on in the same line."""
    for line in re.split(rb"[\r\n]+", text[-10000:]):
        if any(prompt.search(line, 0, space.end()) for space in re.finditer(rb"[ :]|$", line)):
            return True
    return False


class Door:
    """Looks for a shell, by knocking, logging in, and ending what is in the way."""

    def __init__(self, ear: Ear, write: Callable[[bytes], None], login: Login, token: str) -> None:
        self._ear = ear
        self._write = write
        self._login = login
        self._token = token
        self._tried = False  # the password
        self._begin = 0.0

    def enter(self, seconds: float) -> None:
        """Until a shell answers. Raises ConsoleError after so many seconds, or when the login is refused."""
        self._begin = time.monotonic()
        end = self._begin + seconds
        self._wait_for_boot(seconds)
        attempt = 0
        while time.monotonic() < end:
            text = self._send(KNOCK, self._patience(0.7 + 0.5 * attempt))
            if shows(self._login.password_prompt, text) and not ANOTHER.search(text):
                text = self._send(b"\r", self._patience(6))  # somebody's half login
            if shows(self._login.login_prompt, text):
                text = self._log_in()
            if ANOTHER.search(text):
                raise ConsoleError(f"the node wants another password first; the console said: {self._ear.tail()}")
            if self._shell_answers(attempt):
                return
            way = WAYS_OUT[attempt % len(WAYS_OUT)]
            if text or way != END:  # a shell on a busy node may only be slow, and would take this for the end
                self._write(way)
            attempt += 1
        raise ConsoleError(
            f"no shell answered within {seconds:g} s (ansible_serial_timeout); the console said: "
            f"{self._ear.tail()}{self._ear.report()}"
        )

    def _patience(self, seconds: float) -> float:
        """Longer where much time went by already: a node may be slow, and keys too early end what was about to come."""
        return max(seconds, (time.monotonic() - self._begin) / 5)

    def _wait_for_boot(self, seconds: float) -> None:
        self._ear.listen(0.05)
        if BOOTING.search(self._ear.heard):
            self._ear.until(self._login.login_prompt, seconds / 2)

    def _shell_answers(self, attempt: int) -> bool:
        """Ctrl-C takes what is unfinished away, also an open quote; then there is something harmless to say."""
        text = self._send(INTERRUPT, self._patience(0.5))
        if attempt == 0 and not SHELL.search(text):
            return False  # typed into less, the question would be a command to save what it shows: it gets a `q` first
        self._ear.forget()
        # What is typed is echoed; only what is carried out looks like this. On a terminal in raw mode all keys before
        # are part of a line, which must end: later, as that would carry out what was half typed.
        first = "\n" if attempt > 1 else ""
        self._write(f"{first} printf '\\n~%s:%s:%s~\\n' {self._token} here here\n".encode())
        return self._ear.until(said(self._token, "here"), self._patience(min(0.7 + 0.5 * attempt, 5))) is not None

    def _log_in(self) -> bytes:
        """What the console says after name and password. PAM takes seconds to refuse, and start files may, too."""
        login = self._login
        if not login.user:
            raise ConsoleError("the console asks for a login; set ansible_user and, where needed, ansible_password")
        text = self._send(login.user.encode() + b"\r", self._patience(LOGIN))
        if shows(login.password_prompt, text) and not ANOTHER.search(text):
            if not login.password:
                raise ConsoleError(f"the console asks for {login.user}'s password; set ansible_password")
            if self._tried:
                self._refuse()
            self._tried = True
            text = self._send(login.password.encode() + b"\r", self._patience(LOGIN))
        if REFUSED.search(text):
            self._refuse()
        return text

    def _refuse(self) -> None:
        raise ConsoleError(f"the node does not let {self._login.user} in; the console said: {self._ear.tail()}")

    def _send(self, keys: bytes, seconds: float) -> bytes:
        """What the console says to these keys until it waits for more, or for so many seconds."""
        self._ear.forget()
        self._write(keys)
        asked = (self._login.login_prompt, self._login.password_prompt)
        begin = now = time.monotonic()
        text = b""
        while now < begin + seconds:
            before = text
            self._ear.listen(0.05)
            text, now = self._ear.text(), time.monotonic()
            # What looks like a prompt may be a piece of a longer line: it is one if nothing follows.
            if text == before and any(prompt.search(text) for prompt in (*asked, SHELL, ANOTHER)):
                return text
            if now > begin + NOISY and any(shows(prompt, text) for prompt in (*asked, SHELL)):
                return text
        return text
