# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Object files of clang's target bpf: programs, what in them refers to maps and functions, and the maps (elf(5)).

Maps are told by a section `maps` of struct {type, key size, value size, entries, flags}, by libbpf's `.maps`, or are a
section of global variables. https://www.kernel.org/doc/html/latest/bpf/llvm_reloc.html has the relocations.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import TestbedError
from . import btf
from .syscall import ARRAY

BPF = 247  # EM_BPF
RELOCATABLE = 1  # ET_REL
SYMBOLS, REL, NOTHING = 2, 9, 8  # SHT_SYMTAB, SHT_REL, SHT_NOBITS
OBJECT, FUNCTION, SECTION = 1, 2, 3  # STT_*
EXECUTABLE = 4  # SHF_EXECINSTR
R_64, R_32 = 1, 10  # R_BPF_64_64 of a load of 64 bits, R_BPF_64_32 of a call
HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("=IIQQQQIIQQ")
SYMBOL = struct.Struct("=IBBHQQ")
RELOCATION = struct.Struct("=QQ")
LEGACY = struct.Struct("=5I")  # struct bpf_map_def
INSTRUCTION = struct.Struct("=BBhi")  # opcode, registers, offset, immediate
LOAD_64, CALL = 0x18, 0x85
DATA = (".rodata", ".data", ".bss")
READ_ONLY = 0x80  # BPF_F_RDONLY_PROG
MOST_SECTIONS, MOST_DATA = 1000, 1 << 20


class BadObject(TestbedError):
    """A file that cannot be used as a BPF object."""


class Section(NamedTuple):
    name: str
    kind: int
    flags: int
    link: int
    info: int
    data: bytes


class Symbol(NamedTuple):
    name: str
    kind: int
    section: int
    value: int
    size: int


class Reference(NamedTuple):
    """What the relocation of an instruction refers to: a place in a section, by bytes; undefined where section is 0."""

    name: str
    kind: int
    section: int
    value: int


