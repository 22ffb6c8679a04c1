# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is asked and what the kernel can do to one state per domain. Knows no kernel call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidInput, TestbedError
from ..tc.actions import OURS, DropEvery
from ..tc.kinds.filters import Action
from ..tc.model import Filter, Tree
from . import backends, shape
from .backends import Node, assign, by_program, only
from .classify import Rule, check, filters, rules
from .match import Match
from .model import Interface, TrafficClass
from .packets import Packets

if TYPE_CHECKING:
    from ..bpf.layout import Rule as ProgramRule
    from .lookup import Table

Placed = tuple[Interface, TrafficClass]


class Compiled(NamedTuple):
    """Wanted states, and what the user is told about them."""

    trees: dict[str, Tree]  # by the device where it stands: an interface, or the IFB of one
    actions: tuple[DropEvery, ...]
    counted: list[Interface]  # of which a class drops by iptables
    numbered: list[Interface]  # of which a class drops by nftables
    rules: tuple[tuple[int, ProgramRule], ...]  # by their keys, of all programs
    tables: dict[str, Table]  # what a program looks up, by the device where it stands
    backends: list[dict[str, str]]
    warnings: list[str]


NOTHING = Compiled({}, (), [], [], (), {}, [], [])


def compile_node(asked: Sequence[Interface], passing: Sequence[Match], node: Node) -> Compiled:
    """All interfaces of a node. `passing` goes unimpaired everywhere.

    Raises MissingCapability where the kernel cannot carry what is asked, InvalidInput where the node has no such place.
    """
    assigned = [assign(interface, node) for interface in asked]
    classes = [(interface, entry) for interface in assigned for entry in interface.classes]
    indices = _indices(classes)
    counted, numbered = (_counted(assigned, backend) for backend in ("iptables", "nft"))
    compiled = Compiled({}, _actions(classes, indices), counted, numbered, _rules(classes, indices), {}, [], [])
    for interface in assigned:
        made = _interface(interface, passing, node, indices)
        compiled.trees[interface.device] = made.tree
        if made.table:
            compiled.tables[interface.device] = made.table
        compiled.backends.extend(made.backends)
        compiled.warnings.extend(made.warnings)
    return compiled


def _dropped_by(backend: str, entry: TrafficClass) -> bool:
    return entry.impairment.drop is not None and entry.impairment.drop.backend == backend


def _actions(classes: Sequence[Placed], indices: Mapping[tuple[str, str], int]) -> tuple[DropEvery, ...]:
    found = {
        DropEvery(indices[interface.device, entry.name], entry.impairment.drop.choice.every)
        for interface, entry in classes
        if entry.impairment.drop and _dropped_by("gact", entry)
    }
    return tuple(sorted(found))


def _counted(assigned: Sequence[Interface], backend: str) -> list[Interface]:
    kept = [only(interface, backend) for interface in assigned]
    return [interface for interface in kept if any(entry.impairment.drop for entry in interface.classes)]


def _rules(classes: Sequence[Placed], indices: Mapping[tuple[str, str], int]) -> tuple[tuple[int, ProgramRule], ...]:
    """Refuses classes that share a count and suffer different faults."""
    found: dict[int, ProgramRule] = {}
    for interface, entry in classes:
        if not by_program(entry.impairment):
            continue
        from .programs import rule

        drop = entry.impairment.drop
        places = drop.across if drop and drop.across else (interface.name,)
        arrow = "<-" if interface.direction == "ingress" else "->"
        made = rule(entry.impairment, f"{arrow} {', '.join(places)}: {entry.name}")
        if found.setdefault(indices[interface.device, entry.name], made) != made:
            allowed = "classes that share a count suffer the same: write the same corrupt, duplicate and set_mark"
            raise InvalidInput(f"{entry.path}.drop.across", ", ".join(places), allowed)
    return tuple(sorted(found.items()))


