# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bpf system call (bpf(2), linux/bpf.h): maps, programs and their pins, by descriptors.

What is not there is None or False. All raise MissingCapability where the kernel has no BPF, or the caller no right
to it, and StepFailed where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import time
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ..errors import MissingCapability, StepFailed

NUMBERS = {"x86_64": 321, "i686": 357, "i386": 357, "armv7l": 386, "armv6l": 386, "ppc64": 361, "ppc64le": 361}
NUMBERS.update({"s390x": 351, "mips": 4355, "mips64": 5315})  # 280 on younger machines (asm-generic/unistd.h)
MAP_CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, PROG_LOAD, OBJ_PIN, OBJ_GET = range(8)  # enum bpf_cmd
PROG_TEST_RUN, NEXT_PROG, PROG_BY_ID, MAP_BY_ID, INFO, MAP_FREEZE = 10, 11, 13, 14, 15, 22
RAW_TRACEPOINT_OPEN, ENABLE_STATS = 17, 32
HASH, ARRAY = 1, 2  # enum bpf_map_type
SCHED_CLS, RAW_TRACEPOINT = 3, 17  # enum bpf_prog_type
NAME_SIZE = 16  # BPF_OBJ_NAME_LEN, with the zero at the end
REQUEST_SIZE = 128  # zeros behind what a kernel knows are no fault
TRIES, PAUSE = 50, 0.005  # and seconds: the verifier gives up for a signal, and asks to be called again
LOG_SIZE, LOG_LINES = 1 << 20, 12
LOG_STEPS, LOG_WORDS = 1, 4  # BPF_LOG_LEVEL1, BPF_LOG_STATS (linux/bpf_verifier.h): 4 has what is wrong alone
MOST_MAPS = 64  # of one program that info tells
MAP_INFO = struct.Struct("=IIIIII16s")
PROG_INFO = struct.Struct("=II8sIIQQQIIQ16s")
RUN_STATISTICS, PROG_INFO_SIZE = 192, 208  # where run_time_ns and run_cnt are in struct bpf_prog_info, and end


class MapInfo(NamedTuple):
    """A map as the kernel has it; sizes in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


class ProgramInfo(NamedTuple):
    """A program as the kernel has it; `tag` is the kernel's hash of its instructions; `jited`: as machine code."""

    type: int
    id: int
    tag: str
    jited: bool
    maps: tuple[int, ...]
    name: str


