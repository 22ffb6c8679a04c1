# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the tree that stands to the tree that is wanted, by change messages wherever the kernel has them.

Order: roots, classes (parents first), leaves, filters (new before old); then what goes: filters, drained classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..converge import Step
from . import filters
from .apply import Drain
from .model import INGRESS, ROOT, Class, Tree, handle_text
from .steps import ADD, CHANGE, REPLACE, Device, class_step, codec, qdisc_step, same

QUEUE_LOST = "disruptive: packets that wait in the queue are lost"
TREE_LOST = "disruptive: packets that wait in the tree are lost, and some pass unimpaired until the new one stands"


def plan(device: Device, current: Tree, desired: Tree, drain_within: float = 5.0) -> list[Step]:
    """Steps from `current` to `desired`; `drain_within` bounds, in seconds, the wait for each class that goes."""
    steps = list(_roots(device, current, desired))
    if not desired.root or _rebuilds(current, desired):
        current = _beside_root(current)
    steps += _classes(device, current, desired)
    steps += _leaves(device, current, desired)
    steps += filters.plan(device, current.filters, desired.filters)
    steps += _retired_classes(device, current, desired, drain_within)
    return steps


def _beside_root(tree: Tree) -> Tree:
    """What outlives the egress root: ingress and clsact."""
    qdiscs = tuple(qdisc for qdisc in tree.qdiscs if qdisc.parent == INGRESS)
    majors = {qdisc.handle >> 16 for qdisc in qdiscs}
    return Tree(qdiscs, (), tuple(entry for entry in tree.filters if entry.parent >> 16 in majors))


def _roots(device: Device, current: Tree, desired: Tree) -> Iterator[Step]:
    wanted, found = desired.root, current.root
    if found and not wanted:
        yield qdisc_step(device, "del", found, retire=True, caution=QUEUE_LOST)
    elif wanted and not found:
        yield qdisc_step(device, "add", wanted, ADD)
    elif wanted and found and _rebuilds(current, desired):
        yield qdisc_step(device, "del", found, caution=TREE_LOST)
        yield qdisc_step(device, "add", wanted, ADD)
    elif wanted and found and not same("qdisc", wanted, found):
        yield qdisc_step(device, "change", wanted._replace(handle=found.handle), CHANGE)


def _rebuilds(current: Tree, desired: Tree) -> bool:
    """Whether the root has to be made anew: nothing in the kernel turns the one into the other."""
    wanted, found = desired.root, current.root
    if not wanted or not found:
        return False
    if wanted.kind != found.kind or wanted.handle not in (0, found.handle):
        return True
    if not same("qdisc", wanted, found) and codec("qdisc", wanted.kind).unchangeable(found.options, wanted.options):
        return True
    parents = {entry.handle: entry.parent for entry in current.classes}
    return any(parents.get(entry.handle, entry.parent) != entry.parent for entry in desired.classes)


def _classes(device: Device, current: Tree, desired: Tree) -> Iterator[Step]:
    found = {entry.handle: entry for entry in current.classes}
    settle = _Settled(desired)
    for entry in _parents_first(desired.classes):
        known = found.get(entry.handle)
        if known is None:
            yield class_step(device, "add", entry, ADD)
        elif settle.options(entry) != settle.options(known):
            yield class_step(device, "change", entry, CHANGE)


def _retired_classes(device: Device, current: Tree, desired: Tree, within: float) -> Iterator[Step]:
    """Children first; a leaf is drained before it goes."""
    wanted = {entry.handle for entry in desired.classes}
    parents = {entry.parent for entry in current.classes}
    for entry in reversed(list(_parents_first(current.classes))):
        if entry.handle in wanted:
            continue
        name = handle_text(entry.handle)
        if entry.handle not in parents:
            waiting = Drain(device.index, entry.handle, within)
            yield Step(
                f"# wait until class {name} of {device.name} is empty, {within:g} s at most", waiting, retire=True
            )
        yield class_step(device, "del", entry, retire=True)


class _Settled:
    """Options as the kernel will show them in this tree: HTB ignores quantum and prio on classes with children."""

    def __init__(self, tree: Tree) -> None:
        self._inner = {entry.parent for entry in tree.classes}
        self._quantum = {qdisc.handle: getattr(qdisc.options, "rate2quantum", 0) for qdisc in tree.qdiscs}

    def options(self, entry: Class) -> Any:
        if entry.kind != "htb":
            return entry.options
        from .kinds import htb

        if entry.handle in self._inner:
            return htb.inner_matters(entry.options)
        return htb.leaf_matters(entry.options, self._quantum[entry.handle & 0xFFFF0000])


def _leaves(device: Device, current: Tree, desired: Tree) -> Iterator[Step]:
    found = {qdisc.parent: qdisc for qdisc in current.qdiscs if qdisc.parent != ROOT}
    wanted = {qdisc.parent: qdisc for qdisc in desired.qdiscs if qdisc.parent != ROOT}
    for parent, qdisc in wanted.items():
        known = found.get(parent)
        if known is None:
            yield qdisc_step(device, "add", qdisc, ADD)
        elif known.kind != qdisc.kind or qdisc.handle not in (0, known.handle):
            yield qdisc_step(device, "replace", qdisc, REPLACE, caution=QUEUE_LOST)
        elif not same("qdisc", qdisc, known):
            yield qdisc_step(device, "change", qdisc._replace(handle=known.handle), CHANGE)
    inner = {entry.parent for entry in desired.classes}  # a class that gets children loses its leaf by itself
    staying = {entry.handle for entry in desired.classes} - inner
    for parent, known in found.items():
        if parent not in wanted and (parent in staying or parent == INGRESS):
            yield qdisc_step(device, "del", known, retire=True, caution=QUEUE_LOST)


def _parents_first(classes: tuple[Class, ...]) -> Iterator[Class]:
    """Each class after its parent, otherwise in the given order."""
    children: dict[int, list[Class]] = {}
    handles = {entry.handle for entry in classes}
    for entry in classes:
        children.setdefault(entry.parent if entry.parent in handles else 0, []).append(entry)
    pending = children.pop(0, [])[::-1]
    while pending:
        entry = pending.pop()
        yield entry
        pending += children.pop(entry.handle, [])[::-1]
