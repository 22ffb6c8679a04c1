# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that make the load, and the processor time that they and the machine spend."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

from ..errors import StepFailed
from ..orphans import die_with_parent
from ..programs import SEARCH_PATH, find

SHOWN = 300  # characters of what a program said that an error repeats
TICKS = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """One run of the load. Times in seconds; `user` and `system`: of the programs; `busy`: of all processors of the
    machine together; `own`: of the observer. `said`: what each program printed, as data where that is JSON."""

    observed: bool
    seconds: float
    user: float
    system: float
    own: float
    busy: float
    said: list[Any]


class _Started(NamedTuple):
    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]


def run(commands: Sequence[Sequence[str]], within: float, observed: bool, choose: Callable[[int], None]) -> Run:
    """Run programs beside each other until all have ended. `choose` is told each one's PID before the program begins.

    Raises StepFailed: one is not there, failed, or did not end within so many seconds. None is left running.
    """
    before, own, busy, began = _children(), _own(), _busy(), time.monotonic()
    started: list[_Started] = []
    with contextlib.ExitStack() as stack:
        for argv in commands:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _which in range(2))
            process = _start(argv, out, err, choose)
            stack.callback(_end, process)
            started.append(_Started(argv, process, out, err))
        for one in started:
            _wait(one, began + within)
        seconds = time.monotonic() - began
        said = [_said(one.out) for one in started]
    after = _children()
    return Run(observed, seconds, after[0] - before[0], after[1] - before[1], _own() - own, _busy() - busy, said)


def rest(seconds: float) -> Run:
    """No load of ours: others have theirs meanwhile."""
    own, busy, began = _own(), _busy(), time.monotonic()
    time.sleep(seconds)
    return Run(True, time.monotonic() - began, 0.0, 0.0, _own() - own, _busy() - busy, [])


def _start(
    argv: Sequence[str], out: IO[bytes], err: IO[bytes], choose: Callable[[int], None]
) -> subprocess.Popen[bytes]:
    path = find(argv[0])
    if path is None:
        raise StepFailed(" ".join(argv), "there is no such program on the node")

    def prepare() -> None:
        die_with_parent()
        choose(os.getpid())

    return subprocess.Popen(
        [path, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env={**os.environ, "LC_ALL": "C", "PATH": SEARCH_PATH},
        preexec_fn=prepare,
    )


def _wait(one: _Started, end: float) -> None:
    words = " ".join(one.argv)
    try:
        code = one.process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise StepFailed(words, "it did not end in time") from None
    if code:
        raise StepFailed(words, f"exit {code}: {(_text(one.err) or _text(one.out))[-SHOWN:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _said(file: IO[bytes]) -> Any:
    text = _text(file)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _children() -> tuple[float, float]:
    """Seconds, of programs that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime


def _own() -> float:
    return time.process_time()


def _busy() -> float:
    """Seconds that the machine's processors were not idle (proc_stat(5)): all but idle and iowait."""
    with open("/proc/stat", encoding="ascii") as file:
        numbers = [int(word) for word in file.readline().split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICKS
