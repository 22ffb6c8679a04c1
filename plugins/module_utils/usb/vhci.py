# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attaching side of USB over IP in the kernel: the ports of vhci_hcd."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import MissingCapability, StepFailed
from . import protocol, sysfs

CONTROLLER = Path("/sys/devices/platform/vhci_hcd.0")
UDEV = Path("/run/udev/control")  # there while udev runs, which loads the drivers of what appears
RECORDS = Path("/run/vhci_hcd")  # where `usbip attach` writes what `usbip port` shows: a file for each port
FREE, CONNECTING, USED = 4, 5, 6  # enum usbip_device_status, VDEV_ST_* (drivers/usb/usbip/usbip_common.h)
SUPER = 5  # USB_SPEED_SUPER: from here on devices go to the other half of the ports
READY = 20.0  # seconds that a device may take to be known to the kernel, over a slow lane
POLL = 0.05


class Port(NamedTuple):
    """A port that is taken. Of whom is what `usbip attach`, or we, wrote down; empty where nobody did."""

    number: int
    status: int
    local: str  # the bus id that the device has here; "0-0" until it is known
    server: str = ""
    port: int = 0
    busid: str = ""

    @property
    def product(self) -> str:
        """vendor:product, once the device is known."""
        found = [device.product for device in sysfs.devices() if device.busid == self.local]
        return found[0] if found else ""

    def __str__(self) -> str:
        origin = f"{self.busid} of {self.server} port {self.port}" if self.server else "of others"
        return f"port {self.number}: {origin}, here {self.local} {self.product}"


def loaded() -> bool:
    """Whether the kernel has the controller."""
    return CONTROLLER.is_dir()


def ports() -> list[Port]:
    """The ports that are taken."""
    return [
        Port(number, status, local, *_recorded(number)) for _hub, number, status, local in _table() if status != FREE
    ]


def attach(server: str, port: int, busid: str, seconds: int) -> Port:
    """Attach a device and wait until the kernel knows it; a link that is dead for `seconds` ends it.

    Raises protocol.Refused, and StepFailed where the device was granted and does not appear.
    """
    connection, remote = protocol.request(server, port, busid, seconds)
    with connection:
        number = _give(connection, remote)
    RECORDS.mkdir(mode=0o700, parents=True, exist_ok=True)
    _record(number).write_text(f"{server} {port} {busid}\n", encoding="ascii")
    end = time.monotonic() + READY
    while True:
        found = [one for one in ports() if one.number == number]
        if found and found[0].status == USED and found[0].product:
            return found[0]
        if not found or time.monotonic() > end:
            detach(number)
            why = f"no device appeared within {READY:.0f} s" if found else "the connection ended at once"
            raise StepFailed(f"usbip --tcp-port {port} attach -r {server} -b {busid}", why)
        time.sleep(POLL)


def detach(number: int) -> None:
    """Free a port. Nothing is done where it is free already."""
    _record(number).unlink(missing_ok=True)
    try:
        CONTROLLER.joinpath("detach").write_text(str(number), encoding="ascii")
    except OSError as error:
        if number in [one.number for one in ports()]:
            raise StepFailed(f"usbip detach -p {number}", error.strerror or str(error)) from error
    end = time.monotonic() + READY
    while number in [one.number for one in ports()]:
        if time.monotonic() > end:
            raise StepFailed(f"usbip detach -p {number}", f"the port is still taken after {READY:.0f} s")
        time.sleep(POLL)


def load_drivers() -> None:
    """What udev would do, on nodes where it does not run: load the modules that fit what is attached.

    A driver may show more (a disk behind usb-storage): it is looked again at the next turn.
    """
    if UDEV.exists():
        return
    aliases = {alias for port in ports() if port.status == USED for alias in sysfs.without_driver(port.local)}
    if aliases:
        programs.run(["modprobe", "--all", "--quiet", "--use-blacklist", *sorted(aliases)])


def _give(connection: socket.socket, remote: protocol.Remote) -> int:
    """Hand the connection to a free port; returns the port's number."""
    wanted = "ss" if remote.speed >= SUPER else "hs"
    free = [number for hub, number, status, _local in _table() if status == FREE and hub == wanted]
    for number in free:
        said = f"{number} {connection.fileno()} {remote.devid} {remote.speed}"
        try:
            CONTROLLER.joinpath("attach").write_text(said, encoding="ascii")
        except OSError as error:
            if error.errno == errno.EBUSY:  # somebody was faster
                continue
            raise StepFailed(f"echo {said} > {CONTROLLER}/attach", error.strerror or str(error)) from error
        return number
    raise MissingCapability(f"attaching {remote}", f"a free port of vhci_hcd ({wanted})", "detach something")


def _table() -> list[tuple[str, int, int, str]]:
    """All ports: hub, number, status, bus id here. One file for each controller, all in the first one's folder."""
    rows = []
    for file in sorted(CONTROLLER.glob("status*")):
        for line in file.read_text(encoding="ascii").splitlines()[1:]:
            hub, number, status, _speed, _device, _socket, local = line.split()
            rows.append((hub, int(number), int(status), local))
    return rows


def _record(number: int) -> Path:
    return RECORDS / f"port{number}"


def _recorded(number: int) -> tuple[str, int, str]:
    try:
        server, port, busid = _record(number).read_text(encoding="ascii").split()
        return server, int(port), busid
    except (OSError, ValueError):
        return "", 0, ""


def forget_free() -> None:
    """Drop the records of ports that the kernel has freed by itself."""
    taken = {f"port{one.number}" for one in ports()}
    for file in RECORDS.glob("port*"):
        if file.name not in taken:
            os.unlink(file)
