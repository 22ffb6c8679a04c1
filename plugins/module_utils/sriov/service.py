# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call: the VFs that are asked for, no others of ours, and the files that bring them back at boot."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .. import converge as flow
from .. import errors, namespace, netlink, programs, schema, units
from ..bridge.files import File, command, read, write
from ..converge import Report, Step, Target, converge
from ..errors import StepFailed
from ..memory import Memory
from ..netlink import Socket
from . import codec, domain, engine, model, places, sysfs
from .domain import SriovDomain
from .model import Function, parse, record, recorded

LIBRARY = "/usr/local/lib/impair.testbed/sriov"
CONFIG = "/etc/impair.testbed/sriov.json"
SYSTEMD = "/run/systemd/system"
UNIT = "/etc/systemd/system/impair-sriov.service"
HOOK = "/etc/network/if-up.d/impair-sriov"
COMMAND = f"/usr/bin/python3 -I -B {LIBRARY} {CONFIG}"
_START = """# What the unit or hook impair-sriov starts at boot.
import sys
from testbed.errors import TestbedError
from testbed.sriov.engine import at_boot
try:
    print(*at_boot(*sys.argv[1:]), sep="\\n")
except TestbedError as error:
    sys.exit(f"impair-sriov: {error}")
"""
_UNIT = f"""[Unit]
Description=Virtual functions of network interfaces (impair.testbed)
After=systemd-modules-load.service systemd-udevd.service
Wants=network-pre.target
Before=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={COMMAND}

[Install]
WantedBy=multi-user.target
"""
_HOOK = f"""#!/bin/sh
# At boot, without systemd: virtual functions (impair.testbed). Called for each interface; the first one counts.
[ ! -d {SYSTEMD} ] || exit 0
(set -C; : >/run/impair-sriov.log) 2>/dev/null || exit 0
{COMMAND} >/run/impair-sriov.log 2>&1 </dev/null &
"""
_PARTS = (codec, domain, engine, model, places, sysfs)
_SHARED = (flow, errors, namespace, netlink, programs, schema, units)


def hold(interfaces: Sequence[Mapping[str, Any]], persistent: bool = True, check: bool = False) -> Report:
    """Bring the node to these VFs; interfaces of an earlier call that are left out get what they had before it.

    Raises TestbedError, with nothing touched, where that cannot be.
    """
    asked = parse(interfaces)
    engine.check(asked)
    memory = Memory()
    present = {name for _index, name in socket.if_nameindex()}
    earlier = _earlier(memory)
    left = (earlier & present) - {one.interface for one in asked}
    desired = (*asked, *(_before(memory, interface) for interface in sorted(left)))
    with Socket() as rtnetlink:
        functions = SriovDomain(rtnetlink, [one.interface for one in desired])
        files = _files(asked if persistent else ())
        report = converge(
            [Target(functions, desired), Target(BootDomain(), files)],
            check,
            lambda states, _steps: _remember(memory, earlier, states[0]),
        )
    if not check:
        for interface in left:
            memory.forget(_key(interface))
    return report


def _key(interface: str) -> str:
    return f"sriov-{interface}"


def _earlier(memory: Memory) -> set[str]:
    """Interfaces of earlier calls, as far as node and files know."""
    text = read(CONFIG).text
    configured = {one.interface for one in recorded(json.loads(text)["interfaces"])} if text else set()
    return configured | {key.removeprefix(_key("")) for key in memory.keys(_key(""))}


def _before(memory: Memory, interface: str) -> Function:
    """What there was before us; none where the node has started since then."""
    kept = memory.recall(_key(interface))
    return recorded(kept)[0] if kept else Function(interface, ())


def _remember(memory: Memory, ours: set[str], functions: Sequence[Function]) -> None:
    """What was brought back at boot is ours."""
    for one in functions:
        memory.remember(_key(one.interface), record([Function(one.interface, ()) if one.interface in ours else one]))


def _files(functions: Sequence[Function]) -> tuple[File, ...]:
    """All files of ours; without a content where nothing is to be brought back."""
    sources = {f"testbed/sriov/{_name(part)}.py": part for part in _PARTS}
    sources |= {f"testbed/{_name(part)}.py": part for part in _SHARED}
    texts = {f"{LIBRARY}/{path}": inspect.getsource(part) for path, part in sorted(sources.items())}
    texts |= {f"{LIBRARY}/__main__.py": _START}
    texts |= {CONFIG: json.dumps({"interfaces": record(functions)}) + "\n"}
    files = [File(path, text) for path, text in texts.items()]
    files.append(File(UNIT, _UNIT) if os.path.isdir(SYSTEMD) else File(HOOK, _HOOK, 0o755))
    return tuple(files if functions else (File(file.path, None) for file in files))


def _name(part: Any) -> str:
    return str(part.__name__.rpartition(".")[2])


class BootDomain:
    """The files that bring VFs back at boot, and the unit that starts them."""

    name = "boot"

    def observe(self) -> tuple[File, ...]:
        return tuple(read(file.path) for file in _files(()))

    def plan(self, current: Sequence[File], desired: Sequence[File]) -> list[Step]:
        """Files that are not there have no rights that could differ."""
        now = {file.path: file for file in current}
        changed = [one for one in desired if now[one.path] != one and (one.text or now[one.path].text) is not None]
        steps = [Step(command(file), partial(_put, file)) for file in changed]
        for file in changed:
            if file.path == UNIT:
                verb = "enable" if file.text else "disable"
                lines = (["systemctl", verb, Path(UNIT).stem], ["systemctl", "daemon-reload"])
                told = [Step(" ".join(line), partial(_run, line)) for line in lines]
                steps = [told[0], *steps, told[1]] if file.text is None else [*steps, *reversed(told)]
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            try:
                step.payload()
            except OSError as error:
                raise StepFailed(step.command, error.strerror or str(error)) from error

    def describe(self, state: Sequence[File]) -> list[str]:
        """The configuration whole, as it is what decides; of the program one digest."""
        there = [file for file in state if file.text is not None]
        program = [file for file in there if file.path.startswith(LIBRARY)]
        lines = [f"{file.path}: {file.text}".strip() if file.path == CONFIG else file.path for file in there]
        lines = [line for line in lines if not line.startswith(LIBRARY)]
        digest = hashlib.sha256(repr(program).encode()).hexdigest()[:16]
        return [*lines, f"{LIBRARY} sha256:{digest}"] if program else lines


def _put(file: File) -> None:
    write(file)
    for folder in list(Path(file.path).parents)[:4]:
        if file.text is not None or folder.name in ("system", "if-up.d"):
            return
        try:
            folder.rmdir()
        except OSError:  # something is in it
            return


def _run(line: Sequence[str]) -> None:
    done = programs.run(line)
    if done.returncode:
        raise StepFailed(" ".join(line), done.stderr.strip() or f"it ended with {done.returncode}")
