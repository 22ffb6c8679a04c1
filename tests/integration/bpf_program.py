# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program files/bpf/impair.c in the kernel, with maps that a test fills; their layout is told here once more."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

from plugins.module_utils.bpf import elf, program, syscall
from plugins.plugin_utils import clang
from tests.integration.places import CHECKOUT

SOURCE = CHECKOUT / "files/bpf/impair.c"
OTHERS = [CHECKOUT / f"tests/oracle/bpf/{name}.c" for name in ("calls", "variables", "maps", "vlan")]
GIVEN = Path("/run/out")  # of a virtual machine: it has no compiler, or a slow one
PASS, DROP = -1, 2  # TC_ACT_UNSPEC, TC_ACT_SHOT
ALWAYS = LAST = 0xFFFFFFFF
NEVER, EVERY, PATTERN, RANDOM, GILBERT_ELLIOTT, FOUR_STATE, ALL = range(7)
PAYLOAD, TRANSPORT, NETWORK = range(3)
CONTEXT_SIZE = 192  # struct __sk_buff of Linux 5.19 and newer
MARK, INGRESS, IFINDEX, PRIORITY, SEGMENTS, SEGMENT_SIZE = 8, 36, 40, 32, 164, 176  # where they stand in it

u8, u16, u32, u64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64


class Fields(ctypes.Structure):
    _fields_ = [
        ("source", u8 * 16),
        ("destination", u8 * 16),
        ("source_mac", u8 * 6),
        ("destination_mac", u8 * 6),
        ("ethertype", ctypes.c_uint8 * 2),
        ("source_port", ctypes.c_uint8 * 2),
        ("destination_port", ctypes.c_uint8 * 2),
        ("vlan", u16),
        ("mark", u32),
        ("in_interface", u32),
        ("protocol", u8),
        ("dscp", u8),
        ("tags", u8),
        ("ports", u8),
    ]


class Chooser(ctypes.Structure):
    _fields_ = [
        ("kind", u32),
        ("every", u32),
        ("place", u32),
        ("seeded", u32),
        ("seed", u64),
        ("chances", u32 * 5),
        ("zero", u32),
        ("pattern", u64 * 16),
    ]


class Rule(ctypes.Structure):
    _fields_ = [
        ("uses", u32),
        ("zero", u32),
        ("drop", Chooser),
        ("corrupt", Chooser),
        ("duplicate", Chooser),
        ("mark", Chooser),
        ("base", u32),
        ("offset", u32),
        ("length", u32),
        ("fix_checksums", u32),
        ("xor", u8 * 16),
        ("mark_value", u32),
        ("mark_mask", u32),
        ("label", u8 * 96),
    ]


class State(ctypes.Structure):
    _fields_ = [
        ("seen", u64),
        ("dropped", u64),
        ("corrupted", u64),
        ("duplicated", u64),
        ("marked", u64),
        ("superpackets", u64),
        ("segments", u64),
        ("chains", u32 * 4),
    ]


SIZES = {
    "shapes": (4, 2 * ctypes.sizeof(Fields) + 24),
    "matches": (8, ctypes.sizeof(Fields) + 16),
    "rules": (4, ctypes.sizeof(Rule)),
    "drops": (4, 8),
    "states": (4, ctypes.sizeof(State)),
}
EVERYTHING = Fields()
EXACTLY = Fields.from_buffer_copy(b"\xff" * ctypes.sizeof(Fields))


class Outcome(NamedTuple):
    verdict: int
    packet: bytes
    mark: int
    priority: int
    nanoseconds: int


def compiled(source: Path = SOURCE) -> bytes:
    """The object file: given, or made from the source."""
    given = GIVEN / f"{source.stem}.o"
    return given.read_bytes() if given.exists() else clang.compile_program(source, (*clang.FLAGS, "-g"))


def give(folder: Path) -> list[Path]:
    """Put the object files there where the tests in a virtual machine look for them."""
    made = []
    for source in (SOURCE, *OTHERS):
        made.append(folder / f"{source.stem}.o")
        made[-1].write_bytes(compiled(source))
    return made


