# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's services: devices are exported, or attached, again whenever something was plugged, cut or started anew.

One process for each side. It looks at each event of the kernel's USB devices, and every few seconds, as links and
servers come back without an event. What it is to do stands in a file; the modules and it take turns by a lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import programs
from ..errors import StepFailed, TestbedError
from . import client, host, listening, protocol, vhci
from .client import Wanted
from .sysfs import Selector

RUN = Path("/run/impair.testbed")
LOCK = RUN / "usb.lock"
TICK = 2.0  # seconds
AGAIN = 5.0  # seconds until a start that failed is tried again
LISTENING = 20.0  # seconds that usbipd may take to start
DRIVERS = {"server": "usbip-host", "client": "vhci-hcd"}
_KOBJECT_UEVENT = 15  # linux/netlink.h
_PIDFD_GETFD = 438  # asm-generic/unistd.h, the same everywhere


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One at a time: the module, or a service."""
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with LOCK.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def status_file(side: str) -> Path:
    """What the service says of itself."""
    return RUN / f"usb-{side}.json"


def say(side: str, **more: Any) -> None:
    """Replace what the service says of itself: its pid, and what is wrong (`said`)."""
    file = status_file(side)
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps({"pid": os.getpid(), **more}), encoding="utf-8")
    draft.replace(file)


def serve(side: str, path: str) -> None:
    """Run for ever as the service of one side, by what stands in the file."""
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    say(side, identity=config["identity"], ready=False, said=[])
    load(side)
    prepare = {"server": _start_server, "client": lambda _config: None}[side]
    daemon = prepare(config)
    told = None
    with _events() as events:
        while daemon is None or daemon.poll() is None:
            with alone():
                said = _settle(side, config)
            if said != told:
                say(side, identity=config["identity"], ready=True, said=said)
                _log(*(said or ["all is as wanted"]))
                told = said
            _wait(events)
    raise StepFailed("usbipd", f"it ended with {daemon.returncode}")


def load(side: str) -> None:
    """Load the driver of one side. Raises StepFailed."""
    module = DRIVERS[side]
    present = {"server": host.loaded, "client": vhci.loaded}[side]
    if not present():
        done = programs.run(["modprobe", module])
        if done.returncode:
            raise StepFailed(f"modprobe {module}", done.stderr.strip())
    if not present():
        raise StepFailed(f"modprobe {module}", "it is loaded, and the kernel does not show it in /sys")


def _settle(side: str, config: Mapping[str, Any]) -> list[str]:
    """One look; returns what could not be done. Devices go while they are looked at: the next look tells."""
    try:
        if side == "server":
            return host.settle([Selector(**one) for one in config["devices"]])
        return client.settle([Wanted(**one) for one in config["devices"]], config["timeout"])
    except OSError as error:
        return [f"looked again, as a device has gone: {error}"]


def _start_server(config: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Close the port to all but the allowed, then open it. Raises StepFailed, with the port closed."""
    for entry in config["rules"]:
        restore(entry)
    argv = [programs.find("usbipd") or "usbipd", "--tcp-port", str(config["port"])]
    daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent())
    end = time.monotonic() + LISTENING
    while not listening.descriptors(daemon.pid, config["port"]):
        if daemon.poll() is not None or time.monotonic() > end:
            daemon.kill()
            raise StepFailed(" ".join(argv), f"nothing listens on TCP port {config['port']}")
        time.sleep(0.05)
    for descriptor in listening.descriptors(daemon.pid, config["port"]):
        _notice_loss(daemon.pid, descriptor, config["timeout"])
    return daemon


def restore(entry: Mapping[str, Any]) -> None:
    """Rules as they were saved, once more: our chain replaced as a whole, the jump only where there is none."""
    command = entry["command"]
    done = programs.run([f"{command}-restore", "-w", "10", "--noflush"], stdin=entry["text"])
    if done.returncode:
        raise StepFailed(f"{command}-restore", done.stderr.strip())
    if programs.run([command, "-w", "10", "-C", *entry["jump"]]).returncode:
        chain, *rule = entry["jump"]
        done = programs.run([command, "-w", "10", "-I", chain, "1", *rule])
        if done.returncode:
            raise StepFailed(f"{command} -I", done.stderr.strip())


def _notice_loss(pid: int, descriptor: int, seconds: int) -> None:
    """Make usbipd's connections end when a client is gone: they have the listening socket's options.

    usbipd asks for nothing of the kind, and a device whose client lost its power would stay in use for ever. Before
    Linux 5.6 there is no way to another process's socket: then the kernel's own patience counts.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        copy = libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
    finally:
        os.close(process)
    if copy < 0:
        _log(f"lost clients are noticed late: pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        return
    with socket.socket(fileno=copy) as shared:
        protocol.notice_loss(shared, seconds)


def _die_with_parent() -> Callable[[], None]:
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _events() -> socket.socket:
    """The kernel's own events: udev need not run."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _KOBJECT_UEVENT)
    events.bind((0, 1))
    return events


def _wait(events: socket.socket) -> None:
    """Until an event of a USB device, or the next look."""
    end = time.monotonic() + TICK
    while (left := end - time.monotonic()) > 0:
        if not select.select([events], [], [], left)[0]:
            return
        try:
            if b"SUBSYSTEM=usb" in events.recv(1 << 16):
                return
        except OSError:  # more came than fits: look at once
            return


def _log(*lines: str) -> None:
    """For the service's journal."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def main(side: str, path: str) -> None:
    """The service's program. What is wrong is said in the status file, and everything is tried again."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    while True:
        try:
            serve(side, path)
        except TestbedError as error:
            identity = json.loads(Path(path).read_text(encoding="utf-8"))["identity"]
            say(side, identity=identity, ready=False, said=[str(error)])
            _log(str(error))
        time.sleep(AGAIN)
