# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, ask and end a lab's keeper. A process is only ever ended when its start time is the recorded one too."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import StepFailed, TestbedError
from . import keeper, space, wire

PID_FILE = "keeper.pid"
SOCKET = "control.sock"


def recorded(directory: Path) -> int | None:
    """The pid of this run directory's keeper where that very process still runs, else None."""
    return living(directory / PID_FILE)


def living(record: Path) -> int | None:
    """The pid in a record of pid and start time, where that very process still runs, else None."""
    try:
        values = json.loads(record.read_text(encoding="ascii"))
        pid = int(values["pid"])
        return pid if keeper.start_time(pid) == values["start"] and not _zombie(pid) else None
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as handle:
        return handle.read().rpartition(")")[2].split()[0] in ("Z", "X")


def sources() -> dict[str, str]:
    """The programs of a lab that run from its run directory."""
    return {f"{module.__name__.rpartition('.')[2]}.py": inspect.getsource(module) for module in (keeper, space, wire)}


def current(directory: Path) -> bool:
    """Whether the lab's keeper was started from the programs that we have."""
    try:
        return all((directory / name).read_text(encoding="utf-8") == text for name, text in sources().items())
    except FileNotFoundError:
        return False


def start(directory: Path) -> None:
    """Start the keeper of a run directory and wait until it answers. Raises StepFailed with what it said."""
    with contextlib.suppress(FileNotFoundError):
        (directory / SOCKET).unlink()
    for name, text in sources().items():
        (directory / name).write_text(text, encoding="utf-8")
    log = directory / "keeper.log"
    with open(log, "ab") as out:
        done = subprocess.run(
            [sys.executable, "-I", str(directory / "keeper.py"), str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
            timeout=20,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    if done.returncode != 0:
        raise StepFailed("start the keeper", f"{_tail(log)}; see docs/virtual-lab.md on user namespaces")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with session(directory) as ask:
                ask("status")
            return
        except (OSError, TestbedError):
            if recorded(directory) is None:
                raise StepFailed("start the keeper", _tail(log)) from None
            time.sleep(0.02)
    raise StepFailed("start the keeper", f"no answer within 20 s: {_tail(log)}")


def _tail(log: Path, lines: int = 4) -> str:
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def session(directory: Path) -> Iterator[Any]:
    """A function `ask(request, **values)` that returns the keeper's answer. Raises StepFailed where it refuses."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.settimeout(60)
        # Relative to the folder's descriptor, so that a long path is no matter here.
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
        with sock.makefile("rw", encoding="utf-8") as stream:

            def ask(request: str, **values: object) -> dict[str, Any]:
                stream.write(json.dumps({"request": request, **values}) + "\n")
                stream.flush()
                line = stream.readline()
                answer: dict[str, Any] = json.loads(line) if line else {"ok": False, "error": "the keeper ended"}
                if not answer["ok"]:
                    raise StepFailed(f"{request} {values.get('name', '')}".strip(), answer["error"])
                return answer

            yield ask


def end(directory: Path, timeout: float = 20) -> None:
    """End the keeper, and with it everything in its namespaces. Returns when it is gone. `timeout` in seconds."""
    pid = recorded(directory)
    if pid is None:
        return
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if recorded(directory) != pid:  # the descriptor now pins the process that was checked
            return
        signal.pidfd_send_signal(watch, signal.SIGKILL)
        if not select.select([watch], [], [], timeout)[0]:
            raise StepFailed(f"kill {pid}", f"the lab's keeper did not end within {timeout:g} s")
    except ProcessLookupError:
        return
    finally:
        os.close(watch)