def _indices(classes: Iterable[Placed]) -> dict[tuple[str, str], int]:
    """The number of each class's counter: a hash of what counts with it, or the next free one."""
    found: dict[tuple[str, str], int] = {}
    taken: dict[int, str] = {}
    for interface, entry in classes:
        drop = entry.impairment.drop
        if not drop and not by_program(entry.impairment):
            continue
        counter = f"{interface.device}\0{entry.name}"
        if drop and drop.across:
            counter = "\0".join((*drop.across, interface.direction, entry.name))
        digest = hashlib.sha256(counter.encode()).digest()
        index = OURS | int.from_bytes(digest[:2], "big")
        while taken.setdefault(index, counter) != counter:
            index = OURS | (index + 1) & 0xFFFF
        found[interface.device, entry.name] = index
    return found


class Made(NamedTuple):
    """What one interface comes to; `table`: None where it needs no program."""

    tree: Tree
    table: Table | None
    backends: list[dict[str, str]]
    warnings: list[str]


def _interface(
    interface: Interface, passing: Sequence[Match], node: Node, indices: Mapping[tuple[str, str], int]
) -> Made:
    minors = shape.minors(entry.name for entry in interface.classes)
    qdiscs, classes = [shape.root()], list(shape.frame())
    found = [one for match in passing for one in rules(match, node.other_ports, interface.name, shape.PASS)]
    counters: dict[int, int] = {}  # keys of programs' rules, by class
    told: list[dict[str, str]] = []
    rest: tuple[int, tuple[Action, ...]] = (shape.PASS, ())
    for entry in interface.classes:
        branch = shape.branch(minors[entry.name], entry, node.can("qdisc.netem"), node.can("netem.child"), node.memory)
        handle = branch.entry.handle
        classes.append(branch.entry)
        qdiscs += branch.queues
        counter = indices.get((interface.device, entry.name), 0)
        actions = (Action("gact", counter),) if _dropped_by("gact", entry) else ()
        for match in entry.matches:
            found += rules(match, node.other_ports, interface.name, handle, actions)
        if not entry.matches:
            rest = (handle, actions)
        if by_program(entry.impairment):
            counters[handle] = counter
        told += backends.told(interface, entry, branch.computed)
    found.append(Rule(Packets(), "", *rest))
    matches = [*passing, *(match for entry in interface.classes for match in entry.matches)]
    path = f"{interface.path}.classes"
    placed, why = _placed(matches, found, node, interface)
    if why:
        told.append(backends.classification(interface, why))
    table = _table(found, counters, bool(why), node, path) if counters or why else None
    warnings = [warning for entry in interface.classes for warning in _warned(entry)]
    return Made(Tree(tuple(qdiscs), tuple(classes), tuple(placed)), table, told, warnings)


def _table(found: Sequence[Rule], counters: Mapping[int, int], classifies: bool, node: Node, path: str) -> Table:
    """What the program looks up; `classifies`: it says the class too."""
    from . import lookup

    effects = {handle: lookup.Effect(counter) for handle, counter in counters.items()}
    if classifies:
        effects = {one.target: lookup.Effect(counters.get(one.target, 0), one.target) for one in found}
    return lookup.table(lookup.reaches(found, effects), effects, node.links, path)


def _placed(
    matches: Sequence[Match], found: Sequence[Rule], node: Node, interface: Interface
) -> tuple[list[Filter], str]:
    """The filters, and why they cannot tell the classes, so that a program has to; "" where they can.

    Raises where neither can.
    """
    can_hash, path = node.can("filter.flower"), f"{interface.path}.classes"
    try:
        for match in matches:
            check(match, node.capable)
        return filters(found, shape.ROOT_HANDLE, can_hash, path), ""
    except TestbedError as error:
        if node.lacks_program(interface.name) or any(one.actions for one in found):
            raise
        return filters(found[-1:], shape.ROOT_HANDLE, can_hash, path), str(error)


def _warned(entry: TrafficClass) -> list[str]:
    asked = entry.impairment
    warnings = []
    if _dropped_by("iptables", entry):
        from .statistic import COUNTS_APART

        warnings.append(f"{entry.path}.{COUNTS_APART}")
    if asked.enabled and asked.netem.jitter and asked.keep_order:
        warnings.append(
            f"{entry.path}.jitter: keeping the order shifts the delay upwards; "
            "keep_order: false gives the plain distribution, and reordering"
        )
    if asked.enabled and asked.burst and asked.rate and asked.burst < asked.rate // 1000:
        warnings.append(f"{entry.path}.burst: less than 1 ms at the rate; the rate may not be reached")
    return warnings
