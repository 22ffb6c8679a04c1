# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs at TCX, where packets leave an interface (Linux 6.6, include/net/tcx.h): without a qdisc, and in less time.

It comes before clsact's egress. Programs of others stand there as they are: ours is known by its name, and added as the
last one.
"""

from __future__ import annotations

import ctypes
import errno
import re
import socket
import struct
from typing import NamedTuple

from ..errors import StepFailed
from . import files, syscall

ATTACH, DETACH, QUERY = 8, 9, 16  # enum bpf_cmd
EGRESS = 47  # enum bpf_attach_type
REPLACE = 1 << 2  # BPF_F_REPLACE
MOST = 64  # BPF_MPROG_MAX, programs of one place
NAME = re.compile(r"imp_[0-9a-f]{11}")  # of programs of ours: all that the kernel keeps of a name
# No such interface any more, no TCX in this kernel, no BPF, or no right to it.
NONE = (errno.ENODEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)
_QUERY = struct.Struct("=IIIIQIIQQQQ")
_COUNT = 24  # where in it the kernel writes how many there are


class Attached(NamedTuple):
    """A program of ours; the id is the kernel's."""

    name: str
    program: int


def attach(index: int, descriptor: int, over: int = 0) -> None:
    """Put a program behind those that stand at an interface, or in the place of `over`, a descriptor.

    No packet passes neither of the two. When this returns, every packet sees the new one (tcx_entry_sync() in the
    kernel). Raises StepFailed.
    """
    request = struct.pack("=IIIII", index, descriptor, EGRESS, REPLACE if over else 0, over)
    _call(ATTACH, request, "attach a BPF program at TCX")


def detach(index: int, descriptor: int) -> None:
    """Take a program away. Raises StepFailed where it is not there."""
    _call(DETACH, struct.pack("=III", index, descriptor, EGRESS), "detach a BPF program from TCX")


def ours(index: int) -> list[Attached]:
    """Programs of ours at an interface, in their order."""
    found = []
    for number in _ids(index):
        descriptor = files.held(number)
        if descriptor is not None and NAME.fullmatch(name := syscall.program_info(descriptor).name):
            found.append(Attached(name, number))
    return found


def interfaces() -> list[int]:
    """Indices of the interfaces where a program of ours stands."""
    return [index for index, _name in socket.if_nameindex() if ours(index)]


def _ids(index: int) -> list[int]:
    numbers = (ctypes.c_uint32 * MOST)()
    head = _QUERY.pack(index, EGRESS, 0, 0, ctypes.addressof(numbers), MOST, 0, 0, 0, 0, 0)
    request = ctypes.create_string_buffer(head, syscall.REQUEST_SIZE)
    try:
        syscall.bpf(QUERY, request)
    except OSError as error:
        if error.errno in NONE:
            return []
        raise StepFailed("list the BPF programs at TCX", error.strerror or str(error)) from None
    (count,) = struct.unpack_from("=I", request.raw, _COUNT)
    return list(numbers[: min(count, MOST)])


def _call(command: int, request: bytes, what: str) -> None:
    try:
        syscall.bpf(command, request)
    except OSError as error:
        raise StepFailed(what, error.strerror or str(error)) from None
