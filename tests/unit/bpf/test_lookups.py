# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of one interface by its name, and matches that cannot be told apart."""

from __future__ import annotations

import sys

import pytest

from plugins.module_utils.bpf import tcx
from plugins.module_utils.bpf.layout import Fields, Target
from plugins.module_utils.bpf.lookups import ALONE, ARRIVING, LEAVING, Lookup
from plugins.module_utils.errors import TestbedError

MASK = Fields(source=b"\xff" * 16)
FACTORS = (0x9E3779B97F4A7C15, (0x9E3779B97F4A7C15 + 2 * 0x94D049BB133111EB) & (1 << 64) - 1)  # of the first two words


def lookup(*sources: bytes, code: bytes = b"", section: str = LEAVING) -> Lookup:
    matches = [(0, Fields(source=source), Target(order, 1)) for order, source in enumerate(sources)]
    return Lookup([(MASK, 0)], matches, code, section)


def test_the_name_tells_everything_that_the_program_is_made_of() -> None:
    one, two = bytes(16), b"\1" * 16
    made = [
        lookup(one, two),
        lookup(two, one),
        lookup(one),
        lookup(one, two, code=b"x"),
        *(lookup(one, two, section=section) for section in (ARRIVING, LEAVING + ALONE, ARRIVING + ALONE)),
    ]
    names = [each.name for each in made]
    assert len(set(names)) == len(names)
    assert lookup(one, two).name == names[0]
    assert all(tcx.NAME.fullmatch(name) for name in names)


def test_matches_of_the_same_key_are_refused() -> None:
    """Each of the two is the other's factor: the sums are the same."""
    first, second = (factor.to_bytes(8, sys.byteorder) for factor in FACTORS)
    lookup(second + bytes(8), first + bytes(8))
    with pytest.raises(TestbedError, match="same key"):
        lookup(second + bytes(8), bytes(8) + first)
