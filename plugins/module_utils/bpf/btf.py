# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What BTF, the compiler's table of types, tells of maps: https://www.kernel.org/doc/html/latest/bpf/btf.html.

libbpf's macros write numbers as types: `__uint(type, 2)` is a pointer to an array of 2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

MAGIC = 0xEB9F
HEADER = struct.Struct("=HBBIIIII")
TYPE = struct.Struct("=III")
INT, POINTER, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST, RESTRICT = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11
PROTOTYPE, VARIABLE, SECTION, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = 13, 14, 15, 16, 17, 18, 19
NAMES = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)  # other names of one type
ENTRY = {
    STRUCT: 12,
    UNION: 12,
    ENUM: 8,
    PROTOTYPE: 8,
    SECTION: 12,
    ENUM64: 12,
}  # bytes behind a type, each of its count
TAIL = {INT: 4, ARRAY: 12, VARIABLE: 4, DECL_TAG: 4}
BIT_OFFSET = 0xFFFFFF  # of a member; above it the size of a bit field, where the structure has such
DEEPEST = 32  # names of names


class Type(NamedTuple):
    """A type; `size` is that of another one for pointers and names, `tail` what stands behind it."""

    name: int
    kind: int
    entries: int
    size: int
    tail: bytes


class _Table(NamedTuple):
    types: list[Type]  # from 1 on; 0 is void
    strings: bytes

    def name(self, offset: int) -> str:
        end = self.strings.find(b"\0", offset)
        if end < 0:
            raise ValueError("a name of its types has no end")
        return self.strings[offset:end].decode("utf-8", "backslashreplace")

    def resolved(self, number: int) -> Type:
        """A type behind its other names."""
        for _deep in range(DEEPEST):
            found = self.types[number] if 0 < number < len(self.types) else None
            if found is None:
                raise ValueError("a type is not there")
            if found.kind not in NAMES:
                return found
            number = found.size
        raise ValueError("a type is a name of itself")

    def members(self, kind: Type) -> list[tuple[str, int]]:
        return [(self.name(name), number) for name, number, _offset in TYPE.iter_unpack(kind.tail)]

    def size_of(self, number: int, deep: int = 0) -> int:
        kind = self.resolved(number)
        if kind.kind in (INT, STRUCT, UNION, ENUM, FLOAT, ENUM64):
            return kind.size
        if kind.kind == POINTER:
            return 8
        if kind.kind == ARRAY and deep < DEEPEST:
            element, _index, count = TYPE.unpack(kind.tail)
            return count * self.size_of(element, deep + 1)
        raise ValueError("a type has no size")

    def number(self, pointer: int) -> int:
        """What __uint says."""
        array = self.resolved(self._pointed(pointer))
        if array.kind != ARRAY:
            raise ValueError("a map's number is none")
        return int(TYPE.unpack(array.tail)[2])

    def _pointed(self, number: int) -> int:
        pointer = self.resolved(number)
        if pointer.kind != POINTER:
            raise ValueError("a map's member is neither a number nor a type")
        return pointer.size

    def pointed_size(self, number: int) -> int:
        """The size of what __type says."""
        return self.size_of(self._pointed(number))


def offsets(data: bytes, paths: Iterable[str]) -> dict[str, int]:
    """Where members of structures are, in bytes, by paths such as `net.ns.inum`; of unions without a name, too.

    Paths that this kernel does not have are left out. Raises ValueError, struct.error.
    """
    table = _table(data)
    wanted = list(paths)
    heads = {path.partition(".")[0] for path in wanted}
    named = ((table.name(one.name), one) for one in table.types if one.kind == STRUCT and one.entries)
    structures = {name: one for name, one in named if name in heads}
    found = {}
    for path in wanted:
        head, *members = path.split(".")
        place = _place(table, structures[head], members) if head in structures else None
        if place is not None:
            found[path] = place
    return found


def _place(table: _Table, within: Type, members: list[str]) -> int | None:
    if not members:
        return 0
    if within.kind not in (STRUCT, UNION):
        return None
    for name_at, number, bits in TYPE.iter_unpack(within.tail):
        name = table.name(name_at)
        if name and name != members[0]:
            continue
        rest = members[1:] if name else members
        place = _place(table, table.resolved(number), rest) if rest else 0
        if place is not None:
            return (bits & BIT_OFFSET) // 8 + place
    return None


def maps(data: bytes) -> dict[str, dict[str, int]]:
    """The members of all maps of the section `.maps`; key and value as their sizes. Raises ValueError, struct.error."""
    table = _table(data)
    found = {}
    for section in table.types:
        if section.kind != SECTION or table.name(section.name) != ".maps":
            continue
        for number, _offset, _size in TYPE.iter_unpack(section.tail):
            variable = table.resolved(number)
            members = table.resolved(variable.size)
            if variable.kind != VARIABLE or members.kind != STRUCT:
                raise ValueError(f"{table.name(variable.name)} in .maps is no map")
            found[table.name(variable.name)] = dict(_member(table, *one) for one in table.members(members))
    return found


def _member(table: _Table, name: str, number: int) -> tuple[str, int]:
    if name in ("key", "value"):
        return f"{name}_size", table.pointed_size(number)
    if name == "values":  # maps in maps, tables of programs: the kernel wants descriptors in them
        return name, 1
    return name, table.number(number)


def _table(data: bytes) -> _Table:
    magic, _version, _flags, head, types, types_size, strings, strings_size = HEADER.unpack_from(data)
    if magic != MAGIC or head + types + types_size > len(data) or head + strings + strings_size > len(data):
        raise ValueError("its table of types (.BTF) is damaged")
    found = [Type(0, 0, 0, 0, b"")]
    at, end = head + types, head + types + types_size
    while at < end:
        name, info, size = TYPE.unpack_from(data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        tail = ENTRY.get(kind, 0) * count + TAIL.get(kind, 0)
        at += TYPE.size + tail
        if at > end:
            raise ValueError("its table of types (.BTF) is cut short")
        found.append(Type(name, kind, count, size, data[at - tail : at]))
    return _Table(found, data[head + strings : head + strings + strings_size])