class Run(NamedTuple):
    """What a program made of a packet; nanoseconds are those of one run."""

    verdict: int
    packet: bytes
    context: bytes
    nanoseconds: int


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def bpf(command: int, request: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """The system call itself; what it answers stands in `request` where that is a buffer. Raises OSError."""
    machine = os.uname().machine
    if struct.calcsize("P") == 4:  # 32-bit Python on a 64-bit kernel
        machine = {"x86_64": "i686", "aarch64": "armv7l", "armv8l": "armv7l"}.get(machine, machine)
    buffer = ctypes.create_string_buffer(request, REQUEST_SIZE) if isinstance(request, bytes) else request
    passing = {errno.EAGAIN, errno.EBUSY, errno.EINTR}
    if command == UPDATE:
        passing.add(errno.ENOMEM)  # a hash refills its store of entries in the background (kernel/bpf/memalloc.c)
    for _again in range(TRIES):
        made = int(_libc().syscall(NUMBERS.get(machine, 280), command, buffer, len(buffer)))
        if made >= 0:
            return made
        if ctypes.get_errno() not in passing:
            break
        time.sleep(PAUSE)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def create_map(kind: int, key_size: int, value_size: int, entries: int, flags: int = 0, name: str = "") -> int:
    """Descriptor of a new map."""
    request = struct.pack("=7I16s", kind, key_size, value_size, entries, flags, 0, 0, _name(name))
    return _call(
        MAP_CREATE, request, f"make the BPF map {name} of {entries} entries of {key_size} and {value_size} bytes"
    )


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Set an entry, whether it is there or not. The kernel reads as many bytes as its map has: sizes must be right."""
    _element(UPDATE, descriptor, _buffer(key), _buffer(value), "set an entry of a BPF map")


def lookup(descriptor: int, key: bytes, value_size: int) -> bytes | None:
    """The value of a key; the size is the map's."""
    value = ctypes.create_string_buffer(value_size)
    found = _element(LOOKUP, descriptor, _buffer(key), value, "read an entry of a BPF map", missing=True)
    return value.raw if found else None


def delete(descriptor: int, key: bytes) -> bool:
    """Take an entry away; False: there was none."""
    return _element(DELETE, descriptor, _buffer(key), None, "take an entry from a BPF map", missing=True)


def keys(descriptor: int, key_size: int) -> Iterator[bytes]:
    """All keys. One that is taken away meanwhile makes the kernel begin again: read all before taking any away."""
    key = None
    while True:
        following = ctypes.create_string_buffer(key_size)
        if not _element(NEXT_KEY, descriptor, key, following, "list a BPF map", missing=True):
            return
        yield following.raw
        key = following


def items(descriptor: int, key_size: int, value_size: int) -> dict[bytes, bytes]:
    """All entries."""
    found = {key: lookup(descriptor, key, value_size) for key in list(keys(descriptor, key_size))}
    return {key: value for key, value in found.items() if value is not None}


def freeze(descriptor: int) -> None:
    """From now on only programs may write to this map."""
    _call(MAP_FREEZE, struct.pack("=I", descriptor), "freeze a BPF map")


def load(kind: int, code: bytes, licence: str, name: str = "") -> int:
    """Descriptor of a program that the kernel's verifier has accepted. Raises StepFailed with its last words."""
    instructions, terms = _buffer(code), _buffer(licence.encode() + b"\0")
    log = ctypes.create_string_buffer(LOG_SIZE)

    def request(level: int) -> bytes:
        size, where = (LOG_SIZE, ctypes.addressof(log)) if level else (0, 0)
        head = struct.pack("=IIQQ", kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(terms))
        return head + struct.pack("=IIQII16s", level, size, where, 0, 0, _name(name))

    what = f"load the BPF program {name}"
    try:
        return bpf(PROG_LOAD, request(0))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.E2BIG):
            raise _refusal(error, what) from None
        long = error.errno == errno.E2BIG  # for what has a million steps a log of all takes seconds
    reason = ""
    for level in (LOG_WORDS,) if long else (LOG_STEPS, LOG_WORDS):  # again, for what the verifier says
        try:
            return bpf(PROG_LOAD, request(level))
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno != errno.ENOSPC:  # the steps fill the log; before Linux 6.4 its end is then missing
                break
    lines = log.value.decode(errors="replace").strip().splitlines()[-LOG_LINES:]
    said = "; ".join(line.strip() for line in lines if not line.startswith(("processed ", "verification time")))
    raise StepFailed(what, f"the kernel's verifier refuses it: {said}" if said else reason)


def pin(descriptor: int, path: str) -> None:
    """Give a map or a program a name in a BPF file system, where none is yet."""
    place = _buffer(os.fsencode(path) + b"\0")
    _call(OBJ_PIN, struct.pack("=QII", ctypes.addressof(place), descriptor, 0), f"pin a BPF object at {path}")


def pinned(path: str) -> int | None:
    """Descriptor of what has this name in a BPF file system."""
    place = _buffer(os.fsencode(path) + b"\0")
    request = struct.pack("=QII", ctypes.addressof(place), 0, 0)
    return _found(OBJ_GET, request, f"open the BPF object {path}")


def programs() -> Iterator[int]:
    """Ids of all programs that this kernel has, in whatever network namespace."""
    number = 0
    while True:
        request = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), REQUEST_SIZE)
        if _found(NEXT_PROG, request, "list the BPF programs") is None:
            return
        _number, number = struct.unpack_from("=II", request.raw)
        yield number


def program_by_id(number: int) -> int | None:
    """Descriptor of a program that somebody holds."""
    return _found(PROG_BY_ID, struct.pack("=III", number, 0, 0), f"open the BPF program {number}")


def map_by_id(number: int) -> int | None:
    """Descriptor of a map that somebody holds."""
    return _found(MAP_BY_ID, struct.pack("=III", number, 0, 0), f"open the BPF map {number}")


def map_info(descriptor: int) -> MapInfo:
    kind, number, key_size, value_size, entries, flags, name = MAP_INFO.unpack(_info(descriptor, bytes(MAP_INFO.size)))
    return MapInfo(kind, number, key_size, value_size, entries, flags, _text(name))


def program_info(descriptor: int) -> ProgramInfo:
    numbers = (ctypes.c_uint32 * MOST_MAPS)()
    asked = PROG_INFO.pack(0, 0, b"", 0, 0, 0, 0, 0, 0, MOST_MAPS, ctypes.addressof(numbers), b"")
    kind, number, tag, jited, *_more, count, _where, name = PROG_INFO.unpack(_info(descriptor, asked))
    return ProgramInfo(kind, number, tag.hex(), jited > 0, tuple(numbers[: min(count, MOST_MAPS)]), _text(name))


