# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Matches as a BPF program looks them up: one hash for all, once under each mask that some match has.

So a thousand matches of one shape cost one look-up. The least order wins, as the first class does that matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..bpf.layout import MOST_SHAPES, Fields, Target
from ..errors import InvalidInput
from ..node import Link
from .classify import Rule
from .packets import ANY, Masked, Packets


class Table(NamedTuple):
    """Masks, each with the least order among its matches, sorted by that; matches by (place of the mask, fields)."""

    shapes: tuple[tuple[Fields, int], ...] = ()
    matches: tuple[tuple[int, Fields, Target], ...] = ()


class Effect(NamedTuple):
    """What becomes of the packets of an HTB class: a rule's key, and the class itself where no filter tells it."""

    rule: int = 0
    priority: int = 0


def table(rules: Sequence[Rule], effects: Mapping[int, Effect], links: Mapping[str, Link], path: str) -> Table:
    """The rules in their order. `effects`: by the class that a rule sends to; `links`: the node's.

    Raises InvalidInput where there are more kinds of match than the program tries.
    """
    found: dict[Fields, dict[Fields, Target]] = {}
    for order, rule in enumerate(rules):
        mask, value = _fields(rule.packets, links[rule.indev].index if rule.indev else 0)
        target = Target(order, *effects.get(rule.target, Effect()))
        found.setdefault(mask, {}).setdefault(value, target)  # what is written again takes nothing
    if len(found) > MOST_SHAPES:
        allowed = f"a BPF program tries at most {MOST_SHAPES} kinds of match of an interface; write fewer"
        raise InvalidInput(path, f"{len(found)} kinds of match", allowed)
    # Dictionaries keep their order: a mask's first match has its least order, and masks stand sorted by it.
    shapes = tuple((mask, next(iter(matches.values())).order) for mask, matches in found.items())
    keys = ((place, value, target) for place, matches in enumerate(found.values()) for value, target in matches.items())
    return Table(shapes, tuple(keys))


def reaches(rules: Iterable[Rule], targets: Iterable[int]) -> list[Rule]:
    """The rules up to the last one that sends to one of the targets: what comes after cannot matter."""
    wanted, kept = set(targets), list(rules)
    while kept and kept[-1].target not in wanted:
        kept.pop()
    return kept


def _fields(packets: Packets, in_interface: int) -> tuple[Fields, Fields]:
    """(mask, value) of a set of packets.

    As tc's filters have it, a match on a family takes untagged packets unless a VLAN is asked for, and a match on
    ports takes packets that hold ports.
    """
    untagged = packets.vlan == ANY and packets.ethertype != ANY
    ports = packets.source_port != ANY or packets.destination_port != ANY
    bits = 128 if packets.ethertype.value == 0x86DD else 32

    def side(masked: bool) -> Fields:
        def part(field: Masked) -> int:
            return field.mask if masked else field.value & field.mask

        def raw(field: Masked, size: int) -> bytes:
            return part(field).to_bytes(size, "big")

        return Fields(
            raw(packets.source, bits // 8).ljust(16, b"\0"),
            raw(packets.destination, bits // 8).ljust(16, b"\0"),
            raw(packets.source_mac, 6),
            raw(packets.destination_mac, 6),
            raw(packets.ethertype, 2),
            raw(packets.source_port, 2),
            raw(packets.destination_port, 2),
            part(packets.vlan),
            part(packets.mark),
            (0xFFFFFFFF if masked else in_interface) if in_interface else 0,
            part(packets.protocol),
            part(packets.dscp),
            0xFF if masked and untagged else 0,
            int(ports),
        )

    return side(True), side(False)
