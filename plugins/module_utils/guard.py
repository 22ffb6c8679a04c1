# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Never lock the operator out: a change that nobody confirms in time is taken back by the node itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

PENDING = Path("/run/impair.testbed/pending")
POLL = 0.25  # seconds
PLACE = "/run"  # a folder that is always there: its lock leaves nothing behind
_locks: list[int] = []


class Pending(NamedTuple):
    """Changes that wait for their confirmation, the oldest first: removing their files is the confirmation.

    Whoever removes a file decides, the operator or the node: removing is atomic.
    """

    files: tuple[Path, ...]

    @property
    def command(self) -> str:
        """The bare command that confirms; it fails when the node has taken a change back."""
        return " && ".join(f"rm {file}" for file in reversed(self.files))

    def disarm(self) -> None:
        """This change was not made after all; those before it still wait."""
        self.files[-1].unlink(missing_ok=True)


def arm(take_back: Callable[[], None], within: float) -> Pending:
    """Start a process of its own that calls `take_back` unless the change is confirmed in time.

    Call it within `alone()`, before the first write: the `within` seconds count from the end of that, so from the
    end of this process at the latest, even if it is killed. The guard is a copy of this process: it needs no program
    on the node, and outlives this process, the session and ssh. Changes of runs before that still wait are confirmed
    with this one; otherwise they are taken back after it.
    """
    PENDING.mkdir(mode=0o700, parents=True, exist_ok=True)
    older = waiting()
    # Its name tells its age; its lock, which the copy holds until it ends, that somebody guards it.
    file = PENDING / f"{time.monotonic_ns():020d}-{secrets.token_hex(4)}"
    lock = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    child = os.fork()
    if child:
        os.close(lock)
        os.waitpid(child, 0)
        return Pending((*older, file))
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        _detach()
        _wait(file, within, take_back)
    finally:
        os._exit(0)


def waiting() -> tuple[Path, ...]:
    """Files of the changes that still wait, the oldest first. Those that nobody guards any more are removed."""
    found = []
    for file in sorted(PENDING.glob("*")):
        if _guarded(file):
            found.append(file)
        else:
            file.unlink(missing_ok=True)
    return tuple(found)


def trust() -> None:
    """Confirm all changes that wait: another state is wanted now."""
    for file in reversed(waiting()):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run, or one taking back, at a time on this node."""
    lock = os.open(PLACE, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    _locks.append(lock)
    try:
        yield
    finally:
        _locks.remove(lock)
        os.close(lock)


def tidy() -> None:
    """Remove the folder of pending changes, unless one is pending."""
    with contextlib.suppress(OSError):
        PENDING.rmdir()


def _detach() -> None:
    """Let go of the caller's files and lock: ssh waits for its pipes to close."""
    os.chdir("/")
    while _locks:
        os.close(_locks.pop())
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _guarded(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _newer(file: Path) -> bool:
    return any(other.name > file.name and _guarded(other) for other in PENDING.glob("*"))


def _wait(file: Path, within: float, take_back: Callable[[], None]) -> None:
    """Until confirmed. A change on top of this one comes first: it is confirmed, or taken back, before this one."""
    with alone():
        pass  # the run that makes the change has ended
    deadline = time.monotonic() + within
    while file.exists():
        if time.monotonic() >= deadline and not _newer(file):
            with alone():
                if _newer(file):
                    continue
                try:
                    file.unlink()
                except FileNotFoundError:
                    return
                take_back()
                break
        time.sleep(POLL)
    tidy()  # the folder goes with its last file, whoever removed that
