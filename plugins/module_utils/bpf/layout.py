# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layout of the maps as files/bpf/impair.h has it. Knows no kernel call."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MOST_SHAPES, MOST_RULES, MOST_STATES, PATTERN_BITS, MOST_CORRUPTED, LABEL = 64, 4096, 65536, 1024, 16, 96
LAST = 0xFFFFFFFF  # more than any order
NEVER, EVERY, PATTERN, RANDOM, GILBERT_ELLIOTT, FOUR_STATE, ALL = range(7)  # enum chooser_kind
PAYLOAD, TRANSPORT, NETWORK = range(3)  # enum corruption_base

_FIELDS = struct.Struct("=16s16s6s6s2s2s2sHIIBBBB")
_SHAPE = struct.Struct("=III")
_MATCH = struct.Struct("=I")
_WORDS = struct.Struct("=8Q")  # of the fields
_FACTORS = tuple(0x9E3779B97F4A7C15 + 2 * word * 0x94D049BB133111EB for word in range(8))
_TARGET = struct.Struct("=III")
_RULE = struct.Struct("=II")
_CHOOSER = struct.Struct("=IIIIQ5II")
_CORRUPTION = struct.Struct(f"=IIII{MOST_CORRUPTED}s")
_MARK = struct.Struct("=II")
_DROP = struct.Struct("=II")
_STATE = struct.Struct("=7Q4I")

CHOOSER_SIZE = _CHOOSER.size + PATTERN_BITS // 8
RULE_SIZE = _RULE.size + 4 * CHOOSER_SIZE + _CORRUPTION.size + _MARK.size + LABEL
SHAPE_SIZE = 2 * _FIELDS.size + _TARGET.size + _SHAPE.size
MATCH_SIZE = _FIELDS.size + _MATCH.size + _TARGET.size
DROP_SIZE = _DROP.size
STATE_SIZE = _STATE.size
INDEX = struct.Struct("=I")  # key of `rules` and arrays
KEY = struct.Struct("=Q")  # of `matches`


class Fields(NamedTuple):
    """struct fields, as values or as masks; addresses as the packet has them, IPv4 in the first four bytes."""

    source: bytes = bytes(16)
    destination: bytes = bytes(16)
    source_mac: bytes = bytes(6)
    destination_mac: bytes = bytes(6)
    ethertype: bytes = bytes(2)
    source_port: bytes = bytes(2)
    destination_port: bytes = bytes(2)
    vlan: int = 0
    mark: int = 0
    in_interface: int = 0
    protocol: int = 0
    dscp: int = 0
    tags: int = 0
    ports: int = 0

    def pack(self) -> bytes:
        return _FIELDS.pack(*self)


class Target(NamedTuple):
    """struct target: what becomes of the packets of a match."""

    order: int
    rule: int = 0
    priority: int = 0

    def pack(self) -> bytes:
        return _TARGET.pack(*self)


class Chooser(NamedTuple):
    """struct chooser: which packets of a rule suffer something. A chance is a number of 2^32."""

    kind: int = NEVER
    every: int = 0
    place: int = 0
    seed: int | None = None
    chances: tuple[int, ...] = ()
    pattern: int = 0  # packet n of each `every`: bit n

    def pack(self) -> bytes:
        chances = (*self.chances, 0, 0, 0, 0, 0)[:5]
        head = _CHOOSER.pack(self.kind, self.every, self.place, self.seed is not None, self.seed or 0, *chances, 0)
        words = [self.pattern >> shift & (1 << 64) - 1 for shift in range(0, PATTERN_BITS, 64)]
        return head + struct.pack(f"={len(words)}Q", *words)


class Corruption(NamedTuple):
    """What is done to the bytes of a chosen packet."""

    base: int = PAYLOAD
    offset: int = 0
    xor: bytes = b""
    fix_checksums: bool = False


