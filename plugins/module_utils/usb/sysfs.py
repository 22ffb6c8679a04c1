# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's USB devices, as /sys/bus/usb shows them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

BUS = Path("/sys/bus/usb")
MOUNTS = Path("/proc/self/mounts")
HUB = "09"  # bDeviceClass (USB 2.0, 11.23.1)
_BUSID = re.compile(r"\d+-\d+(\.\d+)*")
_KINDS = ("block", "tty", "hidraw", "net")


class Device(NamedTuple):
    """A device as it is plugged in. `driver`: `usb` where the node uses it itself, `usbip-host` where it exports it."""

    busid: str
    product: str  # vendor:product
    serial: str = ""
    name: str = ""
    driver: str = ""
    remote: bool = False  # another node's, attached here by vhci_hcd

    def __str__(self) -> str:
        return " ".join(part for part in (self.busid, self.product, self.serial, self.name) if part)


class Selector(NamedTuple):
    """Which devices are meant: those of which everything that is given is true."""

    busid: str = ""
    product: str = ""
    serial: str = ""

    def matches(self, device: Device) -> bool:
        return (
            self.busid in ("", device.busid)
            and self.product in ("", device.product)
            and self.serial in ("", device.serial)
        )

    def __str__(self) -> str:
        return " ".join(f"{name} {value}" for name, value in self._asdict().items() if value)


def devices() -> list[Device]:
    """All that could be exported, or is attached: no hubs. A device that goes meanwhile is left out."""
    found = []
    for folder in sorted(BUS.glob("devices/*")):
        if _BUSID.fullmatch(folder.name):
            try:
                device = _device(folder)
            except OSError:
                continue
            if device is not None:
                found.append(device)
    return found


def _device(folder: Path) -> Device | None:
    if _text(folder / "bDeviceClass") == HUB:
        return None
    driver = folder / "driver"
    return Device(
        folder.name,
        f"{_text(folder / 'idVendor')}:{_text(folder / 'idProduct')}",
        _optional(folder / "serial"),
        _optional(folder / "product"),
        os.path.basename(os.readlink(driver)) if driver.is_symlink() else "",
        "/vhci_hcd." in str(folder.resolve()),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _optional(path: Path) -> str:
    """A device need not have these."""
    try:
        return _text(path)
    except FileNotFoundError:
        return ""


def _folder(busid: str) -> str:
    """Where the device itself is in /sys; empty where it has gone, also while it is looked for.

    Path.resolve() raises in that moment even where it need not exist (posixpath.realpath(): lstat, then readlink).
    """
    try:
        return str(BUS.joinpath("devices", busid).resolve(strict=True))
    except OSError:
        return ""


def offers(busid: str) -> dict[str, list[str]]:
    """What the device is to this node: kind → names of disks (with partitions), ports, HID devices and interfaces."""
    found: dict[str, list[str]] = {}
    for folder, _folders, _files in os.walk(_folder(busid)):
        subsystem = os.path.join(folder, "subsystem")
        kind = os.path.basename(os.readlink(subsystem)) if os.path.islink(subsystem) else ""
        if kind in _KINDS:
            found.setdefault(kind, []).append(os.path.basename(folder))
    return {kind: sorted(names) for kind, names in sorted(found.items())}


def without_driver(busid: str) -> list[str]:
    """Modaliases of the parts of the device that no driver has: its interfaces, and what those consist of."""
    found = []
    for folder, _folders, files in os.walk(_folder(busid)):
        if "modalias" in files and not os.path.islink(os.path.join(folder, "driver")):
            found.append(_optional(Path(folder, "modalias")))
    return sorted(set(filter(None, found)))


def in_use(busid: str) -> str:
    """What of this node would break if the device went: a mounted disk, an interface that is up; empty: nothing."""
    offered = offers(busid)
    sources = {line.split()[0] for line in _text(MOUNTS).splitlines()}
    for disk in offered.get("block", ()):
        if f"/dev/{disk}" in sources:
            return f"its disk /dev/{disk} is mounted"
    for interface in offered.get("net", ()):
        if int(_optional(Path("/sys/class/net", interface, "flags")) or "0", 16) & 1:  # IFF_UP
            return f"its interface {interface} is up"
    return ""
