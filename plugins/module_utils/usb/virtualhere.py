# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualHere's USB server on a node: its binary, its config.ini, its running, and who may reach it.

The binary is the user's own, under its vendor's licence. It is called as `vhusbd… -c config.ini -r stdout`. It writes
to config.ini itself (licence, names of devices), so only the keys that are asked for are ours.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import programs
from ..bridge.files import File, read, write
from ..capabilities import load
from ..converge import Report, Step, Target, converge
from ..errors import InvalidInput, StepFailed, TestbedError
from . import access, exports, listening, sysfs

FOLDER = Path("/usr/local/lib/impair.testbed/virtualhere")
CONFIG = "/etc/impair.testbed/virtualhere/config.ini"
LOG = "/run/impair-virtualhere.log"
PID = "/run/impair-virtualhere.pid"
UNIT = "/etc/systemd/system/impair-virtualhere.service"
HOOK = "/etc/network/if-up.d/impair-virtualhere"
SYSTEMD = "/run/systemd/system"
MARK = "IMPAIR_VIRTUALHERE"  # in the process's environment: what it was started with
STARTING, STOPPING, GRACE = 60.0, 20.0, 5.0  # seconds; within the last a process that was started can be seen
# e_machine and class of an ELF file (elf.h) → what `uname -m` calls such machines.
MACHINES = {
    (3, 1): "i686",
    (62, 2): "x86_64",
    (40, 1): "armv7l",
    (183, 2): "aarch64",
    (8, 1): "mips",
    (243, 2): "riscv64",
}
# Machines that run other ones' binaries as well.
ALSO = {"x86_64": ("i686",), "aarch64": ("armv7l",)}
ARM = ("armv6l", "armv7l", "armv8l")


class State(NamedTuple):
    """Our keys of config.ini, the file that starts the server, and what the running one was started with; "": none."""

    settings: tuple[tuple[str, str], ...] = ()
    starter: str | None = None
    running: str = ""


class ServerDomain:
    """The server on this node."""

    name = "virtualhere"

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """`keys` of config.ini that are ours."""
        self._keys = keys

    def observe(self) -> State:
        held = dict(line.split("=", 1) for line in (read(CONFIG).text or "").splitlines() if "=" in line)
        settings = tuple((key, held[key]) for key in self._keys if key in held)
        return State(settings, read(_starter_path()).text, _running()[1])

    def plan(self, current: State, desired: State) -> list[Step]:
        """Stopped before its configuration changes, as it writes that itself."""
        if current == desired:
            return []
        retire = not desired.running
        steps = [Step(f"stop VirtualHere (pid {_running()[0]})", "stop", retire)] if current.running else []
        if current.settings != desired.settings:
            steps.append(Step(f"install … {CONFIG}  # {_told(desired.settings)}", desired.settings, retire))
        if current.starter != desired.starter:
            file = File(_starter_path(), desired.starter, 0o644 if _systemd() else 0o755)
            verb = "rm" if desired.starter is None else "install"
            steps.append(Step(f"{verb} {file.path}", file, retire))
        if desired.running:
            steps.append(Step("systemctl start impair-virtualhere" if _systemd() else HOOK, "start"))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.payload == "stop":
                _stop()
            elif step.payload == "start":
                _start(step.command)
            elif isinstance(step.payload, File):
                write(step.payload)
            else:
                _configure(step.payload)

    def describe(self, state: State) -> list[str]:
        lines = [f"{CONFIG}: {_told(state.settings)}"] if state.settings else []
        return [*lines, f"VirtualHere running as {state.running}"] if state.running else lines


def present(params: Mapping[str, Any], check: bool) -> Report:
    """Run the server for the asked devices. Raises TestbedError."""
    port = exports.between(params["port"], exports.PORTS, "usb_server_port")
    clients = access.parse(params["clients"])
    products = _products(params["devices"], params["missing"] == "allow")
    binary = Path(params["binary"])
    digest = _check_binary(binary, params["sha256"])
    _check_port(port)
    settings = [("ServerName", params["name"] or os.uname().nodename), ("TCPPort", str(port))]
    settings.append(("AllowedDevices", ",".join(product.replace(":", "/") for product in products)))
    settings += [("License", params["license"])] if params["license"] else []
    identity = hashlib.sha256(repr((digest, settings)).encode()).hexdigest()[:16]
    desired = State(tuple(settings), _starter(binary, identity), identity)
    domain = ServerDomain([key for key, _value in settings])
    walls = [wall.target for wall in access.present(load(), port, clients)]
    report = converge([*walls, Target(domain, desired)], check)
    if not check:
        _remove_others(binary)
    return report


def absent(check: bool) -> Report:
    """No server, no chain, no binary of ours. config.ini stays: the vendor's licence may stand there."""
    walls = [wall.target for wall in access.absent(load())]
    report = converge([*walls, Target(ServerDomain(), State())], check)
    if not check:
        _remove_others(None)
        Path(LOG).unlink(missing_ok=True)
        if FOLDER.is_dir():
            FOLDER.rmdir()
    return report


def _products(devices: Sequence[Mapping[str, Any]], allow: bool) -> list[str]:
    """vendor:product of each; the server knows devices by nothing else."""
    found = []
    for number, device in enumerate(devices):
        place = f"usb_server_devices[{number}]"
        other = [key for key in ("busid", "serial") if device.get(key)]
        if other or not device.get("product"):
            raise InvalidInput(place, dict(device), "VirtualHere chooses devices by product alone, such as 0d28:0204")
        product = exports.check_product(str(device["product"]), f"{place}.product")
        here = [one for one in sysfs.devices() if not one.remote]
        if not allow and product not in [one.product for one in here]:
            offered = "; ".join(map(str, here)) or "no device at all"
            raise InvalidInput(f"{place}.product", product, f"no such device is plugged in; the node has {offered}")
        found.append(product)
    if not found:
        raise InvalidInput("usb_server_devices", [], "name at least one device, by product")
    return found


