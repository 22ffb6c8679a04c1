# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain rules: what BPF programs of ours do to packets, in three maps that all of this node's programs share.

`rules` says what is asked, a rule a map update; `drops` says it again where that is short; `states` counts beside it,
and a changed rule keeps its count. The maps are pinned in the BPF file system, for people (`bpftool map dump
pinned …`) and for the next run. Where the pins are gone, a program that stands still has its maps, and they are pinned
again with the next change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import units
from ..converge import Step
from ..errors import TestbedError
from ..namespace import number
from . import files, syscall
from .layout import (
    ALL,
    DROP_SIZE,
    EVERY,
    FOUR_STATE,
    GILBERT_ELLIOTT,
    INDEX,
    MOST_RULES,
    MOST_STATES,
    NETWORK,
    PATTERN,
    RANDOM,
    RULE_SIZE,
    STATE_SIZE,
    TRANSPORT,
    Chooser,
    Rule,
    State,
    place_of,
    unpack_rule,
    unpack_state,
)

RULES, DROPS, STATES = "rules", "drops", "states"
SIZES = {RULES: RULE_SIZE, DROPS: DROP_SIZE, STATES: STATE_SIZE}

HALF_WRITTEN = Rule()  # what nobody asks, in place of a rule of which a run that broke off wrote one map alone

Rules = tuple[tuple[int, Rule], ...]


class Maps(NamedTuple):
    """File descriptors of the maps."""

    rules: int
    drops: int
    states: int


class RulesDomain:
    """Observe, plan and apply the rules of this network namespace."""

    name = "rules"

    def __init__(self, programs: Sequence[int] = ()) -> None:
        """`programs`: ids of the programs of ours that stand in this namespace."""
        self._folder = files.folder(number())
        self._programs = programs
        self._maps: Maps | None = None
        self._pinned = False

    def observe(self) -> Rules:
        maps = self._find()
        if maps is None:
            return ()
        found = []
        for packed, value in syscall.items(maps.rules, INDEX.size, RULE_SIZE).items():
            (key,), rule = INDEX.unpack(packed), unpack_rule(value)
            whole = syscall.lookup(maps.drops, place_of(key), DROP_SIZE) == rule.pack_drop()
            found.append((key, rule if whole else HALF_WRITTEN))
        return tuple(sorted(found))

    def states(self) -> dict[int, State]:
        """What each rule has counted."""
        maps = self._find()
        if maps is None:
            return {}
        keys = [INDEX.unpack(key)[0] for key in syscall.keys(maps.rules, INDEX.size)]
        found = {key: syscall.lookup(maps.states, place_of(key), STATE_SIZE) for key in keys}
        return {key: unpack_state(value) for key, value in found.items() if value is not None}

    def plan(self, current: Rules, desired: Rules) -> list[Step]:
        if len(desired) > MOST_RULES:
            raise TestbedError(f"{len(desired)} classes of this node need a BPF program; it has room for {MOST_RULES}")
        known, wanted = dict(current), dict(desired)
        steps = []
        for key, rule in desired:
            if rule != known.get(key):
                words = f"bpftool map update pinned {self._folder}/{RULES} key {key:#x} value # {rule_text(rule)}"
                steps.append(Step(words, (key, rule)))
        for key, rule in current:
            if key not in wanted:
                words = f"bpftool map delete pinned {self._folder}/{RULES} key {key:#x} # {rule_text(rule)}"
                steps.append(Step(words, (key, None), retire=True))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            key, rule = step.payload
            self._write(self.maps(), key, rule)

    def _write(self, maps: Maps, key: int, rule: Rule | None) -> None:
        packed = INDEX.pack(key)
        if rule is None:
            syscall.update(maps.drops, place_of(key), bytes(DROP_SIZE))
            syscall.delete(maps.rules, packed)
            return
        if syscall.lookup(maps.rules, packed, RULE_SIZE) is None:  # there may be counts of one that is gone
            syscall.update(maps.states, place_of(key), bytes(STATE_SIZE))
        syscall.update(maps.rules, packed, rule.pack())
        syscall.update(maps.drops, place_of(key), rule.pack_drop())

    def maps(self) -> Maps:
        """The maps that stand, else new ones, pinned. Raises StepFailed where they cannot be made or pinned."""
        found = self._find()
        if found is None:
            files.sweep(tuple(SIZES))
            rules = syscall.create_map(syscall.HASH, INDEX.size, RULE_SIZE, MOST_RULES, name=RULES)
            arrays = [
                syscall.create_map(syscall.ARRAY, INDEX.size, SIZES[name], MOST_STATES, name=name)
                for name in (DROPS, STATES)
            ]
            found = Maps(rules, *arrays)
        if not self._pinned:
            files.pin(self._folder, dict(zip(SIZES, found)))
            self._maps, self._pinned = found, True
        return found

    def describe(self, state: Rules) -> list[str]:
        return [f"rule {key:#x} {rule.label!r} {rule_text(rule)}" for key, rule in state]

    def _find(self) -> Maps | None:
        if self._maps is None:
            pinned = {name: syscall.pinned(f"{self._folder}/{name}") for name in SIZES}
            self._maps = _ours(pinned)
            self._pinned = self._maps is not None
            for program in () if self._maps else self._programs:
                self._maps = self._maps or _ours(files.maps_of(program))
        return self._maps


def _ours(found: Mapping[str, int | None]) -> Maps | None:
    """The maps, where both are there and as this version has them; else a new program gets new ones."""
    named = [found.get(name) for name in SIZES]
    maps = [one for one in named if one is not None]
    fits = [syscall.map_info(one).value_size for one in maps] == list(SIZES.values())
    return Maps(*maps) if fits else None


def unpin() -> None:
    """Forget the maps of this network namespace; they go with the last program that has them."""
    files.unpin(files.folder(number()), SIZES)


def rule_text(rule: Rule) -> str:
    """The rule in words."""
    base = {TRANSPORT: "transport", NETWORK: "network"}.get(rule.corruption.base, "payload")
    checksum = "checksum fixed" if rule.corruption.fix_checksums else "checksum kept"
    how = {
        "drop": (rule.drop, ""),
        "corrupt": (rule.corrupt, f" {base}+{rule.corruption.offset} xor {rule.corruption.xor.hex()} {checksum}"),
        "duplicate": (rule.duplicate, ""),
        "mark": (rule.mark, " {:#x}/{:#x}".format(*rule.set_mark)),
    }
    parts = [f"{word} {_chooser_text(chooser)}{rest}" for word, (chooser, rest) in how.items() if chooser.kind]
    return "; ".join(parts) or "counted only"


def _chooser_text(chooser: Chooser) -> str:
    percents = [units.percent_text(chance) for chance in (*chooser.chances, 0, 0, 0, 0, 0)[:5]]
    seed = "" if chooser.seed is None else f" seed {chooser.seed}"
    if chooser.kind == EVERY:
        return f"every {chooser.every} packet {chooser.place}"
    if chooser.kind == PATTERN:
        return f"pattern {''.join(str(chooser.pattern >> place & 1) for place in range(chooser.every))}"
    models: Mapping[int, str] = {
        ALL: "all",
        RANDOM: f"random {percents[0]}",
        GILBERT_ELLIOTT: "gemodel " + " ".join(percents[:4]),
        FOUR_STATE: "state " + " ".join(percents),
    }
    return models[chooser.kind] + seed