class Loaded:
    """The program and maps of its own."""

    def __init__(self, data: bytes) -> None:
        self.maps = {one.name: program.create(one) for one in elf.read(data, "impair.o").maps}
        self.program = program.load(data, "classifier", self.maps, "impair.o")
        self.arriving = program.load(data, "ingress", self.maps, "impair.o")

    def close(self) -> None:
        for descriptor in (self.program.descriptor, self.arriving.descriptor, *self.maps.values()):
            os.close(descriptor)

    def clear(self) -> None:
        """Forget matches, rules and where they stand."""
        for name in ("matches", "rules"):
            for key in list(syscall.keys(self.maps[name], SIZES[name][0])):
                syscall.delete(self.maps[name], key)
        for index in range(64):
            self.no_shape(index)
        self.drop(1, 0, 0)

    def shape(self, index: int, mask: Fields, behind: int = LAST) -> None:
        head = struct.pack("=6I", 1, behind, 0, 0, 0, 0)
        syscall.update(self.maps["shapes"], _number(index), head + bytes(mask) + bytes(ctypes.sizeof(Fields)))

    def no_shape(self, index: int) -> None:
        syscall.update(self.maps["shapes"], _number(index), bytes(SIZES["shapes"][1]))

    def match(self, shape: int, fields: Fields, rule: int, order: int = 0, priority: int = 0) -> None:
        value = bytes(fields) + struct.pack("=IIII", shape, order, rule, priority)
        syscall.update(self.maps["matches"], _key(shape, fields), value)

    def no_match(self, shape: int, fields: Fields) -> None:
        assert syscall.delete(self.maps["matches"], _key(shape, fields))

    def rule(self, number: int, rule: Rule, state: State | None = None) -> None:
        """Set a rule, and where it stands unless it stands already."""
        choosers = (rule.drop, rule.corrupt, rule.duplicate, rule.mark)
        rule.uses = sum(1 << place for place, chooser in enumerate(choosers) if chooser.kind)
        if state or syscall.lookup(self.maps["rules"], _number(number), SIZES["rules"][1]) is None:
            syscall.update(self.maps["states"], _number(number), bytes(state or State()))
        syscall.update(self.maps["rules"], _number(number), bytes(rule))

    def drop(self, number: int, every: int, place: int) -> None:
        """What the program then does in place of the rule of this number, which need not be there."""
        syscall.update(self.maps["drops"], _number(number), struct.pack("=II", every, place))

    def only(self, rule: Rule, state: State | None = None, priority: int = 0) -> None:
        """All packets suffer this."""
        self.clear()
        self.shape(0, EVERYTHING)
        self.match(0, EVERYTHING, 1, priority=priority)
        self.rule(1, rule, state or State())

    def state(self, number: int = 1) -> State:
        found = syscall.lookup(self.maps["states"], _number(number), SIZES["states"][1])
        assert found is not None
        return State.from_buffer_copy(found)

    def run(self, packet: bytes, repeat: int = 1, **context: int) -> Outcome:
        """Give the program a packet; `context` by the names above in small letters."""
        before = bytearray(CONTEXT_SIZE)
        places = {"mark": MARK, "ingress": INGRESS, "ifindex": IFINDEX, "priority": PRIORITY}
        places.update({"segments": SEGMENTS, "segment_size": SEGMENT_SIZE})
        for name, value in context.items():
            struct.pack_into("=I", before, places[name], value)
        done = syscall.run(self.program.descriptor, packet, bytes(before), repeat)
        (mark,) = struct.unpack_from("=I", done.context, MARK)
        (priority,) = struct.unpack_from("=I", done.context, PRIORITY)
        return Outcome(done.verdict, done.packet, mark, priority, done.nanoseconds)


def factor(word: int) -> int:
    return (0x9E3779B97F4A7C15 + 2 * word * 0x94D049BB133111EB) & (1 << 64) - 1


def _key(shape: int, fields: Fields) -> bytes:
    total = shape
    for word, value in enumerate(struct.unpack("=8Q", bytes(fields))):
        total += value * factor(word)
    return struct.pack("=Q", total & (1 << 64) - 1)


def _number(value: int) -> bytes:
    return struct.pack("=I", value)
