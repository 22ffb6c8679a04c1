# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps and programs that outlive us: pinned in the BPF file system, or held by a filter (bpf(2))."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence

from ..errors import StepFailed, TestbedError
from ..node import PINS
from . import syscall

ROOT = "/sys/fs/bpf"
BPF_FS_MAGIC = 0xCAFE4A11  # linux/magic.h
YOUNG = 60  # seconds: the verifier needs some on a slow board
_held: dict[int, int] = {}  # descriptors by program: a program lives as long as somebody holds it


def folder(namespace: int) -> str:
    """Where the maps of a network namespace are pinned: nodes may share a kernel, and with it this file system."""
    return os.path.join(PINS, f"{namespace:x}")


def pin(place: str, objects: Mapping[str, int]) -> None:
    """Pin objects in a folder under their names. Raises StepFailed where the file system cannot be had or written."""
    command = f"bpftool map pin {', '.join(objects)} {place}"
    try:
        if not _mounted():
            _mount()
        os.makedirs(place, mode=0o700, exist_ok=True)
        for name, descriptor in objects.items():
            path = os.path.join(place, name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            syscall.pin(descriptor, path)
    except OSError as error:
        raise _refusal(command, error) from error


def sweep(names: Sequence[str]) -> None:
    """Unpin what network namespaces left that ended as they were: maps that no program has any more.

    A pin is there before its program: young ones stay.
    """
    with contextlib.suppress(OSError, TestbedError):  # no pins, or no right to see all programs: nobody asked for it
        folders = [os.path.join(PINS, name) for name in os.listdir(PINS)]
        old = [place for place in folders if time.time() - os.stat(place).st_mtime > YOUNG]
        used = _used() if old else set()
        for place in old:
            found = [syscall.pinned(os.path.join(place, name)) for name in names]
            maps = [one for one in found if one is not None]
            if used.isdisjoint(syscall.map_info(one).id for one in maps):
                unpin(place, names)
            for one in maps:
                os.close(one)


def _used() -> set[int]:
    """Ids of the maps that programs of this kernel have."""
    found: set[int] = set()
    for number in list(syscall.programs()):
        descriptor = syscall.program_by_id(number)
        if descriptor is not None:
            found.update(syscall.program_info(descriptor).maps)
            os.close(descriptor)
    return found


def unpin(place: str, names: Iterable[str]) -> None:
    """Remove pins and the folders that they leave empty."""
    with contextlib.suppress(OSError):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(place, name))
        os.rmdir(place)
        os.rmdir(PINS)


def remove(path: str) -> None:
    """Remove a pin, and the folder that it leaves empty. Raises StepFailed where the file system is read-only."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise _refusal(f"rm {path}", error) from error
    unpin(os.path.dirname(path), ())


def can_hold(place: str) -> bool:
    """Whether a folder stands, or can be made, in a BPF file system; the one at /sys/fs/bpf may be still to mount."""
    if place == ROOT or place.startswith(f"{ROOT}/"):
        return True
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return _mounted(place)


def _refusal(command: str, error: OSError) -> StepFailed:
    hint = f"is a BPF file system mounted at {ROOT}?"
    if error.errno == errno.EROFS:
        hint = f"make it writable (mount -o remount,rw {ROOT})"
    return StepFailed(command, f"{error.strerror or error}; {hint}")


def held(program: int) -> int | None:
    """A descriptor of the program with this id, the same each time; None where it is gone."""
    if program not in _held:
        descriptor = syscall.program_by_id(program)
        if descriptor is None:
            return None
        _held[program] = descriptor
    return _held[program]


def maps_of(program: int) -> dict[str, int]:
    """Descriptors of a program's maps by their names."""
    descriptor = held(program)
    ids = syscall.program_info(descriptor).maps if descriptor is not None else ()
    found = [one for one in map(syscall.map_by_id, ids) if one is not None]
    return {syscall.map_info(one).name: one for one in found}


def _mounted(place: str = ROOT) -> bool:
    """statfs(2): f_type is a long, the first field of the result."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = (ctypes.c_long * 64)()
    return libc.statfs(os.fsencode(place), result) == 0 and result[0] & 0xFFFFFFFF == BPF_FS_MAGIC


def _mount() -> None:
    """As systemd does at boot; nodes with a smaller init may have none yet."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", ROOT.encode(), b"bpf", 0, b"mode=0700"):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
