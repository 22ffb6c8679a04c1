# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The card that is to be written: what may be one, and that nobody uses it.

The kernel itself refuses a second exclusive user of a block device (O_EXCL, open(2)): mounts in any namespace, swap,
RAID, device mapper. Of loop devices that stand on a device or file it knows nothing: these, and the reasons of the
others, are looked up here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidInput, TestbedError
from .progress import size_text

BY_ID = "/dev/disk/by-id"
LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt
SECTOR = 512  # what sysfs counts in, whatever the device has


class Target(NamedTuple):
    """A whole card, or a file or loop device that stands for one. `size` in bytes."""

    path: str  # as it was given
    real: str
    kind: str  # "card", "loop device" or "file"
    size: int

    def __str__(self) -> str:
        return f"{self.path}: {self.kind} of {size_text(self.size)}"


class Bounds(NamedTuple):
    """What a card may hold, in bytes."""

    least: int
    most: int


def look(path: str, bounds: Bounds) -> Target:
    """Judge the target without opening it for writing. Raises InvalidInput with the reason and the remedy."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except OSError as error:
        raise InvalidInput(
            "target",
            path,
            f"{error.strerror}; put the card in, or make a file as large as a card: truncate -s 8GB FILE",
        ) from error
    users = list(_users(real, found))
    if users:
        raise InvalidInput("target", path, f"it is in use: {'; '.join(users)}; end that, if this is the right card")
    if stat.S_ISREG(found.st_mode):
        target = Target(path, real, "file", found.st_size)
    elif stat.S_ISBLK(found.st_mode):
        target = _device(path, real, found.st_rdev)
    else:
        raise InvalidInput("target", path, f"write a whole card's name below {BY_ID}, a loop device or a regular file")
    if not bounds.least <= target.size <= bounds.most:
        raise InvalidInput(
            "target",
            path,
            f"it has {size_text(target.size)}, and a card {size_text(bounds.least)} to {size_text(bounds.most)}; "
            "take the right one, or change card_min and card_max",
        )
    return target


def _device(path: str, real: str, number: int) -> Target:
    folder = _sysfs(number)
    if (folder / "partition").exists():
        raise InvalidInput("target", path, "this is a partition; name the whole card, without -part1 at the end")
    size = int(_read(folder / "size") or 0) * SECTOR
    if os.major(number) == LOOP_MAJOR:
        backing = _read(folder / "loop/backing_file")
        if not backing:
            raise InvalidInput(
                "target", path, "no file stands behind this loop device; make one: losetup -f --show FILE"
            )
        if backing.startswith("/dev/"):
            raise InvalidInput(
                "target", path, f"this loop device stands on {backing}; name the card itself, below {BY_ID}"
            )
        _writable(path, folder)
        return Target(path, real, "loop device", size)
    if os.path.dirname(os.path.abspath(path)) != BY_ID:
        names = " or ".join(_names(real)) or f"its name below {BY_ID}, where it has none yet"
        raise InvalidInput("target", path, f"names such as this one change from boot to boot; write {names}")
    # A card in a built-in reader is not "removable" to the kernel; drivers/mmc/core/bus.c names its type.
    if _read(folder / "removable") != "1" and _read(folder / "device/type") != "SD":
        raise InvalidInput("target", path, "it is not removable, so it is no card; take the card's own name")
    if not size:
        raise InvalidInput("target", path, "there is no card in this reader; put one in")
    _writable(path, folder)
    return Target(path, real, "card", size)


def _writable(path: str, folder: Path) -> None:
    if _read(folder / "ro") == "1":
        raise InvalidInput("target", path, "it is read-only; move the card's write-protection switch")


def _names(real: str) -> list[str]:
    folder = Path(BY_ID)
    listed = sorted(folder.iterdir()) if folder.is_dir() else []
    return [str(name) for name in listed if os.path.realpath(name) == real]


def _sysfs(number: int) -> Path:
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _users(real: str, found: os.stat_result) -> Iterator[str]:
    """Who uses it, in words; empty where nobody is known to."""
    yield from _loops(real, found)
    if not stat.S_ISBLK(found.st_mode):
        return
    folder = _sysfs(found.st_rdev)
    numbers = {f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"}
    for part in [folder, *sorted(folder.glob(f"{folder.resolve().name}*"))]:
        if _read(part / "dev"):
            numbers.add(_read(part / "dev"))
        for holder in sorted(part.glob("holders/*")):
            yield f"{holder.name} stands on it"
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        fields = line.split()
        source = fields[fields.index("-") + 2]
        if fields[2] in numbers or _number(source) in numbers:
            yield f"{source} is mounted on {fields[4]}"
    for line in _read(Path("/proc/swaps")).splitlines()[1:]:
        if _number(line.split()[0]) in numbers:
            yield f"{line.split()[0]} is swap"


def _number(path: str) -> str:
    """major:minor of a device node; empty for anything else, such as `tmpfs`."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else ""


def _loops(real: str, found: os.stat_result) -> Iterator[str]:
    """Loop devices that stand on this file or device."""
    for backing in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        name = _read(backing)
        try:
            same = os.path.samestat(os.stat(name), found)
        except OSError:
            same = name == real
        if same:
            yield f"/dev/{backing.parent.parent.name} stands on it"


def claim(target: Target) -> int:
    """Open it so that nobody else can mount, hold or flash it as long as this is open; returns the file descriptor.

    Raises TestbedError where the kernel says that somebody uses it.
    """
    try:
        descriptor = os.open(target.real, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EWOULDBLOCK, errno.ETXTBSY):
            raise InvalidInput(
                "target",
                target.path,
                "the kernel says that it is in use (mounted elsewhere, say, or being flashed); end that",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InvalidInput("target", target.path, f"{error.strerror}; run the task with become: true") from error
        raise TestbedError(f"target {target.path}: {error.strerror}") from error
    return descriptor


def again(descriptor: int, flags: int) -> int:
    """Another opening of the very same file or device, whatever its name leads to by now."""
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
