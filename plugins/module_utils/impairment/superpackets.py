# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which impairments are of single packets: a superpacket of TSO or GRO would suffer as one. Knows no kernel call.

A delay or a rate is the same for a superpacket as for the burst that it is, and what all packets suffer needs none
apart either.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..tc.kinds.netem import Chance
from ..units import PERCENT_MAX
from . import shape
from .faults import Choice
from .model import Impairment, Interface

HOW = "packets that TSO or GRO gathered come as one of up to 64 KiB"


def needs(asked: Sequence[Interface]) -> list[tuple[str, str]]:
    """Interfaces, and directions, in whose classes single packets suffer something."""
    return [(one.name, one.direction) for one in asked if any(_of_packets(entry.impairment) for entry in one.classes)]


def warnings(asked: Sequence[Interface]) -> list[str]:
    """What offloads spoil where they are kept; the rest is told by counters."""
    return [
        f"{entry.path}.queue: {HOW}, and a smaller buffer loses them whole; leave `offloads` at manage, or switch them "
        "off"
        for one in asked
        for entry in one.classes
        if shape.loses_superpackets(entry.impairment)
    ]


def _of_packets(asked: Impairment) -> bool:
    if not asked.enabled or asked.down:
        return False
    chosen = [asked.drop and asked.drop.choice, asked.duplicate, asked.set_mark and asked.set_mark.choice]
    emulated = asked.netem
    chances = [emulated.loss, emulated.duplicate]
    return (
        any(one and not _all(one) for one in chosen)
        or any(one != Chance() and one != Chance(PERCENT_MAX) for one in chances)
        or bool(asked.corrupt or emulated.corrupt.probability or emulated.reorder.probability)
        or bool(emulated.slot and emulated.slot.packets)
        or shape.loses_superpackets(asked)
        or bool(asked.queue and asked.queue.unit == "packets")
    )


def _all(choice: Choice) -> bool:
    return choice.every == 1 or choice.chance == Chance(PERCENT_MAX)
