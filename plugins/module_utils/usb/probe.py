# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inside of a gadget of ours: what a host writes to its serial port or HID comes back, and its disk goes away and
comes back when the host writes a file REFRSH.ACT, as a DAPLink probe's does.

usage: probe.py GADGET EJECT INSERT …      seconds from the file to the eject, and from there to the disk's return
DAPLink itself takes 0.5 and 2.5 (source/daplink/drag-n-drop/vfs_manager.c, DISCONNECT_DELAY_MS, RECONNECT_DELAY_MS).
Needs nothing but Python, waits for a gadget that is not there, and takes up one that was made anew.
"""

from __future__ import annotations

import collections
import os
import select
import sys
import time
import tty
from pathlib import Path

TICK = 0.2  # s between looks at the disks, and at what was plugged in or unplugged
MOST = 64  # chunks that may wait for a host that does not read
ASKED = b"REFRSH  ACT"  # as a directory entry has it
DELETED = b"\xe5"


class Echo:
    """A device node that gives back what it reads: a serial port bytes, a HID whole reports."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._waiting: collections.deque[bytes] = collections.deque()
        self.descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        if os.isatty(self.descriptor):
            tty.setraw(self.descriptor)

    def gone(self) -> bool:
        """Whether the node is another one by now, or none: a HID that was removed tells its reader nothing of that
        (f_hidg_poll() in f_hid.c), and one that was made anew within a tick has the same name.
        """
        try:
            return not os.path.samestat(os.stat(self._node), os.fstat(self.descriptor))
        except FileNotFoundError:
            return True

    def events(self) -> int:
        return (select.POLLIN if len(self._waiting) < MOST else 0) | (select.POLLOUT if self._waiting else 0)

    def serve(self, ready: int) -> None:
        """Take what came, give what waits. Raises OSError where host or gadget went away."""
        try:
            if ready & select.POLLIN:
                came = os.read(self.descriptor, 4096)
                if not came:
                    raise ConnectionResetError
                self._waiting.append(came)
            elif ready & (select.POLLHUP | select.POLLERR):
                raise ConnectionResetError
            while self._waiting:
                written = os.write(self.descriptor, self._waiting[0])
                rest = self._waiting.popleft()[written:]
                if rest:
                    self._waiting.appendleft(rest)
        except BlockingIOError:
            pass  # the host takes no more now, or took what we were told of


class Disk:
    """The medium of a mass storage function, which goes and comes."""

    def __init__(self, lun: Path, eject: float, insert: float) -> None:
        self._lun, self._eject, self._insert = lun, eject, insert
        self._medium = ""
        self._since = 0.0  # when the host asked, then when the medium went; 0: neither

    def look(self) -> None:
        """One step of the way: asked, ejected, back without what had asked. Raises OSError."""
        held = (self._lun / "file").read_text(encoding="utf-8").strip()
        self._medium = held or self._medium
        if not self._medium:
            return
        now = time.monotonic()
        if held and not self._since and requests(held):
            self._since = now
        elif held and self._since and now - self._since >= self._eject:
            self._take_out()
            self._since = now
        elif not held and self._since and now - self._since >= self._insert:
            forget(self._medium)
            (self._lun / "file").write_text(self._medium, encoding="utf-8")
            self._since = 0.0

    def _take_out(self) -> None:
        """Linux hosts lock a medium that is in use: where the kernel can (since 6.0), it is taken out all the same."""
        forced = self._lun / "forced_eject"
        if forced.exists():
            forced.write_text("1\n", encoding="utf-8")
        else:
            (self._lun / "file").write_text("\n", encoding="utf-8")


def root_folder(volume: int) -> tuple[int, bytes]:
    """Place and bytes of a FAT volume's root folder; no bytes where it is no FAT12 or FAT16."""
    boot = os.pread(volume, 512, 0)
    if len(boot) < 512 or boot[510:] != b"\x55\xaa" or boot[54:57] != b"FAT":
        return 0, b""
    sector, reserved, entries, fat = (int.from_bytes(boot[at : at + 2], "little") for at in (11, 14, 17, 22))
    start = (reserved + boot[16] * fat) * sector
    return start, os.pread(volume, entries * 32, start)


def requests(medium: str) -> list[int]:
    """Places of the entries that ask for a remount."""
    volume = os.open(medium, os.O_RDONLY)
    try:
        start, folder = root_folder(volume)
    finally:
        os.close(volume)
    return [start + at for at in range(0, len(folder), 32) if folder[at : at + 11] == ASKED]


def forget(medium: str) -> None:
    """Delete the (empty) files that asked, while no host sees the medium."""
    places = requests(medium)
    volume = os.open(medium, os.O_WRONLY)
    try:
        for place in places:
            os.pwrite(volume, DELETED, place)
    finally:
        os.close(volume)


class Device:
    """A gadget with everything that is open of it."""

    def __init__(self, folder: Path, eject: float, insert: float) -> None:
        self._folder, self._eject, self._insert = folder, eject, insert
        self.echoes: dict[Path, Echo] = {}
        self._disks: dict[Path, Disk] = {}

    def look(self) -> None:
        """Open what is plugged in, close what is not: an open node would keep a gadget from being removed."""
        plugged = read(self._folder / "UDC")
        for function, echo in list(self.echoes.items()):
            if not plugged or echo.gone():
                self.close(function)
        if not plugged:
            return
        for function in (self._folder / "functions").iterdir():
            kind = function.name.partition(".")[0]
            try:
                if kind == "mass_storage":
                    lun = function / "lun.0"
                    self._disks.setdefault(lun, Disk(lun, self._eject, self._insert)).look()
                elif kind in ("acm", "hid") and function not in self.echoes:
                    self.echoes[function] = Echo(node_of(kind, function))
            except OSError:
                continue  # not there yet, or locked by the host: at the next look

    def close(self, function: Path) -> None:
        os.close(self.echoes.pop(function).descriptor)

    def serve(self, seconds: float) -> None:
        """Echo what comes within this time."""
        poll = select.poll()
        for echo in self.echoes.values():
            poll.register(echo.descriptor, echo.events())
        ready = dict(poll.poll(seconds * 1000))
        for function, echo in list(self.echoes.items()):
            if echo.descriptor in ready:
                try:
                    echo.serve(ready[echo.descriptor])
                except OSError:
                    self.close(function)


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def node_of(kind: str, function: Path) -> str:
    """The node's own end of a function."""
    if kind == "acm":
        return f"/dev/ttyGS{read(function / 'port_num')}"
    return "/dev/" + os.path.basename(os.path.realpath(f"/sys/dev/char/{read(function / 'dev')}"))


def main() -> None:
    gadget, eject, insert = sys.argv[1:4]
    device = Device(Path("/sys/kernel/config/usb_gadget", gadget), float(eject), float(insert))
    while True:
        try:
            device.look()
        except OSError:
            pass  # the gadget is being removed
        end = time.monotonic() + TICK
        while (left := end - time.monotonic()) > 0:
            device.serve(left)


if __name__ == "__main__":
    main()
