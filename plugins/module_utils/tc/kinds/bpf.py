# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bpf classifier: classic bytecode, or a pinned program (net/sched/cls_bpf.c, linux/bpf.h, tc-bpf(8), bpf(2))."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import struct
from typing import NamedTuple

from ... import schema, units
from ...bpf.syscall import OBJ_GET, PROG_BY_ID, SCHED_CLS, bpf
from ...errors import TestbedError
from ...netlink import attribute, attributes, integer, string, text, u32
from ..model import handle_text, parse_handle
from .base import Kind
from .filters import Action, check_target, decode_actions, encode_actions, parse_actions, render_actions

ACT, CLASSID, OPS_LEN, OPS, FD, NAME, FLAGS, ID = 1, 3, 4, 5, 6, 7, 8, 11  # TCA_BPF_*
ACT_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT
INSTRUCTION = struct.Struct("=HBBI")  # sock_filter: code, jump if true, jump if false, k
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
HANDLE = 1  # what the kernel gives the first filter of a priority
_held: dict[int, int] = {}  # descriptors by program: a program lives as long as somebody holds it


class Bpf(NamedTuple):
    """Bytecode, or the id of a program; direct: what it returns is the verdict. The kernel does not know the path."""

    target: int
    bytecode: tuple[tuple[int, int, int, int], ...] = ()
    program: int = 0
    name: str = ""
    direct: bool = False
    actions: tuple[Action, ...] = ()
    path: str = ""


def _hold(program: int) -> None:
    """Keep a program that a filter has, so that a roll-back can give it back to one."""
    if program and program not in _held:
        try:
            _held[program] = bpf(PROG_BY_ID, struct.pack("=III", program, 0, 0))
        except OSError:  # it is gone, or not for us
            pass


def parse_pinned(value: object) -> tuple[str, int]:
    """(path, id) of a program in a BPF file system. Raises ValueError where there is none for classifiers."""
    allowed = "write the absolute path of a program that is pinned in a BPF file system (`bpftool prog load FILE PATH`)"
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(allowed)
    path = ctypes.create_string_buffer(value.encode())
    try:
        descriptor = bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    except OSError as error:
        raise ValueError(f"{allowed}; the kernel says: {error.strerror}") from None
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as shown:
        facts = dict(line.split(":\t", 1) for line in shown.read().splitlines() if ":\t" in line)
    if facts.get("prog_type", "").strip() != str(SCHED_CLS):
        os.close(descriptor)
        raise ValueError(f"{allowed}, of type sched_cls")
    program = int(facts["prog_id"])
    if program in _held:
        os.close(descriptor)
    _held.setdefault(program, descriptor)
    return value, program


def parse_bytecode(value: object) -> tuple[tuple[int, int, int, int], ...]:
    """A count and so many instructions, as tc has them: `4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0`."""
    allowed = "write the number of instructions and the instructions, such as '1,6 0 0 4294967295'"
    count, *lines = str(value).strip().strip(",").split(",")
    parts = [line.split() for line in lines]
    if not all(len(part) == 4 for part in parts) or not re.fullmatch(r"\d{1,4}", count) or int(count) != len(parts):
        raise ValueError(allowed)
    if not 1 <= len(parts) <= MOST_INSTRUCTIONS:
        raise ValueError(f"{allowed}, {MOST_INSTRUCTIONS} at most")
    limits = (0xFFFF, 0xFF, 0xFF, 2**32 - 1)
    found = [[units.parse_integer(word, 0, most) for word, most in zip(part, limits)] for part in parts]
    return tuple((code, true, false, k) for code, true, false, k in found)


def _build(
    flowid: int | None = None,
    bytecode: tuple[tuple[int, int, int, int], ...] = (),
    object_pinned: tuple[str, int] = ("", 0),
    direct_action: bool = False,
    action: tuple[Action, ...] = (),
) -> Bpf:
    path, program = object_pinned
    if bool(bytecode) == bool(program):
        raise ValueError("bpf needs one of bytecode and object_pinned")
    if direct_action and action:
        raise ValueError("with direct_action the program decides: leave action out")
    target = flowid or 0 if direct_action else check_target(flowid, action)
    name = f"{os.path.basename(path)}:[*fsobj]" if path else ""  # as tc names it (lib/bpf_legacy.c, bpf_do_parse)
    return Bpf(target, bytecode, program, name, direct_action, action, path)


def _encode(options: Bpf) -> bytes:
    data = attribute(CLASSID, u32(options.target)) if options.target else b""
    if options.program:
        _hold(options.program)
        if options.program not in _held:
            raise TestbedError(f"the BPF program {options.program} ({options.name}) is gone: nothing held it any more")
        data += attribute(FD, u32(_held[options.program])) + attribute(NAME, string(options.name))
    else:
        code = b"".join(INSTRUCTION.pack(*instruction) for instruction in options.bytecode)
        data += attribute(OPS_LEN, struct.pack("=H", len(options.bytecode))) + attribute(OPS, code)
    if options.direct:
        data += attribute(FLAGS, u32(ACT_DIRECT))
    return data + encode_actions(ACT, options.actions)


def _decode(data: bytes) -> Bpf:
    found = attributes(data)
    program = integer(found.get(ID, b""))
    _hold(program)
    return Bpf(
        integer(found.get(CLASSID, b"")),
        tuple(INSTRUCTION.iter_unpack(found.get(OPS, b""))),
        program,
        text(found.get(NAME, b"")),
        bool(integer(found.get(FLAGS, b"")) & ACT_DIRECT),
        decode_actions(found.get(ACT, b"")),
    )


def _render(options: Bpf) -> str:
    code = ",".join(" ".join(map(str, instruction)) for instruction in options.bytecode)
    what = f"bytecode '{len(options.bytecode)},{code}'" if code else f"object-pinned {shlex.quote(options.path)}"
    if options.program and not options.path:
        what = f"{options.name} id {options.program}"  # as tc shows it
    parts = [what, "direct-action" if options.direct else ""]
    parts += [f"flowid {handle_text(options.target)}" if options.target else "", render_actions(options.actions)]
    return " ".join(part for part in parts if part)


def _same(wanted: Bpf, found: Bpf) -> bool:
    return wanted._replace(path="") == found._replace(path="")


BPF = Kind(
    "bpf",
    {
        "flowid": schema.leaf(parse_handle),
        "bytecode": schema.leaf(parse_bytecode),
        "object_pinned": schema.leaf(parse_pinned, keep=False),
        "direct_action": schema.leaf(units.parse_boolean),
        "action": parse_actions,
    },
    _build,
    _encode,
    _decode,
    _render,
    _same,
)
