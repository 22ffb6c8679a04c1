# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's service of one side, as converge() wants it: its files, its running, and the driver it needs.

Under systemd it is a unit. Other nodes start it by start-stop-daemon (dpkg has it), at boot when ifupdown brings up
the first interface; that is what the virtual lab's nodes have.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import errors, programs
from ..bridge.files import File, read, write
from ..converge import Step
from ..errors import MissingCapability, StepFailed
from . import agent, client, drivers, host, listening, protocol, sysfs, vhci

LIBRARY = "/usr/local/lib/impair.testbed"
SYSTEMD = "/run/systemd/system"
STARTING = 60.0  # seconds until it has said whether all is well
STOPPING = 20.0
_PARTS = (agent, client, host, listening, protocol, sysfs, vhci)
_START = """# What starts here: the service usb-{side} of impair.testbed (usb/agent.py).
import sys
from testbed.usb.agent import main
main(*sys.argv[1:])
"""
_UNIT = """[Unit]
Description=USB over IP, {side} (impair.testbed)
After=network.target

[Service]
ExecStart={command}
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
"""
_HOOK = """#!/bin/sh
# At boot, without systemd: the service usb-{side} of impair.testbed. Called for each interface; the first one counts.
[ -d /run/systemd/system ] || {start}
"""


class Service(NamedTuple):
    """`running` is the identity of the configuration and program that the running service has; empty: none runs."""

    files: tuple[File, ...]
    running: str
    loaded: bool


def config_path(side: str) -> str:
    return f"/etc/impair.testbed/usb-{side}.json"


def unit(side: str) -> str:
    return f"impair-usb-{side}"


def command(side: str) -> list[str]:
    """The service's program as a command."""
    return ["/usr/bin/python3", "-I", "-B", f"{LIBRARY}/usb-{side}", side, config_path(side)]


def start_command(side: str) -> list[str]:
    """Where no systemd is. The service says what is wrong in a file that is forgotten at the next boot."""
    program, *arguments = command(side)
    log = f"/run/{unit(side)}.log"
    pid = ["--make-pidfile", "--pidfile", f"/run/{unit(side)}.pid"]
    return [
        *("start-stop-daemon", "--start", "--oknodo", "--background", *pid, "--output", log),
        *("--startas", program, "--", *arguments),
    ]


def config(side: str) -> dict[str, Any]:
    """The configuration that stands; empty where there is none."""
    text = read(config_path(side)).text
    return dict(json.loads(text)) if text else {}


def desired(side: str, values: Mapping[str, Any]) -> Service:
    """The service with this configuration."""
    library = f"{LIBRARY}/usb-{side}"
    sources = {f"testbed/usb/{part.__name__.rpartition('.')[2]}.py": part for part in _PARTS}
    sources |= {"testbed/errors.py": errors, "testbed/programs.py": programs}
    files = [File(f"{library}/{name}", inspect.getsource(part)) for name, part in sorted(sources.items())]
    files.append(File(f"{library}/__main__.py", _START.format(side=side)))
    files.append(_starter(side))
    identity = hashlib.sha256(repr((files, sorted(values.items()))).encode()).hexdigest()[:16]
    files.append(
        File(config_path(side), json.dumps({**values, "identity": identity}, indent=1, sort_keys=True) + "\n", 0o600)
    )
    return Service(tuple(files), identity, True)


def _starter(side: str) -> File:
    """What starts it at boot."""
    if os.path.isdir(SYSTEMD):
        text = _UNIT.format(side=side, command=shlex.join(command(side)))
        return File(f"/etc/systemd/system/{unit(side)}.service", text)
    hook = _HOOK.format(side=side, start=shlex.join(start_command(side)))
    return File(f"/etc/network/if-up.d/{unit(side)}", hook, 0o755)


def absent(side: str, now: Service) -> Service:
    """No such service. The driver stays: others may use it."""
    return Service(tuple(File(file.path, None) for file in desired(side, {}).files), "", now.loaded)


def require_driver(side: str) -> None:
    """Raise MissingCapability where the kernel neither has the driver nor a module of it."""
    what, name = {
        "server": ("exporting USB devices", "usb.usbip_host"),
        "client": ("attaching USB devices", "usb.vhci_hcd"),
    }[side]
    found = drivers.capabilities()[name]
    if found is not True:
        raise MissingCapability(what, str(found), f"the kernel {os.uname().release} comes without it")


def _loaded(side: str) -> bool:
    return host.loaded() if side == "server" else vhci.loaded()