def _check_binary(binary: Path, wanted: str) -> str:
    """Its checksum. Raises TestbedError where it is not the asked one, or not for this machine."""
    try:
        content = binary.read_bytes()
    except OSError as error:
        raise TestbedError(f"usb_server_virtualhere: {binary}: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != wanted.lower():
        raise TestbedError(f"usb_server_virtualhere: {binary} has the sha256 {digest}, asked is {wanted}")
    here = os.uname().machine
    machine = _machine(content[:20])
    able = {here, *ALSO.get(here, ())} | ({"armv7l"} if here in ARM else set())
    if machine not in able:
        raise TestbedError(
            f"usb_server_virtualhere: {binary} is for {machine}, this node is {here}; give its own binary"
        )
    return digest


def _machine(head: bytes) -> str:
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return "no machine (it is no ELF file)"
    order = "<" if head[5] == 1 else ">"
    (number,) = struct.unpack_from(f"{order}H", head, 18)
    return MACHINES.get((number, head[4]), f"another machine (ELF {number})")


def _check_port(port: int) -> None:
    found = listening.listener(port)
    if found and found[0] != _running()[0]:
        who = f"{found[1]} (pid {found[0]})" if found[0] else "somebody"
        raise InvalidInput("usb_server_port", port, f"{who} listens there already; choose another TCP port, or end it")


def _systemd() -> bool:
    return os.path.isdir(SYSTEMD)


def _starter_path() -> str:
    return UNIT if _systemd() else HOOK


def _starter(binary: Path, identity: str) -> str:
    """What starts it, now and at boot: a unit, or a hook of ifupdown where no systemd is."""
    command = shlex.join([str(binary), "-c", CONFIG, "-r", "stdout"])
    if _systemd():
        lines = ["[Unit]", "Description=VirtualHere USB server (impair.testbed)", "After=network.target", ""]
        lines += ["[Service]", f"Environment={MARK}={identity}", f"WorkingDirectory={os.path.dirname(CONFIG)}"]
        lines += [
            f"ExecStart={command}",
            "Restart=always",
            "RestartSec=5",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
        return "\n".join([*lines, ""])
    start = f"start-stop-daemon --start --quiet --oknodo --background --make-pidfile --pidfile {PID} --output {LOG}"
    chdir = f"--chdir {os.path.dirname(CONFIG)}"
    program, _blank, arguments = command.partition(" ")
    head = "#!/bin/sh\n# Starts VirtualHere's USB server, at boot too, where no systemd is (impair.testbed).\n"
    return f"{head}{MARK}={identity} exec {start} {chdir} --startas {program} -- {arguments}\n"


def _running() -> tuple[int, str]:
    """Process and mark of the server; 0 and "" where none runs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes()
            except OSError:  # it ended
                continue
            marks = [one for one in environment if one.startswith(f"{MARK}=".encode())]
            if marks and CONFIG.encode() in line.split(b"\0"):
                return int(entry.name), marks[0].decode().partition("=")[2]
    return 0, ""


def _configure(settings: Sequence[tuple[str, str]]) -> None:
    """Our keys anew, the lines of others as they are."""
    ours = [key for key, _value in settings]
    lines = [line for line in (read(CONFIG).text or "").splitlines() if line.partition("=")[0] not in ours]
    lines += [f"{key}={value}" for key, value in settings]
    write(File(CONFIG, "\n".join([*lines, ""]), 0o600))


def _start(words: str) -> None:
    """Start it and wait until it listens. Raises StepFailed with what it said last."""
    lines = [
        ["systemctl", *words]
        for words in (("daemon-reload",), ("enable", "impair-virtualhere"), ("start", "impair-virtualhere"))
    ]
    for line in lines if _systemd() else [[HOOK]]:
        done = programs.run(line)
        if done.returncode:
            raise StepFailed(shlex.join(line), done.stderr.strip() or f"exit {done.returncode}")
    port = int(dict(ServerDomain(["TCPPort"]).observe().settings)["TCPPort"])
    end = time.monotonic() + STARTING
    while not (listening.listener(port) or (0, ""))[0]:
        if time.monotonic() > (end if _running()[0] else end - STARTING + GRACE):
            raise StepFailed(words, f"it does not listen on TCP {port}; it said: {_said()}")
        time.sleep(0.1)


def _said() -> str:
    if _systemd():
        return programs.run(["journalctl", "-n", "5", "-o", "cat", "-u", "impair-virtualhere"]).stdout.strip()
    return (read(LOG).text or "").strip()[-500:] or "nothing"


def _stop() -> None:
    if _systemd():
        programs.run(["systemctl", "disable", "--now", "impair-virtualhere"])
    pid = _running()[0]
    end, kill = time.monotonic() + STOPPING, time.monotonic() + STOPPING / 2
    while pid:
        try:
            os.kill(pid, signal.SIGTERM if time.monotonic() < kill else signal.SIGKILL)
        except ProcessLookupError:
            pass
        if time.monotonic() > end:
            raise StepFailed(f"kill {pid}", f"VirtualHere still runs after {STOPPING:g} s")
        time.sleep(0.1)
        pid = _running()[0]
    Path(PID).unlink(missing_ok=True)


def _remove_others(binary: Path | None) -> None:
    """Versions that are not asked for any more."""
    for file in FOLDER.glob("vhusbd-*"):
        if file != binary:
            file.unlink()


def _told(settings: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{key}={'…' if key == 'License' else value}" for key, value in settings) or "nothing of ours"
