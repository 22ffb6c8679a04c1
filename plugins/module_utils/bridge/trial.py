# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a change that may cut the connection it was asked over: detached, on trial, with a way back.

The runner is no child of the ssh session. Until somebody confirms over a fresh connection, nothing in /etc
speaks of the change: without a confirmation the runner takes it back, and a power cut takes it back as well.
Confirming and giving up are one rename of the same file, so that exactly one of them happens.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..converge import Target, converge, revert
from ..errors import TestbedError
from . import files, managers, memory
from .files import File
from .links import Links
from .memory import Memory
from .plan import LinksDomain

FOLDER = "/run/impair.testbed/bridge"
TRIAL_FILE = f"{FOLDER}/interfaces"
LOCK = f"{FOLDER}/lock"
POLL_SECONDS = 0.1
UNDER_WAY = "a change of this node's bridge is under way, or waits for its confirmation; try again when it has ended"


class Job(NamedTuple):
    """One change. The files are desired ones; `early` ones are for the network managers, taken back by `undo_early`."""

    domain: LinksDomain
    desired: Links
    trial_text: str
    early: tuple[File, ...]
    undo_early: tuple[File, ...]
    late: tuple[File, ...]  # written when the change is confirmed
    originals: tuple[File, ...]  # copied aside before anything is written
    memory_before: Memory | None
    memory_during: Memory | None
    memory_after: Memory | None


class Confirmation(NamedTuple):
    """The controller's name for this change, and how long it may take to confirm it."""

    token: str
    seconds: float


def folder(token: str) -> str:
    """Where this change's `pending` and `status` appear."""
    return f"{FOLDER}/{token}"


def lock() -> int:
    """One change at a time, also while one waits for its confirmation. The runner inherits the lock."""
    while True:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise TestbedError(UNDER_WAY) from None
        if os.path.exists(LOCK) and os.path.samestat(os.fstat(descriptor), os.stat(LOCK)):
            return descriptor
        os.close(descriptor)  # a clear that ended meanwhile took the file away


def tidy() -> None:
    """By whoever holds the lock, at the end: on a node without a bridge of ours nothing is left below /run."""
    if memory.load():
        return
    os.unlink(LOCK)
    for path in (FOLDER, os.path.dirname(FOLDER)):
        try:
            os.rmdir(path)
        except OSError:
            return  # the controller takes its folder away once it has read it; or others keep things there


def start(job: Job, confirmation: Confirmation | None) -> dict[str, Any] | None:
    """Run the job detached. With a confirmation return at once (None); without one wait for the status."""
    for name in os.listdir(FOLDER):  # what earlier changes left
        if os.path.isdir(f"{FOLDER}/{name}"):
            shutil.rmtree(f"{FOLDER}/{name}")
    if confirmation:
        os.makedirs(folder(confirmation.token), mode=0o700)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _detach(lambda: _report(job, confirmation, writer))
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        if confirmation:
            return None
        text = pipe.read()
    if not text:
        raise TestbedError("the change was cut off: its process ended without a status; run it again")
    status: dict[str, Any] = json.loads(text)
    return status


def _detach(work: Callable[[], None]) -> None:
    """In the child: leave the session, and never return."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.chdir("/")
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        work()
    finally:
        os._exit(0)  # no handler of the module's process may run a second time


def _report(job: Job, confirmation: Confirmation | None, writer: int) -> None:
    try:
        status = run(job, confirmation)
        files.write(File(TRIAL_FILE, None))
    except Exception as error:  # whatever it is, the operator has to read it
        status = {"outcome": "failed", "message": f"{type(error).__name__}: {error}", "after": []}
    tidy()
    text = json.dumps(status)
    if confirmation:
        files.write(File(f"{folder(confirmation.token)}/status", text + "\n", 0o600))
    try:
        os.write(writer, text.encode())
    except BrokenPipeError:
        pass  # whoever waited is gone


def run(job: Job, confirmation: Confirmation | None) -> dict[str, Any]:
    """The whole change; returns its status: outcome (committed, reverted, failed), message, after."""
    if job.memory_during:
        memory.copy(job.originals)
        memory.save(job.memory_during)
    files.write(File(TRIAL_FILE, job.trial_text, 0o600))
    _manage(job.early)
    try:
        report = converge([Target(job.domain, job.desired)])
    except TestbedError as error:
        _undo(job)
        return _status(job, "failed", str(error))
    if confirmation and not _confirmed(confirmation):
        return _take_back(job, report.states, confirmation)
    commit(job)
    return _status(job, "committed", "")


def settle(job: Job) -> None:
    """A change of files alone: nothing that could cut a connection."""
    if job.memory_during:
        memory.copy(job.originals)
        memory.save(job.memory_during)
    commit(job)
    managers.reload([file for file in job.late if file.path in managers.PATHS])


def commit(job: Job) -> None:
    """Make it last: files in /etc, then the memory."""
    for file in job.late:
        files.write(file)
    if job.undo_early and job.memory_after:  # now the same stands in /etc
        for file in job.undo_early:
            files.write(file)
    if job.memory_after:
        memory.save(job.memory_after)
    else:
        memory.forget()


def _confirmed(confirmation: Confirmation) -> bool:
    place = folder(confirmation.token)
    files.write(File(f"{place}/pending", "", 0o600))
    end = time.monotonic() + confirmation.seconds
    while time.monotonic() < end:
        if os.path.exists(f"{place}/confirmed"):
            return True
        time.sleep(POLL_SECONDS)
    try:
        os.rename(f"{place}/pending", f"{place}/expired")
    except FileNotFoundError:
        return True  # confirmed in the very last moment
    return False


def _take_back(job: Job, states: Sequence[Links], confirmation: Confirmation) -> dict[str, Any]:
    because = f"no confirmation over a fresh connection within {confirmation.seconds:g} s"
    try:
        revert([Target(job.domain, job.desired)], states)
    except TestbedError as error:
        _undo(job)
        return _status(job, "failed", f"{because}; going back failed as well: {error}")
    _undo(job)
    return _status(job, "reverted", because)


def _undo(job: Job) -> None:
    _manage(job.undo_early)
    if job.memory_before:
        memory.save(job.memory_before)
    else:
        memory.forget()


def _manage(drop_ins: Sequence[File]) -> None:
    for file in drop_ins:
        files.write(file)
    managers.reload(drop_ins)


def _status(job: Job, outcome: str, message: str) -> dict[str, Any]:
    return {"outcome": outcome, "message": message, "after": job.domain.describe(job.domain.observe())}