def status(side: str) -> dict[str, Any]:
    """What the running service says of itself; empty where none runs."""
    try:
        said = dict(json.loads(agent.status_file(side).read_text(encoding="utf-8")))
        line = Path(f"/proc/{said['pid']}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError):
        return {}
    return said if config_path(side).encode() in line else {}


def owns_listener(side: str, pid: int) -> bool:
    """Whether a process was started by the running service."""
    now = status(side)
    return bool(now) and listening.parent(pid) == now["pid"]


class ServiceDomain:
    """The service of one side of this node."""

    def __init__(self, side: str) -> None:
        self.name = unit(side)
        self.side = side

    def observe(self) -> Service:
        now = status(self.side)
        files = tuple(read(file.path) for file in desired(self.side, {}).files)
        return Service(files, now.get("identity", "") if now.get("ready") else "", _loaded(self.side))

    def plan(self, current: Service, desired: Service) -> list[Step]:
        """The service is stopped before what it works on is taken away, else it would bring that back."""
        steps = []
        files = [file for now, file in zip(current.files, desired.files) if not _same(now, file)]
        if desired.loaded and not current.loaded:
            steps.append(Step(f"modprobe {agent.DRIVERS[self.side]}", "load"))
        restart = bool(files) or current.running != desired.running
        if restart and status(self.side):
            steps.append(Step(self._words("stop"), "stop"))
        steps += [Step(_told(file), file) for file in files]
        if restart and desired.running:
            steps.append(Step(self._words("start"), "start"))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step.payload, File):
                write(step.payload)
                if step.payload.text is None:
                    _tidy(step.payload.path)
            elif step.payload == "load":
                agent.load(self.side)
            elif step.payload == "stop":
                self._stop()
            else:
                self._start()

    def describe(self, state: Service) -> list[str]:
        lines = [f"{file.path} {_digest(file)}" for file in state.files if file.text is not None]
        return [*lines, f"{self.name}: running as {state.running}"] if state.running else lines

    def _words(self, verb: str) -> str:
        if os.path.isdir(SYSTEMD):
            return f"systemctl {verb} {self.name}.service"
        return shlex.join(start_command(self.side)) if verb == "start" else f"kill $(cat /run/{self.name}.pid)"

    def _start(self) -> None:
        """Start it, now and at boot, and wait until it has said that all is well."""
        if os.path.isdir(SYSTEMD):
            lines = [
                ["systemctl", *words] for words in (["daemon-reload"], ["enable", self.name], ["start", self.name])
            ]
        else:
            lines = [start_command(self.side)]
        for line in lines:
            done = programs.run(line)
            if done.returncode:
                raise StepFailed(shlex.join(line), done.stderr.strip() or f"it ended with {done.returncode}")
        end = time.monotonic() + STARTING
        while not (now := status(self.side)).get("ready"):
            if now.get("said") or time.monotonic() > end:
                reason = "; ".join(now.get("said", ())) or f"it has not said within {STARTING:.0f} s that it is ready"
                raise StepFailed(self._words("start"), reason)
            time.sleep(0.05)

    def _stop(self) -> None:
        if os.path.isdir(SYSTEMD):
            programs.run(["systemctl", "disable", "--now", self.name])
        else:
            _end(status(self.side).get("pid", 0))
            Path(f"/run/{self.name}.pid").unlink(missing_ok=True)
        end = time.monotonic() + STOPPING
        while status(self.side):
            if time.monotonic() > end:
                raise StepFailed(self._words("stop"), f"it still runs after {STOPPING:.0f} s")
            time.sleep(0.05)
        for file in (agent.status_file(self.side), Path(f"/run/{self.name}.log")):
            file.unlink(missing_ok=True)


def tidy() -> None:
    """What stands below /run for both sides goes with the last of them."""
    if any(os.path.exists(config_path(side)) for side in agent.DRIVERS):
        return
    agent.LOCK.unlink(missing_ok=True)
    try:
        agent.RUN.rmdir()
    except OSError:  # other parts keep something there
        pass


def _end(pid: int) -> None:
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def _same(now: File, wanted: File) -> bool:
    """Owner and rights of a file that is not there mean nothing."""
    return now == wanted or (now.text is None and wanted.text is None)


def _told(file: File) -> str:
    return f"rm {file.path}" if file.text is None else f"install -m {file.mode:o} … {file.path}"


def _digest(file: File) -> str:
    return f"sha256:{hashlib.sha256((file.text or '').encode()).hexdigest()[:16]}"


def _tidy(path: str) -> None:
    """The folders that are left empty go too."""
    for folder in list(Path(path).parents)[:4]:
        if folder.name in ("system", "if-up.d"):
            return
        try:
            folder.rmdir()
        except OSError:
            return