class Rule(NamedTuple):
    """struct rule: what the packets of one traffic class suffer."""

    drop: Chooser = Chooser()
    corrupt: Chooser = Chooser()
    duplicate: Chooser = Chooser()
    mark: Chooser = Chooser()
    corruption: Corruption = Corruption()
    set_mark: tuple[int, int] = (0, 0)  # value, mask
    label: str = ""

    def pack(self) -> bytes:
        choosers = (self.drop, self.corrupt, self.duplicate, self.mark)
        uses = sum(1 << place for place, one in enumerate(choosers) if one.kind != NEVER)
        base, offset, xor, fix = self.corruption
        corruption = _CORRUPTION.pack(base, offset, len(xor), fix, xor)
        label = self.label.encode()[: LABEL - 1].decode(errors="ignore").encode()
        head = _RULE.pack(uses, 0) + b"".join(one.pack() for one in choosers)
        return head + corruption + _MARK.pack(*self.set_mark) + label.ljust(LABEL, b"\0")

    def pack_drop(self) -> bytes:
        """struct drop: what it asks where that is nothing but to drop one of every so many packets, else zeros."""
        others = (self.corrupt.kind, self.duplicate.kind, self.mark.kind)
        alone = self.drop.kind == EVERY and not any(others)
        return _DROP.pack(self.drop.every, self.drop.place) if alone else bytes(DROP_SIZE)


class State(NamedTuple):
    """struct state: what a rule has counted."""

    seen: int
    dropped: int
    corrupted: int
    duplicated: int
    marked: int
    superpackets: int
    segments: int


def place_of(rule: int) -> bytes:
    """Where the rule with this key stands in `drops` and `states`, as a key of these arrays."""
    return INDEX.pack(rule % MOST_STATES)


def pack_shape(mask: Fields, behind: int = LAST, lone: tuple[Fields, Target] | None = None) -> bytes:
    """`behind`: the least order among the matches of those that follow; `lone`: its match, where there is but one."""
    only, target = lone or (Fields(), Target(0))
    return _SHAPE.pack(1, behind, lone is not None) + target.pack() + mask.pack() + only.pack()


def pack_match(shape: int, fields: Fields, target: Target) -> tuple[bytes, bytes]:
    """An entry of `matches`: its key and itself."""
    packed = fields.pack()
    number = shape + sum(word * factor for word, factor in zip(_WORDS.unpack(packed), _FACTORS))
    return KEY.pack(number & (1 << 64) - 1), packed + _MATCH.pack(shape) + target.pack()


def unpack_chooser(data: bytes) -> Chooser:
    kind, every, place, seeded, seed, *chances, _zero = _CHOOSER.unpack_from(data)
    words = struct.unpack_from(f"={PATTERN_BITS // 64}Q", data, _CHOOSER.size)
    pattern = sum(word << 64 * number for number, word in enumerate(words))
    return Chooser(kind, every, place, seed if seeded else None, trimmed(chances), pattern)


def trimmed(chances: Sequence[int]) -> tuple[int, ...]:
    """Without the zeros at the end, which every chooser has."""
    used = len(chances)
    while used and not chances[used - 1]:
        used -= 1
    return tuple(chances[:used])


def unpack_rule(data: bytes) -> Rule:
    """Of RULE_SIZE bytes."""
    places = range(_RULE.size, _RULE.size + 4 * CHOOSER_SIZE, CHOOSER_SIZE)
    drop, corrupt, duplicate, marked = (unpack_chooser(data[place:]) for place in places)
    behind = _RULE.size + 4 * CHOOSER_SIZE
    base, offset, length, fix, xor = _CORRUPTION.unpack_from(data, behind)
    value, mask = _MARK.unpack_from(data, behind + _CORRUPTION.size)
    label = data[-LABEL:].split(b"\0", 1)[0].decode(errors="replace")
    corruption = Corruption(base, offset, xor[:length], bool(fix))
    return Rule(drop, corrupt, duplicate, marked, corruption, (value, mask), label)


def unpack_state(data: bytes) -> State:
    return State(*_STATE.unpack_from(data)[:7])
