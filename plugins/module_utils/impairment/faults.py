# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of chosen packets, every nth say: what is asked, checked. Knows no kernel call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import schema, units
from ..errors import InvalidInput
from ..schema import leaf, whole_number
from ..tc.kinds.netem_options import Chance, FourState, GilbertElliott
from ..tc.kinds.netem_words import chance as parse_chance
from ..tc.kinds.netem_words import parse_loss
from .match import interface_name, parse_mark

PATTERN_MOST = 1024  # packets
CORRUPTED_MOST = 16  # bytes of one packet
OFFSET_MOST = 65535
BACKENDS = ("bpf", "gact", "nft", "iptables")  # of a drop
BASES = ("payload", "transport", "network")


class Choice(NamedTuple):
    """Which packets of a class suffer something. Of the first three one is asked.

    every: one of so many, that at the 0-based place `packet` of each group; pattern: of `0` and `1` (chosen), repeated;
    chance: of each packet, alone or by a model of bursts, repeatable where `seed` is given.
    """

    every: int = 0
    packet: int = 0
    pattern: str = ""
    chance: Chance | GilbertElliott | FourState = Chance()
    seed: int | None = None

    @property
    def last_of_each(self) -> bool:
        return bool(self.every) and self.packet == self.every - 1


class Drop(NamedTuple):
    """Chosen packets are lost.

    `across`: interfaces whose classes of this name share the count; none: each counts for itself. `backend`: what has
    to carry it, "" for the best that the node has.
    """

    choice: Choice
    across: tuple[str, ...] = ()
    backend: str = ""


class Corrupt(NamedTuple):
    """Bytes of chosen packets are changed: those from `offset` on, behind where `at` begins, by `xor`."""

    choice: Choice
    at: str = "payload"
    offset: int = 0
    xor: bytes = b"\xff"
    fix_checksums: bool = False


class SetMark(NamedTuple):
    """The mark of chosen packets becomes `value` under `mask`."""

    choice: Choice
    value: int
    mask: int


ALL = Choice(every=1)


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(f"[01]{{1,{PATTERN_MOST}}}", value) or "1" not in value:
        raise ValueError(f"write 1 to {PATTERN_MOST} digits 0 and 1, in quotes; a packet at a 1 is chosen: '0010'")
    return value


_CHOICE: dict[str, schema.Parser] = {
    "every": whole_number(1, 65535),
    "packet": whole_number(0, 65534),
    "pattern": leaf(_pattern),
    "random": leaf(units.parse_percent),
    "gemodel": lambda value, path: parse_loss({"gemodel": value}, path.removesuffix(".gemodel")),
    "state": lambda value, path: parse_loss({"state": value}, path.removesuffix(".state")),
    "seed": whole_number(0, 2**64 - 1),
}
_WAYS = ("every", "pattern", "random", "gemodel", "state")
_RANDOM = ("random", "gemodel", "state")


def _choice(found: dict[str, Any], value: object, path: str, words: tuple[str, ...] = _WAYS) -> Choice:
    """Takes its keys out of `found`."""
    given = [key for key in words if key in found]
    if len(given) != 1:
        allowed = f"write one of {', '.join(words)}: which packets are chosen"
        raise InvalidInput(path, value, allowed) if given else InvalidInput(f"{path}.{words[0]}", None, allowed)
    way = given[0]
    asked = {key: found.pop(key) for key in _CHOICE if key in found}
    if "packet" in asked and way != "every":
        raise InvalidInput(f"{path}.packet", asked["packet"], "the place in each group belongs to every; write that")
    if "seed" in asked and way not in _RANDOM:
        raise InvalidInput(f"{path}.seed", asked["seed"], f"a seed belongs to chance: {', '.join(_RANDOM)}")
    if way in _RANDOM:
        chance = asked[way]
        return Choice(chance=Chance(chance) if way == "random" else chance, seed=asked.get("seed"))
    if way == "pattern":
        return Choice(pattern=asked["pattern"])
    every = asked["every"]
    packet = asked.get("packet", every - 1)
    if packet >= every:
        raise InvalidInput(
            f"{path}.packet", packet, f"write a place from 0 to {every - 1}: the first packet of each {every} is 0"
        )
    return Choice(every, packet)


def parse_drop(value: object, path: str) -> Drop:
    """`{every, packet}`, `{pattern}`, `{random}`, `{gemodel}` or `{state}`, with `seed`, `across` and `backend`."""
    fields = {**_CHOICE, "across": _interfaces, "backend": schema.choice(*BACKENDS)}
    found = schema.mapping(fields)(value, path)
    return Drop(_choice(found, value, path), found.get("across", ()), found.get("backend", ""))


def _is_fault(value: object) -> bool:
    """Whether this is about chosen packets; else it is netem's own: a percentage, or one with its correlation."""
    return isinstance(value, Mapping) and bool({*_CHOICE, "offset", "xor", "at", "checksum"} & set(value))


def parse_corrupt(value: object, path: str) -> Corrupt | Chance:
    """netem's percentage, or chosen packets with `offset`, `xor`, `at` and `checksum`."""
    if not _is_fault(value):
        return parse_chance("percent")(value, path)
    fields = {
        **_CHOICE,
        "offset": whole_number(0, OFFSET_MOST),
        "xor": leaf(_bytes),
        "at": schema.choice(*BASES),
        "checksum": schema.choice("keep", "fix"),
    }
    found = schema.mapping(fields)(value, path)
    choice = _choice(found, value, path)
    found["fix_checksums"] = found.pop("checksum", "keep") == "fix"
    return Corrupt(choice, **found)


def parse_duplicate(value: object, path: str) -> Choice | Chance:
    """netem's percentage, or chosen packets."""
    if not _is_fault(value):
        return parse_chance("percent")(value, path)
    return _choice(schema.mapping(_CHOICE)(value, path), value, path)


def parse_set_mark(value: object, path: str) -> SetMark:
    """`VALUE/MASK` for all packets, or `{value, …}` for chosen ones."""
    if not isinstance(value, Mapping):
        return SetMark(ALL, *parse_mark(value, path))
    found = schema.mapping({"value": parse_mark, **_CHOICE}, required=["value"])(value, path)
    mark = found.pop("value")
    return SetMark(_choice(found, value, path) if found else ALL, *mark)


def _bytes(value: object) -> bytes:
    text = value if isinstance(value, str) else ""
    if not re.fullmatch(r"([0-9a-fA-F]{2})+", text) or len(text) > 2 * CORRUPTED_MOST or not int(text, 16):
        raise ValueError(f"write 1 to {CORRUPTED_MOST} bytes in hexadecimal, in quotes, not all 0: 'ff', '80000001'")
    return bytes.fromhex(text)


def _interfaces(value: object, path: str) -> tuple[str, ...]:
    names = schema.sequence(interface_name)(value, path)
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InvalidInput(
            path, value, "write two or more interfaces, each once: those whose packets are counted as one"
        )
    return tuple(sorted(names))