def attach_raw(tracepoint: str, descriptor: int) -> int:
    """Have a program run at a raw tracepoint as long as the descriptor that this returns is open.

    Raises MissingCapability where the kernel has no such tracepoint, or no programs at tracepoints at all.
    """
    name = _buffer(tracepoint.encode() + b"\0")
    what = f"attach a BPF program to the tracepoint {tracepoint}"
    try:
        return bpf(RAW_TRACEPOINT_OPEN, struct.pack("=QII", ctypes.addressof(name), descriptor, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            raise MissingCapability(f"to {what}", "CONFIG_BPF_EVENTS and this tracepoint") from None
        raise _refusal(error, what) from None


def count_runs() -> int:
    """Have the kernel time all BPF programs as long as the descriptor that this returns is open (Linux 5.8)."""
    return _call(ENABLE_STATS, struct.pack("=I", 0), "time BPF programs")


def runs(descriptor: int) -> tuple[int, int]:
    """How often a program ran while runs were counted, and the nanoseconds of all these runs."""
    spent, count = struct.unpack_from("=QQ", _info(descriptor, bytes(PROG_INFO_SIZE)), RUN_STATISTICS)
    return count, spent


def run(descriptor: int, packet: bytes, context: bytes = b"", repeat: int = 1) -> Run:
    """Run a program on a packet that nobody sends; `context` is a struct __sk_buff (Linux 5.4 knows which fields)."""
    data, out = _buffer(packet), ctypes.create_string_buffer(len(packet) + 256)
    before, after = _buffer(context), ctypes.create_string_buffer(len(context))
    contexts = (len(context), len(context), _address(before), _address(after)) if context else (0, 0, 0, 0)
    head = struct.pack("=IIIIQQII", descriptor, 0, len(packet), len(out), _address(data), _address(out), repeat, 0)
    request = ctypes.create_string_buffer(head + struct.pack("=IIQQ", *contexts), REQUEST_SIZE)
    _call(PROG_TEST_RUN, request, "run a BPF program")
    _descriptor, verdict, _in, size = struct.unpack_from("=IIII", request.raw)
    (nanoseconds,) = struct.unpack_from("=I", request.raw, 36)
    signed = struct.unpack("=i", struct.pack("=I", verdict))[0]
    return Run(signed, out.raw[:size], after.raw, nanoseconds)


def _info(descriptor: int, asked: bytes) -> bytes:
    answer = ctypes.create_string_buffer(asked, len(asked))
    _call(INFO, struct.pack("=IIQ", descriptor, len(asked), ctypes.addressof(answer)), "describe a BPF object")
    return answer.raw


def _element(
    command: int,
    descriptor: int,
    key: ctypes.Array[ctypes.c_char] | None,
    value: ctypes.Array[ctypes.c_char] | None,
    what: str,
    missing: bool = False,
) -> bool:
    request = struct.pack("=IIQQQ", descriptor, 0, _address(key), _address(value), 0)
    try:
        bpf(command, request)
    except OSError as error:
        if missing and error.errno == errno.ENOENT:
            return False
        raise _refusal(error, what) from None
    return True


def _found(command: int, request: bytes | ctypes.Array[ctypes.c_char], what: str) -> int | None:
    try:
        return bpf(command, request)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise _refusal(error, what) from None


def _call(command: int, request: bytes | ctypes.Array[ctypes.c_char], what: str) -> int:
    try:
        return bpf(command, request)
    except OSError as error:
        raise _refusal(error, what) from None


def _refusal(error: OSError, what: str) -> MissingCapability | StepFailed:
    if error.errno == errno.ENOSYS:
        return MissingCapability(f"to {what}", "the bpf system call (CONFIG_BPF_SYSCALL)")
    if error.errno == errno.EPERM:
        feature = "CONFIG_BPF_SYSCALL and root's rights (CAP_BPF, CAP_NET_ADMIN)"
        return MissingCapability(f"to {what}", feature, "set `become: true`")
    return StepFailed(what, error.strerror or str(error))


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _name(text: str) -> bytes:
    """As the kernel allows it: letters, digits, _ and . only."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", text).encode()[: NAME_SIZE - 1]


def _text(name: bytes) -> str:
    return name.split(b"\0", 1)[0].decode("ascii", "replace")
