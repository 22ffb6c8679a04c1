# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults as rules of the BPF program. Knows no kernel call."""

from __future__ import annotations

from .. import units
from ..bpf import layout
from ..bpf.layout import Chooser, Corruption, Rule
from ..tc.kinds.netem_options import FourState, GilbertElliott
from .backends import by_program
from .faults import BASES, Choice
from .model import Impairment

NOTHING = Chooser()


def rule(asked: Impairment, label: str) -> Rule:
    """What the packets of a class suffer by the program; `label` is for people."""
    drop = asked.drop if "drop" in by_program(asked) else None
    corrupt, marked = asked.corrupt, asked.set_mark
    return Rule(
        chooser(drop.choice) if drop else NOTHING,
        chooser(corrupt.choice) if corrupt else NOTHING,
        chooser(asked.duplicate) if asked.duplicate else NOTHING,
        chooser(marked.choice) if marked else NOTHING,
        Corruption(BASES.index(corrupt.at), corrupt.offset, corrupt.xor, corrupt.fix_checksums)
        if corrupt
        else Corruption(),
        (marked.value, marked.mask) if marked else (0, 0),
        label.encode()[: layout.LABEL - 1].decode(errors="ignore"),
    )


def chooser(choice: Choice) -> Chooser:
    """As the program has it."""
    if choice.pattern:
        places = sum(1 << place for place, digit in enumerate(choice.pattern) if digit == "1")
        return Chooser(layout.PATTERN, len(choice.pattern), pattern=places)
    if choice.every:
        return Chooser(layout.EVERY, choice.every, choice.packet)
    model = choice.chance
    chances: tuple[int, ...]
    if isinstance(model, GilbertElliott):
        kind, chances = layout.GILBERT_ELLIOTT, (model.p, model.r, units.PERCENT_MAX - model.h, model.k1)
    elif isinstance(model, FourState):
        kind, chances = layout.FOUR_STATE, (model.p13, model.p31, model.p32, model.p23, model.p14)
    else:
        kind, chances = layout.RANDOM, (model.probability,)
    return Chooser(kind, seed=choice.seed, chances=layout.trimmed(chances))
