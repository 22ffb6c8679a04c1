# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a debug probe is asked in a loop, and how long each loop takes: its disk, its serial port, its HID.

As DAPLink's test/stress_tests do it: a remount that the host asks for by a file, bytes that come back from the serial
port, a report that the HID answers; each loop opens its device anew. Beside the loops serial port and HID stay open:
who closes last cancels the transfers that wait for more, and where one of them ends by itself just then, the server's
kernel fails, at least to Linux 6.1 (stub_recv_cmd_unlink() in drivers/usb/usbip/stub_rx.c reads what stub_complete()
has freed).
"""

from __future__ import annotations

import os
import select
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .. import programs
from ..errors import StepFailed, TestbedError
from . import agent, client, sysfs, vhci
from .client import Wanted
from .sysfs import Selector

POLL = 0.05  # seconds
AGAIN = 0.5
BYTES = 64  # of a message: a report of CMSIS-DAP
ASKING = "REFRSH.ACT"
KINDS = {"remount": "block", "cdc": "tty", "hid": "hidraw"}  # test → what of the device it needs
AWAY = 4.0  # seconds after which a DAPLink's disk has been away: it goes after 0.5 and comes back 2.5 later
SPARE = 10.0  # seconds beyond its own time after which a loop is ended from outside
LINK_LOST = 15  # seconds without an answer after which a link counts as lost


class Asked(NamedTuple):
    """`server` empty: the device is plugged into this node. `loops` by test; `timeout` of a loop in seconds."""

    server: str
    port: int
    device: Selector
    loops: dict[str, int]
    timeout: float


class Late(TestbedError):
    """Something did not happen in time."""


class Link:
    """The device on this node: plugged in, or attached for as long as this is open."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._port: int | None = None
        self._held: list[int] = []
        self.busid = ""
        self.began = 0.0  # when the import that worked was asked for

    def __enter__(self) -> Link:
        if self._asked.server:
            agent.load("client")
            self._attach()
        else:
            self.busid = self._find()
        return self

    def __exit__(self, *_said: object) -> None:
        """Detached before it is closed: then nothing is left to be cancelled."""
        if self._port is not None:
            vhci.detach(self._port)
        self._let_go()

    def _hold(self) -> None:
        for test in ("cdc", "hid"):
            if self._asked.loops.get(test):
                self._held.append(os.open(self.part(test), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def _find(self) -> str:
        device, there = self._asked.device, sysfs.devices()
        found = [one.busid for one in there if not one.remote and device.matches(one)]
        if len(found) != 1:
            shown = ", ".join(map(str, there)) or "none"
            raise TestbedError(f"{len(found)} devices are `{device}`, one is needed; this node has: {shown}")
        return found[0]

    def _attach(self) -> None:
        """A server may take a while to see that the device's last user has gone."""
        asked = self._asked
        wanted = Wanted(asked.server, asked.port, asked.device.busid, asked.device.product)
        end = time.monotonic() + asked.timeout
        while True:
            self.began = time.monotonic()
            try:
                port = client.attach(wanted, LINK_LOST)
                break
            except TestbedError:
                if time.monotonic() > end:
                    raise
            time.sleep(AGAIN)
        self._port, self.busid = port.number, port.local

    def part(self, test: str) -> str:
        """The device node that a test needs. Raises Late where the device went away."""
        names = sysfs.offers(self.busid).get(KINDS[test])
        if not names:
            raise Late(f"the device has no {KINDS[test]} any more")
        return f"/dev/{names[0]}"

    def ready(self) -> None:
        """Wait until all parts that are tested are usable. Without udev nobody else loads their drivers."""
        loops = self._asked.loops
        needed = {kind for test, kind in KINDS.items() if loops.get(test)}

        def usable() -> bool:
            missing = sysfs.without_driver(self.busid)
            if missing and not vhci.UDEV.exists():
                programs.run(["modprobe", "--all", "--quiet", "--use-blacklist", *missing])
            return needed <= set(sysfs.offers(self.busid)) and ("block" not in needed or _medium(self.part("remount")))

        if "block" in needed:
            programs.run(["modprobe", "--quiet", "vfat"])
        _wait(usable, f"the device's {', '.join(sorted(needed))}", self._asked.timeout)
        if not self._held:
            self._hold()

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[None]:
        """Detach the device where a loop does not end: over usbip a write whose cancelling the server never answers
        waits for ever in the kernel (usb_kill_urb), and only a detach ends that.
        """
        if self._port is None:
            yield
            return
        watch = threading.Timer(seconds, vhci.detach, [self._port])
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def again(self) -> None:
        """After a failure: where the link was lost the device is attached anew, as a user would do."""
        if self._port is not None and self._port not in [port.number for port in vhci.ports()]:
            self._let_go()
            self._attach()
        self.ready()


def run(asked: Asked) -> dict[str, Any]:
    """All asked tests, one after the other. The device is attached for that, and detached afterwards.

    Raises TestbedError where the device is not to be had; what fails in a loop is a result.
    """
    with Link(asked) as link:
        link.ready()
        first = time.monotonic() - link.began if asked.server else None
        tests = {test: _loops(test, count, link, asked.timeout) for test, count in asked.loops.items() if count}
    return {"first_connect": first, "tests": tests}


def _loops(test: str, count: int, link: Link, timeout: float) -> list[dict[str, Any]]:
    """Each loop's begin and length in seconds, and what failed. When the device stays away, the others fail at once."""
    began, done, gone = time.monotonic(), [], ""
    for number in range(count):
        start, said = time.monotonic(), gone
        try:
            if not gone:
                with link.bounded(timeout + SPARE):
                    _TESTS[test](link.part(test), number, timeout)
        except (OSError, TestbedError) as error:
            said = " ".join(str(error).split())
        done.append({"at": start - began, "seconds": time.monotonic() - start, "failed": said})
        if said and not gone:
            try:
                link.again()
            except TestbedError as error:
                gone = f"not back: {error}"
    return done


def _remount(disk: str, _number: int, timeout: float) -> None:
    """From the file that asks to the volume that is mounted again, with the same files and without that one."""
    with _mounted(disk) as folder:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        (folder / ASKING).touch()
    after, end = {ASKING: b""}, time.monotonic() + timeout
    while ASKING in after:
        if time.monotonic() > end:
            raise Late(f"{disk} still holds {ASKING} after {timeout:g} s")
        seen = time.monotonic() + AWAY
        # Over a slow link the time without a medium may pass between two looks.
        _wait(lambda: not _medium(disk) or time.monotonic() > seen, f"{disk} to go", timeout)  # noqa: B023
        _wait(lambda: _medium(disk), f"{disk} to come back", timeout)
        with _mounted(disk) as folder:
            after = {path.name: path.read_bytes() for path in folder.iterdir()}
    if after != before:
        raise TestbedError(f"{disk} held {sorted(before)} and now holds {sorted(after)}")


@contextmanager
def _mounted(disk: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="usb_stress-", dir="/run") as folder:
        _program("mount", "-t", "vfat", disk, folder)
        try:
            yield Path(folder)
        finally:
            _program("umount", folder)


def _program(*argv: str) -> None:
    done = programs.run(argv)
    if done.returncode:
        raise StepFailed(" ".join(argv), done.stderr.strip() or f"exit {done.returncode}")


def _medium(disk: str) -> bool:
    """Whether the disk has one: opening it asks the device."""
    try:
        os.close(os.open(disk, os.O_RDONLY))
    except OSError:
        return False
    return True


def _cdc(port: str, number: int, timeout: float) -> None:
    message = b"%016d" % number * (BYTES // 16)
    _exchange(port, message, message, timeout)


def _hid(node: str, number: int, timeout: float) -> None:
    """A report's number goes before it, 0 where a device numbers none (Documentation/hid/hidraw.rst)."""
    report = b"%016d" % number * (BYTES // 16)
    _exchange(node, b"\0" + report, report, timeout)


def _exchange(node: str, message: bytes, expected: bytes, timeout: float) -> None:
    """Open, send, get back, close. What came late to an earlier loop stands before and is passed over."""
    descriptor = os.open(node, os.O_RDWR | os.O_NOCTTY)
    try:
        if os.isatty(descriptor):
            tty.setraw(descriptor)
        os.write(descriptor, message)
        came, end = b"", time.monotonic() + timeout
        while not came.endswith(expected):
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Late(f"{node} gave {len(came)} bytes in {timeout:g} s, not the {BYTES} that were sent")
            more = os.read(descriptor, 4096)
            if not more:
                raise Late(f"{node} hung up")
            came = (came + more)[-2 * BYTES :]
    finally:
        os.close(descriptor)


_TESTS: dict[str, Callable[[str, int, float], None]] = {"remount": _remount, "cdc": _cdc, "hid": _hid}


def _wait(until: Callable[[], bool], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise Late(f"waited {seconds:g} s for {what}")
        time.sleep(POLL)
