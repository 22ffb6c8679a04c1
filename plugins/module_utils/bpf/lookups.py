# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of one interface: files/bpf/impair.c with the matches of that interface, which it never changes.

Other matches are another program, which takes the place of the one before in one message; the rules and their counts
are shared and stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property

from ..errors import TestbedError
from . import program, syscall
from .layout import INDEX, KEY, LAST, MATCH_SIZE, MOST_SHAPES, SHAPE_SIZE, Fields, Target, pack_match, pack_shape
from .rules import SIZES, RulesDomain

LEAVING, ARRIVING = "classifier", "ingress"  # sections of the program
ALONE = "_alone"  # and this: the same, but what it lets pass no filter of clsact sees
NAME, DIGITS = "imp_", 11  # and of a hash of everything that the program is made of (tcx.py has it, too)


class Lookup:
    """What packets of an interface are looked up in."""

    def __init__(
        self,
        shapes: Iterable[tuple[Fields, int]],
        matches: Iterable[tuple[int, Fields, Target]],
        code: bytes,
        section: str = LEAVING,
    ) -> None:
        """`shapes`: masks and the least order of their matches, sorted by that; `matches`: by the place of their mask;
        `code`: ELF."""
        self._code, self._section = code, section
        found: dict[int, list[tuple[Fields, Target]]] = {}
        for place, fields, target in matches:
            found.setdefault(place, []).append((fields, target))
        lone = {place: some[0] for place, some in found.items() if len(some) == 1}
        masks = tuple(shapes)
        behind = (*(first for _mask, first in masks[1:]), LAST)
        self._shapes = [pack_shape(mask, behind[place], lone.get(place)) for place, (mask, _first) in enumerate(masks)]
        hashed = [(place, *match) for place, some in found.items() if place not in lone for match in some]
        self._matches = dict(pack_match(*one) for one in hashed)
        if len(self._matches) < len(hashed):  # once in 2^64 pairs of them
            raise TestbedError("two matches of an interface have the same key in a BPF program; write one differently")

    @cached_property
    def name(self) -> str:
        """The same for what is the same."""
        digest = hashlib.sha256(self._code + self._section.encode())
        for part in (*self._shapes, b"", *(part for match in self._matches.items() for part in match)):
            digest.update(part)
        return NAME + digest.hexdigest()[:DIGITS]

    def load(self, rules: RulesDomain) -> int:
        """A descriptor of the program. Raises StepFailed, with the verifier's last lines where it refuses."""
        maps = rules.maps()
        shapes = syscall.create_map(syscall.ARRAY, INDEX.size, SHAPE_SIZE, MOST_SHAPES, name="shapes")
        for place, shape in enumerate(self._shapes):
            syscall.update(shapes, INDEX.pack(place), shape)
        matches = syscall.create_map(syscall.HASH, KEY.size, MATCH_SIZE, max(len(self._matches), 1), name="matches")
        for key, match in self._matches.items():
            syscall.update(matches, key, match)
        given = {"shapes": shapes, "matches": matches, **dict(zip(SIZES, maps))}
        return program.load(self._code, self._section, given, "impair.o", name=self.name).descriptor
