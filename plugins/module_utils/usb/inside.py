# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that is the inside of a gadget: `probe.py`, written out and run by itself.

It is started by start-stop-daemon, which every Debian has (dpkg), whatever its first process is.
"""

from __future__ import annotations

import hashlib
import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..converge import Step
from ..errors import StepFailed
from ..programs import run
from . import probe

FOLDER = Path("/run/impair.testbed")  # forgotten at a reboot, as the gadget is
PYTHON = "/usr/bin/python3"


class State(NamedTuple):
    """A running process and the program that stands in its place; nothing where there is none."""

    arguments: tuple[str, ...] = ()
    digest: str = ""


class InsideDomain:
    """The process of one gadget, known by its pid file and its command line; `gadget` as configfs has it."""

    name = "inside"

    def __init__(self, gadget: str, folder: Path = FOLDER) -> None:
        self._gadget = gadget
        self._file = folder / f"usb-{gadget}.py"
        self._pid = folder / f"usb-{gadget}.pid"

    def wanted(self, eject: float, insert: float) -> State:
        """The process that serves this gadget; seconds as probe.py takes them."""
        digest = _digest(_program())
        # The digest among its arguments: another program is another process.
        return State((PYTHON, str(self._file), self._gadget, f"{eject:g}", f"{insert:g}", digest), digest)

    def observe(self) -> State:
        try:
            digest = _digest(self._file.read_bytes())
        except OSError:
            digest = ""
        try:
            pid = int(self._pid.read_text(encoding="ascii"))
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except (OSError, ValueError):
            words = []
        # Else the number is another process's by now.
        return State(tuple(words) if words[:2] == [PYTHON, str(self._file)] else (), digest)

    def plan(self, current: State, desired: State) -> list[Step]:
        if current == desired:
            return []
        steps, retire = [], not desired.arguments
        if current.arguments:
            stop = (
                "start-stop-daemon",
                "--stop",
                "--quiet",
                "--oknodo",
                "--retry",
                "TERM/5/KILL/5",
                "--remove-pidfile",
            )
            steps.append(_step([*stop, "--pidfile", str(self._pid)], retire))
        if desired.digest and current.digest != desired.digest:
            steps.append(Step(f"install {self._file}", None))
        if current.digest and not desired.digest:
            steps.append(_step(["rm", "-f", str(self._file)], retire))
        if desired.arguments:
            program, *arguments = desired.arguments
            start = ("start-stop-daemon", "--start", "--quiet", "--background", "--make-pidfile", "--pidfile")
            steps.append(_step([*start, str(self._pid), "--startas", program, "--", *arguments]))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        for step in steps:
            if step.payload is None:
                self._file.write_bytes(_program())
                continue
            done = run(step.payload)
            if done.returncode != 0:
                raise StepFailed(step.command, done.stderr.strip() or f"exit {done.returncode}")

    def describe(self, state: State) -> list[str]:
        return [f"process {shlex.join(state.arguments)}"] if state.arguments else []


def _program() -> bytes:
    return inspect.getsource(probe).encode()


def _digest(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()[:12]


def _step(argv: list[str], retire: bool = False) -> Step:
    return Step(shlex.join(argv), argv, retire)