class MapDefinition(NamedTuple):
    """A map as the object wants it; sizes in bytes. `content`: of a section of global variables."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    pinned: bool = False
    content: bytes = b""


class Object(NamedTuple):
    """An object file. `references`: by section and place of the instruction; `places` of maps: by section and start."""

    name: str
    licence: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    references: dict[int, dict[int, Reference]]
    places: dict[tuple[int, int], MapDefinition]

    @property
    def maps(self) -> tuple[MapDefinition, ...]:
        return tuple(self.places.values())


def read(data: bytes, name: str) -> Object:
    """Take an object file apart; `name` is what errors call it. Raises BadObject."""
    try:
        return _read(data, name)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it ends early, or is damaged"
        raise BadObject(f"{name} cannot be used as a BPF object: {reason}") from None


def functions(made: Object, section: int) -> Iterator[Symbol]:
    """The functions of a section."""
    return (one for one in made.symbols if one.section == section and one.kind == FUNCTION)


def map_at(made: Object, reference: Reference, addend: int) -> tuple[MapDefinition, int] | None:
    """The map that a reference means, and the place in its value where it is a section of variables."""
    place = reference.value + addend
    data = made.places.get((reference.section, -1))
    if data:
        return data, place
    found = made.places.get((reference.section, place))
    return (found, 0) if found else None


def _read(data: bytes, name: str) -> Object:
    sections = _sections(data)
    symbols = _symbols(sections)
    licences = [section.data for section in sections if section.name == "license"]
    return Object(
        name,
        _text(licences[0], 0) if licences else "",
        sections,
        symbols,
        _references(sections, symbols),
        dict(_maps(sections, symbols)),
    )


def _sections(data: bytes) -> tuple[Section, ...]:
    if data[:4] != b"\x7fELF":
        raise ValueError("it is no ELF file")
    order = {"little": 1, "big": 2}[sys.byteorder]
    if data[4:6] != bytes([2, order]):
        raise ValueError(
            f"it is not for {sys.byteorder}-endian machines (compile with -target bpf on a machine like this)"
        )
    _ident, kind, machine, _version, _entry, _programs, start, *_more, size, count, names = HEADER.unpack_from(data)
    if kind != RELOCATABLE or machine != BPF:
        raise ValueError("it was not made for BPF (clang -O2 -target bpf -c)")
    if size != SECTION_HEADER.size or not 0 < count <= MOST_SECTIONS or names >= count:
        raise ValueError("its table of sections is damaged")
    heads = [SECTION_HEADER.unpack_from(data, start + number * size) for number in range(count)]
    contents = [_content(data, head) for head in heads]
    return tuple(
        Section(_text(contents[names], head[0]), head[1], head[2], head[6], head[7], content)
        for head, content in zip(heads, contents)
    )


def _content(data: bytes, head: tuple[int, ...]) -> bytes:
    _name, kind, _flags, _address, offset, size = head[:6]
    if kind == 0:  # SHT_NULL
        return b""
    if kind == NOTHING:
        if size > MOST_DATA:
            raise ValueError(f"a section of {size} zeros is more than {MOST_DATA}")
        return bytes(size)
    if offset + size > len(data):
        raise ValueError("a section reaches beyond the end of the file")
    return data[offset : offset + size]


def _symbols(sections: tuple[Section, ...]) -> tuple[Symbol, ...]:
    tables = [section for section in sections if section.kind == SYMBOLS]
    if not tables:
        raise ValueError("it has no symbols")
    names = sections[tables[0].link].data
    found = []
    for name, info, _other, section, value, size in SYMBOL.iter_unpack(tables[0].data):
        kind = info & 0xF
        label = sections[section].name if kind == SECTION and section < len(sections) else _text(names, name)
        found.append(Symbol(label, kind, section, value, size))
    return tuple(found)


def _references(sections: tuple[Section, ...], symbols: tuple[Symbol, ...]) -> dict[int, dict[int, Reference]]:
    found: dict[int, dict[int, Reference]] = {}
    for section in sections:
        if section.kind != REL or section.info >= len(sections) or not sections[section.info].flags & EXECUTABLE:
            continue
        here = found.setdefault(section.info, {})
        for offset, info in RELOCATION.iter_unpack(section.data):
            if info >> 32 >= len(symbols):
                raise ValueError("a relocation names a symbol that is not there")
            symbol = symbols[info >> 32]
            if info & 0xFFFFFFFF not in (R_64, R_32):
                raise ValueError(f"a relocation of kind {info & 0xFFFFFFFF} (to {symbol.name}) is not known")
            here[offset] = Reference(symbol.name, symbol.kind, symbol.section, symbol.value)
    return found


def _maps(
    sections: tuple[Section, ...], symbols: tuple[Symbol, ...]
) -> Iterator[tuple[tuple[int, int], MapDefinition]]:
    told: dict[str, dict[str, int]] = {}
    if any(section.name == ".maps" for section in sections):
        types = [section.data for section in sections if section.name == ".BTF"]
        if not types:
            raise ValueError("its `.maps` need debugging information (clang -g)")
        told = btf.maps(types[0])
    for number, section in enumerate(sections):
        if section.name.startswith(DATA) and section.data and section.kind != REL:
            size = len(section.data) + 7 & ~7
            flags = READ_ONLY if section.name.startswith(".rodata") else 0
            content = section.data.ljust(size, b"\0")
            yield (number, -1), MapDefinition(section.name, ARRAY, 4, size, 1, flags, False, content)
        if section.name not in ("maps", ".maps"):
            continue
        for symbol in symbols:
            if symbol.section != number or symbol.kind not in (0, OBJECT) or not symbol.name:
                continue
            if section.name == "maps":
                yield (
                    (number, symbol.value),
                    MapDefinition(symbol.name, *LEGACY.unpack_from(section.data, symbol.value)),
                )
            elif symbol.name in told:
                yield (number, symbol.value), _told(symbol.name, told[symbol.name])
            else:
                raise ValueError(f"nothing tells what the map {symbol.name} is")


def _told(name: str, facts: dict[str, int]) -> MapDefinition:
    known = ("type", "key_size", "value_size", "max_entries", "map_flags", "pinning")
    others = [key for key, value in facts.items() if key not in known and value]
    if others:
        raise ValueError(f"the map {name} sets {', '.join(others)}, which is not supported")
    kind, key_size, value_size, entries, flags, pinning = (facts.get(key, 0) for key in known)
    return MapDefinition(name, kind, key_size, value_size, entries, flags, pinning == 1)  # LIBBPF_PIN_BY_NAME


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    if start > len(data) or end < 0:
        raise ValueError("a name has no end")
    return data[start:end].decode("utf-8", "backslashreplace")
