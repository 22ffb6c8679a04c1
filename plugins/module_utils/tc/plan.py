# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the tree that stands to the tree that is wanted, by change messages wherever the kernel has them.

Order: roots, classes (parents first), leaves, filters (new before old); then what goes: filters, drained classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..converge import Step
from . import filters, queues
from .apply import Drain
from .model import INGRESS, ROOT, Class, Tree, handle_text
from .queues import QUEUE_LOST
from .steps import ADD, CHANGE, Device, class_step, codec, qdisc_step, same

INGRESS_LOST = "disruptive: arriving packets pass its filters by until the new ones stand"
TREE_LOST = "disruptive: packets that wait in the tree are lost, and some pass unimpaired until the new one stands"


def plan(device: Device, current: Tree, desired: Tree, drain_within: float = 5.0) -> list[Step]:
    """Steps from `current` to `desired`; `drain_within` bounds, in seconds, the wait for each class that goes."""
    steps = list(_roots(device, current, desired))
    if not desired.root or _rebuilds(current, desired):
        current = current.only(frozenset({INGRESS}))  # all goes with the root
    steps += _ingress(device, current, desired)
    if not desired.ingress or _other_ingress(current, desired):
        current = current.only(frozenset({ROOT}))
    steps += _classes(device, current, desired)
    leaves, gone = queues.plan(device, current, desired)
    later = _childless(current, desired)
    steps += (step for parent, step in leaves if parent not in later)
    standing = [entry for entry in current.filters if entry.parent not in gone]
    steps += filters.plan(device, standing, desired.filters)
    steps += _retired_classes(device, current, desired, drain_within)
    steps += _become_leaves(device, current, desired, later)
    steps += (step._replace(retire=True) for parent, step in leaves if parent in later)
    return steps


def _childless(current: Tree, desired: Tree) -> set[int]:
    """Classes that stay and lose all children: until these are gone, the kernel takes neither leaf nor quantum."""
    before, after = ({entry.parent for entry in tree.classes} for tree in (current, desired))
    lost = before - after
    return {entry.handle for entry in desired.classes if entry.handle in lost} if lost else set()


def _become_leaves(device: Device, current: Tree, desired: Tree, later: set[int]) -> Iterator[Step]:
    """Say again what a class with children ignored (net/sched/sch_htb.c: quantum and prio count on leaves only)."""
    found = {entry.handle: entry for entry in current.classes}
    settle = _Settled(desired)
    for entry in desired.classes:
        if entry.handle in later and settle.differ(entry, found[entry.handle]):
            yield class_step(device, "change", entry, CHANGE, retire=True)


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
        yield qdisc_step(device, "change", wanted._replace(handle=found.handle), CHANGE, known=found)


def _ingress(device: Device, current: Tree, desired: Tree) -> Iterator[Step]:
    """ingress and clsact have no options: one stands, or not, or the other."""
    wanted, found = desired.ingress, current.ingress
    if found and not wanted:
        yield qdisc_step(device, "del", found, retire=True)
    elif wanted and not found:
        yield qdisc_step(device, "add", wanted, ADD)
    elif wanted and found and _other_ingress(current, desired):
        yield qdisc_step(device, "del", found, caution=INGRESS_LOST)
        yield qdisc_step(device, "add", wanted, ADD)


def _other_ingress(current: Tree, desired: Tree) -> bool:
    wanted, found = desired.ingress, current.ingress
    return bool(wanted and found and wanted.kind != found.kind)


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
    differing = [entry for entry in desired.classes if found.get(entry.handle) != entry]
    for entry in _parents_first(differing):
        known = found.get(entry.handle)
        if known is None:
            yield class_step(device, "add", entry, ADD)
        elif settle.differ(entry, known):
            yield class_step(device, "change", entry, CHANGE)


def _retired_classes(device: Device, current: Tree, desired: Tree, within: float) -> Iterator[Step]:
    """Children first; a leaf is drained before it goes."""
    wanted = {entry.handle for entry in desired.classes}
    parents = {entry.parent for entry in current.classes}
    going = [entry for entry in current.classes if entry.handle not in wanted]
    for entry in reversed(list(_parents_first(going))):
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

    def differ(self, wanted: Class, found: Class) -> bool:
        if wanted.kind != "htb":
            return wanted.kind != found.kind  # options are carried, see steps.same
        if wanted.options == found.options:
            return False
        from .kinds import htb

        if wanted.handle in self._inner:
            return htb.inner_matters(wanted.options) != htb.inner_matters(found.options)
        quantum = self._quantum[wanted.handle & 0xFFFF0000]
        return htb.leaf_matters(wanted.options, quantum) != htb.leaf_matters(found.options, quantum)


def _parents_first(classes: Sequence[Class]) -> Iterator[Class]:
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
