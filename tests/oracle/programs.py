# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small BPF programs for classifiers, loaded and pinned by bpf(2) itself; imports nothing of the collection."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

SYSCALL = {"x86_64": 321}.get(os.uname().machine, 280)
PROG_LOAD, OBJ_PIN, SCHED_CLS = 5, 6, 3  # linux/bpf.h


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


def _bpf(command: int, request: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    made = int(libc.syscall(SYSCALL, command, ctypes.create_string_buffer(request, 128), 128))
    if made < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return made
