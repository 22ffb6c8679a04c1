# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small BPF programs, loaded and pinned by bpf(2) itself, and those that stand; imports nothing of the collection."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
from pathlib import Path

SYSCALL = {"x86_64": 321}.get(os.uname().machine, 280)
PROG_LOAD, OBJ_PIN, SCHED_CLS = 5, 6, 3  # linux/bpf.h
PROG_ATTACH, PROG_DETACH, PROG_QUERY, OBJ_GET, TCX_EGRESS = 8, 9, 16, 7, 47


def pin(path: Path, verdict: int) -> None:
    """Pin a program that returns `verdict`, in the place of one that is pinned there."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = verdict; exit
    instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    name = ctypes.create_string_buffer(str(path).encode())
    address = ctypes.addressof
    asked = struct.pack("=IIQQIIQII", SCHED_CLS, 2, address(instructions), address(licence), 0, 0, 0, 0, 0)
    program = _bpf(PROG_LOAD, asked)
    path.unlink(missing_ok=True)
    _bpf(OBJ_PIN, struct.pack("=QII", address(name), program, 0))
    os.close(program)


def attach(device: str, path: Path) -> None:
    """Put a pinned program behind those that stand at TCX's egress."""
    _at_tcx(PROG_ATTACH, device, path)


def detach(device: str, path: Path) -> None:
    _at_tcx(PROG_DETACH, device, path)


def leaving(device: str) -> str:
    """What stands where packets leave, before any queue: programs at TCX, and clsact's filters."""
    standing = at_tcx(device)
    if "clsact" in _shown("tc", "qdisc", "show", "dev", device):  # else tc has nowhere to look for filters
        standing += _shown("tc", "filter", "show", "dev", device, "egress")
    return standing


def at_tcx(device: str) -> str:
    """A line for each program; Linux before 6.6 has no such place."""
    numbers = (ctypes.c_uint32 * 64)()
    place = (socket.if_nametoindex(device), TCX_EGRESS, 0, 0)
    asked = struct.pack("=IIIIQIIQQQQ", *place, ctypes.addressof(numbers), 64, *[0] * 5)
    request = ctypes.create_string_buffer(asked, 128)
    try:
        _call(PROG_QUERY, request)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return ""
        raise
    (count,) = struct.unpack_from("=I", request.raw, 24)
    shown = [json.loads(_shown("bpftool", "-j", "prog", "show", "id", str(one))) for one in numbers[:count]]
    return "".join(f"tcx/egress dev {device} name {one.get('name')} id {one['id']}\n" for one in shown)


def _shown(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _at_tcx(command: int, device: str, path: Path) -> None:
    name = ctypes.create_string_buffer(str(path).encode())
    program = _bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))
    _bpf(command, struct.pack("=III", socket.if_nametoindex(device), program, TCX_EGRESS))
    os.close(program)


def _bpf(command: int, request: bytes) -> int:
    return _call(command, ctypes.create_string_buffer(request, 128))


def _call(command: int, request: ctypes.Array[ctypes.c_char]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    made = int(libc.syscall(SYSCALL, command, request, 128))
    if made < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return made
