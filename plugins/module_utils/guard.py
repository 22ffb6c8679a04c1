# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Never lock the operator out: a change that nobody confirms in time is taken back by the node itself."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PENDING = Path("/run/impair.testbed/pending")
POLL = 0.25  # seconds


class Pending(NamedTuple):
    """A change that waits for its confirmation: removing the file is the confirmation.

    Whoever removes the file decides, the operator or the node: removing is atomic.
    """

    file: Path
    within: float

    @property
    def command(self) -> str:
        """The bare command that confirms; it fails when the node has taken the change back."""
        return f"rm {self.file}"


def arm(take_back: Callable[[], None], within: float) -> Pending:
    """Start a process of its own that calls `take_back` unless the change is confirmed in `within` seconds.

    It is a copy of this process, so it needs no program on the node, and outlives it, the session and ssh.
    """
    PENDING.mkdir(mode=0o700, parents=True, exist_ok=True)
    pending = Pending(PENDING / secrets.token_hex(8), within)
    pending.file.touch(mode=0o600)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return pending
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        _detach()
        _wait(pending, take_back)
    finally:
        os._exit(0)


def tidy() -> None:
    """Remove the folder of pending changes, unless one is pending."""
    with contextlib.suppress(OSError):
        PENDING.rmdir()


def _detach() -> None:
    """Let go of the caller's files: ssh waits for its pipes to close."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _wait(pending: Pending, take_back: Callable[[], None]) -> None:
    deadline = time.monotonic() + pending.within
    while time.monotonic() < deadline:
        if not pending.file.exists():
            return
        time.sleep(POLL)
    try:
        pending.file.unlink()
    except FileNotFoundError:
        return
    take_back()
