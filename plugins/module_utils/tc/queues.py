# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Queues below classes and below other qdiscs: from those that stand to those that are wanted."""

from __future__ import annotations

from collections.abc import Iterator

from ..converge import Step
from .kinds.table import lookup
from .model import ROOT, Qdisc, Raw, Tree, side
from .steps import ADD, CHANGE, REPLACE, Device, codec, qdisc_step, same

QUEUE_LOST = "disruptive: packets that wait in the queue are lost"
MAJOR = 0xFFFF0000
Queues = dict[int, Qdisc]  # by parent


def places_below(qdisc: Qdisc) -> list[int]:
    """Parents of the queues that can stand right below a qdisc without classes of its own making: 1:1, 1:2, …"""
    kind = None if isinstance(qdisc.options, Raw) else lookup("qdisc", qdisc.kind)
    return [qdisc.handle | minor for minor in range(1, kind.slots(qdisc.options) + 1)] if kind else []


def plan(device: Device, current: Tree, desired: Tree) -> tuple[list[tuple[int, Step]], set[int]]:
    """(place, step) for each queue, parents first; the place is the class, or the root's, that it hangs below.

    And the handles of those that stand no longer: their filters go with them.
    """
    gone: set[int] = set()
    return list(_steps(device, current, desired, gone)), gone


def _steps(device: Device, current: Tree, desired: Tree, gone: set[int]) -> Iterator[tuple[int, Step]]:
    found, wanted = _by_parent(current), _by_parent(desired)
    old, new = _by_handle(found), _by_handle(wanted)
    below = _below(found)

    def lose(qdisc: Qdisc) -> None:
        """This queue and all that hang below it."""
        pending = [qdisc]
        while pending:
            lost = pending.pop()
            gone.add(lost.handle)
            found.pop(lost.parent, None)
            pending += below.get(lost.handle, [])

    def fewer(before: Qdisc, after: Qdisc) -> None:
        """What hangs below bands that a change takes away."""
        for place in set(places_below(before)) - set(places_below(after)):
            if place in found:
                lose(found[place])

    limited: set[int] = set()
    if current.root and desired.root:
        fewer(current.root, desired.root)
        if desired.root.kind == "tbf" and not same("qdisc", desired.root, current.root):
            limited.add(current.root.handle)
    for moved in _in_the_way(found, wanted):
        if found.get(moved.parent) == moved:
            yield _place(old, moved), qdisc_step(device, "del", moved, caution=QUEUE_LOST)
            lose(moved)
    for qdisc in _parents_first(wanted, new):
        known = found.get(qdisc.parent)
        for step in _queue(device, known, qdisc, qdisc.parent & MAJOR in limited):
            yield _place(new, qdisc), step
        if known and _replaced(known, qdisc):
            lose(known)
        elif known and qdisc.kind == "tbf" and not same("qdisc", qdisc, known):
            limited.add(known.handle)
        elif known:
            fewer(known, qdisc)
    left = [known for parent, known in found.items() if parent not in wanted]
    places = _places(found, wanted, current, desired) if left else set()
    for known in left:
        if known.parent not in places:
            continue  # it goes with what is above it
        gone.add(known.handle)
        yield _place(old, known), qdisc_step(device, "del", known, retire=True, caution=QUEUE_LOST)
        above = new.get(known.parent & MAJOR) or desired.root
        if above and above.kind == "tbf":  # without a queue it drops everything, until a change gives it one
            yield _place(old, known), qdisc_step(device, "change", above, CHANGE, retire=True)


def _queue(device: Device, known: Qdisc | None, wanted: Qdisc, limited: bool) -> Iterator[Step]:
    """`limited`: the tbf above changes, which sets the limit of a fifo as well (net/sched/sch_tbf.c, tbf_change)."""
    if known is None:
        yield qdisc_step(device, "add", wanted, ADD)
    elif _replaced(known, wanted):
        if wanted.handle not in (0, known.handle) or (not wanted.handle and wanted.kind != known.kind):
            yield qdisc_step(device, "replace", wanted, REPLACE, caution=QUEUE_LOST)
            return
        # Under a handle that stands the kernel only changes, and no kind into another.
        yield qdisc_step(device, "del", known, caution=QUEUE_LOST)
        yield qdisc_step(device, "add", wanted, ADD)
    elif not same("qdisc", wanted, known) or (limited and wanted.kind in ("pfifo", "bfifo")):
        yield qdisc_step(device, "change", wanted._replace(handle=known.handle), CHANGE, known=known)


def _replaced(known: Qdisc, wanted: Qdisc) -> bool:
    """Whether a new queue takes the place of the one that stands."""
    if known.kind != wanted.kind or wanted.handle not in (0, known.handle):
        return True
    if isinstance(wanted.options, Raw) or same("qdisc", wanted, known):
        return False
    return bool(codec("qdisc", wanted.kind).unchangeable(known.options, wanted.options))


def _places(found: Queues, wanted: Queues, current: Tree, desired: Tree) -> set[int]:
    """Parents that stay, and have a place for a queue that somebody has to take away."""
    inner = {entry.parent for entry in desired.classes}  # a class that gets children loses its leaf by itself
    places = {entry.handle for entry in desired.classes} - inner
    standing = {qdisc.handle for qdisc in found.values()}
    above = [qdisc for qdisc in wanted.values() if qdisc.handle in standing]
    if current.root and desired.root and current.root.handle == desired.root.handle:
        above.append(desired.root)
    return places.union(*(places_below(qdisc) for qdisc in above))


def _by_parent(tree: Tree) -> Queues:
    return {qdisc.parent: qdisc for qdisc in tree.qdiscs if qdisc.parent != ROOT and side(qdisc.parent) == ROOT}


def _in_the_way(found: Queues, wanted: Queues) -> list[Qdisc]:
    """Queues whose handle is wanted below another parent: naming it there would graft the old queue as it is."""
    places = {qdisc.handle: parent for parent, qdisc in wanted.items() if qdisc.handle}
    return [qdisc for parent, qdisc in found.items() if places.get(qdisc.handle, parent) != parent]


def _by_handle(queues: Queues) -> Queues:
    return {qdisc.handle: qdisc for qdisc in queues.values() if qdisc.handle}


def _below(queues: Queues) -> dict[int, list[Qdisc]]:
    """The queues right below each handle."""
    below: dict[int, list[Qdisc]] = {}
    for qdisc in queues.values():
        below.setdefault(qdisc.parent & MAJOR, []).append(qdisc)
    return below


def _place(by_handle: Queues, qdisc: Qdisc) -> int:
    """The parent of the topmost queue that this one hangs below."""
    parent = qdisc.parent
    while parent & MAJOR in by_handle:
        parent = by_handle[parent & MAJOR].parent
    return parent


def _parents_first(queues: Queues, by_handle: Queues) -> list[Qdisc]:
    below = _below(queues)
    ordered = [qdisc for qdisc in queues.values() if qdisc.parent & MAJOR not in by_handle]
    for qdisc in ordered:  # grows while it is walked
        ordered += below.get(qdisc.handle, []) if qdisc.handle else []
    return ordered
