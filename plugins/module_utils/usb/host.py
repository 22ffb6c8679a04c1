# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporting side of USB over IP in the kernel: usbip-host, driven through sysfs as `usbip bind` does it.

A bus id in `match_busid` is taken by usbip-host as soon as a device appears there, whatever device that is: after each
change of what is plugged in, somebody has to look whether it is still the right one (agent.py).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection
from pathlib import Path

from ..errors import StepFailed
from . import sysfs
from .sysfs import Device, Selector

NAME = "usbip-host"
OURS = Path("/run/impair.testbed/usb-server.bound")  # the bus ids that we have bound; what others bind stays theirs
AVAILABLE, USED, ERROR = "1", "2", "3"  # usbip_status (drivers/usb/usbip/usbip_common.h)


def driver() -> Path:
    """The driver's folder in sysfs."""
    return sysfs.BUS / "drivers" / NAME


def loaded() -> bool:
    """Whether the kernel has the driver."""
    return driver().is_dir()


def status(busid: str) -> str:
    """One of the states above; empty where the device is not exported."""
    try:
        return sysfs.BUS.joinpath("devices", busid, "usbip_status").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def wanted(selectors: Collection[Selector]) -> list[Device]:
    """The devices that are plugged in and asked for. What was itself attached from elsewhere is never passed on."""
    here = [device for device in sysfs.devices() if not device.remote]
    return [device for device in here if any(selector.matches(device) for selector in selectors)]


def ours() -> set[str]:
    """The bus ids that we have bound since the node started."""
    try:
        return set(json.loads(OURS.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return set()


def bind(device: Device) -> None:
    """Export a device. Nothing is done where it is exported already. Raises StepFailed."""
    if device.driver == NAME:
        _remember(ours() | {device.busid})
        return
    if device.driver:
        _write(sysfs.BUS / "drivers" / device.driver / "unbind", device.busid)
    _write(driver() / "match_busid", f"add {device.busid}")
    _remember(ours() | {device.busid})
    try:
        _write(driver() / "bind", device.busid)
    except StepFailed:
        release(device.busid)
        raise


def release(busid: str) -> None:
    """Give a device back to the node.

    The kernel forgets the bus id only with a device in its place (del_match_busid() in stub_main.c); without one
    nothing is done, and `rebind` would use the device that has gone.
    """
    if not sysfs.BUS.joinpath("devices", busid).exists():
        return
    if os.path.islink(driver() / busid):
        _write(driver() / "unbind", busid, gone=True)
    _write(driver() / "match_busid", f"del {busid}", gone=True)
    _write(driver() / "rebind", busid, gone=True)
    _remember(ours() - {busid})


def settle(selectors: Collection[Selector]) -> list[str]:
    """Bind what is asked for, give back what is not; returns what could not be done."""
    said = []
    chosen = {device.busid: device for device in wanted(selectors)}
    for busid in sorted(ours() - chosen.keys()):
        if driver().joinpath(busid).exists():  # another device is plugged in there; an empty place stays ours
            release(busid)
    for device in chosen.values():
        reason = sysfs.in_use(device.busid) if device.driver != NAME else ""
        try:
            if reason:
                said.append(f"{device} is not exported, as {reason}")
            elif device.driver != NAME or device.busid not in ours():
                bind(device)
        except StepFailed as error:
            said.append(str(error))
    return said


def _write(path: Path, text: str, gone: bool = False) -> None:
    """Into a file of sysfs; with `gone`, that there is no such device (any more) is what was wanted."""
    try:
        path.write_text(text, encoding="ascii")
    except OSError as error:
        if gone and error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            return
        raise StepFailed(f"echo {text} > {path}", error.strerror or str(error)) from error


def _remember(busids: Collection[str]) -> None:
    OURS.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not busids:
        OURS.unlink(missing_ok=True)
        return
    draft = OURS.with_name(f".{OURS.name}.{os.getpid()}")
    draft.write_text(json.dumps(sorted(busids)), encoding="utf-8")
    draft.replace(OURS)
