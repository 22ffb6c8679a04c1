# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an object file to a program in the kernel: its functions one behind the other, with its maps put in."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from . import syscall
from .elf import (
    CALL,
    EXECUTABLE,
    INSTRUCTION,
    LOAD_64,
    BadObject,
    MapDefinition,
    Object,
    Symbol,
    functions,
    map_at,
    read,
)

PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_CALL = 1, 2, 1  # where the source register stands
SIZE = INSTRUCTION.size


class Program(NamedTuple):
    """A program that the kernel holds for us; `identity` is the sha256 of the object file that it came from."""

    descriptor: int
    name: str
    identity: str


class Code(NamedTuple):
    """A program as the kernel wants it, but for maps: which of them the instruction of a number means, and where."""

    name: str
    instructions: bytes
    maps: dict[int, tuple[MapDefinition, int]]


def identity(data: bytes) -> str:
    """What tells one object file from another."""
    return hashlib.sha256(data).hexdigest()


def create(definition: MapDefinition) -> int:
    """Descriptor of a new map, with what the object has for it."""
    made = syscall.create_map(*definition[1:6], definition.name)
    if definition.content:
        syscall.update(made, bytes(definition.key_size), definition.content)
        if definition.name.startswith(".rodata"):
            syscall.freeze(made)
    return made


def load(
    data: bytes,
    section: str,
    maps: Mapping[str, int],
    file: str,
    function: str = "",
    name: str = "",
    kind: int = syscall.SCHED_CLS,
) -> Program:
    """Load the program of a section, for a classifier if `kind` does not say otherwise. `maps`: a descriptor for each
    map that it uses; `name`: what the kernel is to call it, if not as its function.

    Sections of global variables become maps by themselves where `maps` has none. `function` is needed where a section
    has several programs; `file` is what errors call the object. Raises BadObject, StepFailed, MissingCapability.
    """
    made = read(data, file)
    code = link(made, section, function)
    code = code._replace(name=name or code.name)
    held: dict[str, int] = dict(maps)
    own: list[int] = []
    try:
        for definition, _offset in code.maps.values():
            if definition.name in held:
                continue
            if not definition.content:
                raise BadObject(f"{file} uses the map {definition.name}, which nobody made")
            held[definition.name] = create(definition)
            own.append(held[definition.name])
        return Program(_loaded(code, held, made.licence, kind), code.name, identity(data))
    finally:
        for descriptor in own:  # the program holds its maps
            os.close(descriptor)


def link(made: Object, section: str, function: str = "") -> Code:
    """A program with all functions that it calls behind it; the kernel refuses what is never reached.

    Raises BadObject.
    """
    first = _entry(made, section, function)
    waiting = [first]
    starts: dict[Symbol, int] = {}
    code = bytearray()
    maps: dict[int, tuple[MapDefinition, int]] = {}
    calls: list[tuple[int, Symbol]] = []
    while waiting:
        one = waiting.pop(0)
        starts[one] = len(code) // SIZE
        code += _body(made, one)
        number = starts[one]
        while number < len(code) // SIZE:
            opcode, registers, _off, _immediate = _get(code, number)
            place = one.value + (number - starts[one]) * SIZE
            if opcode == LOAD_64:
                _note_map(made, one, code, number, place, maps)
                number += 1
            elif opcode == CALL:
                called = _called(made, one, registers, code, number, place)
                if called:
                    calls.append((number, called))
                    if called not in starts and called not in waiting:
                        waiting.append(called)
            number += 1
    for number, called in calls:
        opcode, registers, off, _immediate = _get(code, number)
        _put(code, number, opcode, _with_source(registers, PSEUDO_CALL), off, starts[called] - number - 1)
    return Code(first.name, bytes(code), maps)


def _loaded(code: Code, descriptors: Mapping[str, int], licence: str, kind: int) -> int:
    instructions = bytearray(code.instructions)
    for number, (definition, offset) in code.maps.items():
        opcode, registers, off, _immediate = _get(instructions, number)
        source = PSEUDO_MAP_VALUE if definition.content else PSEUDO_MAP_FD
        _put(instructions, number, opcode, _with_source(registers, source), off, descriptors[definition.name])
        if definition.content:
            _put(instructions, number + 1, 0, 0, 0, offset)
    return syscall.load(kind, bytes(instructions), licence, code.name)


def _entry(made: Object, section: str, function: str) -> Symbol:
    numbers = [number for number, one in enumerate(made.sections) if one.name == section and one.flags & EXECUTABLE]
    found = [one for number in numbers for one in functions(made, number) if function in ("", one.name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(one.name for one in found))
        raise BadObject(f"the section {section} of {made.name} has several programs: {names}; say which")
    there = sorted({one.name for one in made.sections if one.flags & EXECUTABLE and one.data})
    what = f"program {function} in a section {section}" if function else f"program in a section {section}"
    raise BadObject(f"{made.name} has no {what}; its sections with code: {', '.join(there) or 'none'}")


def _body(made: Object, function: Symbol) -> bytes:
    end = function.value + function.size
    section = made.sections[function.section]
    if not function.size or function.size % SIZE or function.value % SIZE or end > len(section.data):
        raise BadObject(f"{made.name} cannot be used as a BPF object: its function {function.name} is damaged")
    return section.data[function.value : end]


def _note_map(
    made: Object, function: Symbol, code: bytearray, number: int, place: int, maps: dict[int, tuple[MapDefinition, int]]
) -> None:
    if number + 2 > len(code) // SIZE:
        raise BadObject(f"{made.name} cannot be used as a BPF object: its function {function.name} is cut short")
    reference = made.references.get(function.section, {}).get(place)
    if reference is None:
        return  # a constant
    found = map_at(made, reference, _get(code, number)[3]) if reference.section else None
    if found is None:
        kind = "the address of a function" if reference.kind == 2 else "a symbol from elsewhere, or no map"
        raise BadObject(f"{made.name}: {function.name} uses {reference.name}, {kind}, which is not supported")
    maps[number] = found


def _called(made: Object, function: Symbol, registers: int, code: bytearray, number: int, place: int) -> Symbol | None:
    """The function of this object that an instruction calls; None: one of the kernel's."""
    immediate = _get(code, number)[3]
    reference = made.references.get(function.section, {}).get(place)
    if reference is None:
        if _source(registers) != PSEUDO_CALL:
            return None
        section, target = function.section, place + (immediate + 1) * SIZE
    else:  # the immediate counts from the symbol, minus the one instruction that calls jump further
        section, target = reference.section, reference.value + (immediate + 1) * SIZE
    for one in functions(made, section) if section else ():
        if one.value == target:
            return one
    name = reference.name if reference else f"instruction {target // SIZE}"
    raise BadObject(f"{made.name}: {function.name} calls {name}, which is not in the object")


def _get(code: bytes | bytearray, number: int) -> tuple[int, int, int, int]:
    opcode, registers, offset, immediate = INSTRUCTION.unpack_from(code, number * SIZE)
    return opcode, registers, offset, immediate


def _source(registers: int) -> int:
    """The two registers share a byte as bit fields do: the compiler's order follows the machine's."""
    return registers >> 4 if sys.byteorder == "little" else registers & 0xF


def _with_source(registers: int, source: int) -> int:
    return registers & 0xF | source << 4 if sys.byteorder == "little" else registers & 0xF0 | source


def _put(code: bytearray, number: int, opcode: int, registers: int, offset: int, immediate: int) -> None:
    INSTRUCTION.pack_into(code, number * SIZE, opcode, registers, offset, immediate)
