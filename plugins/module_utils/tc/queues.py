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
    standing, wanted = _Standing(current), _by_parent(desired)
    if current.root and desired.root:
        standing.stays(current.root, desired.root, same("qdisc", desired.root, current.root))
    steps = list(_in_the_way(device, standing, wanted))
    steps += _towards(device, standing, wanted)
    steps += _away(device, standing, wanted, desired)
    return steps, standing.gone


class _Standing:
    """What stands while the steps are taken, one after the other."""

    def __init__(self, current: Tree) -> None:
        self.by_parent = _by_parent(current)
        self.gone: set[int] = set()
        self.above: Queues = {}  # the qdiscs that stay, by their handles, with the options that are wanted
        self.limited: set[int] = set()  # handles of tbf that change, and so set the limit of a fifo below them
        self._by_handle = _by_handle(self.by_parent)
        self._below = _below(self.by_parent)

    def lose(self, qdisc: Qdisc) -> None:
        """This queue and all that hang below it."""
        pending = [qdisc]
        while pending:
            lost = pending.pop()
            self.gone.add(lost.handle)
            self.by_parent.pop(lost.parent, None)
            pending += self._below.get(lost.handle, [])

    def stays(self, known: Qdisc, wanted: Qdisc, as_it_is: bool) -> None:
        """The qdisc stays, or changes, and loses what hangs below bands that go (net/sched/sch_prio.c, prio_tune)."""
        self.above[known.handle] = wanted._replace(handle=known.handle)
        if as_it_is:
            return
        for place in set(places_below(known)) - set(places_below(self.above[known.handle])):
            if place in self.by_parent:
                self.lose(self.by_parent[place])
        if wanted.kind == "tbf":  # net/sched/sch_tbf.c, tbf_change
            self.limited.add(known.handle)

    def place(self, qdisc: Qdisc) -> int:
        return _place(self._by_handle, qdisc)


def _in_the_way(device: Device, standing: _Standing, wanted: Queues) -> Iterator[tuple[int, Step]]:
    """Queues whose handle is wanted below another parent: naming it there would graft the old queue as it is."""
    places = {qdisc.handle: parent for parent, qdisc in wanted.items() if qdisc.handle}
    for parent, known in list(standing.by_parent.items()):
        if parent in standing.by_parent and places.get(known.handle, parent) != parent:
            yield standing.place(known), qdisc_step(device, "del", known, caution=QUEUE_LOST)
            standing.lose(known)


def _towards(device: Device, standing: _Standing, wanted: Queues) -> Iterator[tuple[int, Step]]:
    by_handle = _by_handle(wanted)
    for qdisc in _parents_first(wanted, by_handle):
        known = standing.by_parent.get(qdisc.parent)
        if known is None:
            yield _place(by_handle, qdisc), qdisc_step(device, "add", qdisc, ADD)
            continue
        fits = _fits(known, qdisc)
        if fits == ANOTHER:
            yield from ((_place(by_handle, qdisc), step) for step in _another(device, known, qdisc))
            standing.lose(known)
            continue
        if fits == CHANGED or (qdisc.kind in ("pfifo", "bfifo") and qdisc.parent & MAJOR in standing.limited):
            changed = qdisc._replace(handle=known.handle)
            yield _place(by_handle, qdisc), qdisc_step(device, "change", changed, CHANGE, known=known)
        standing.stays(known, qdisc, fits == SAME)


def _away(device: Device, standing: _Standing, wanted: Queues, desired: Tree) -> Iterator[tuple[int, Step]]:
    """Queues that nobody wants; those whose class or qdisc goes, go with it."""
    left = [known for parent, known in standing.by_parent.items() if parent not in wanted]
    if not left:
        return
    inner = {entry.parent for entry in desired.classes}  # a class that gets children loses its leaf by itself
    places = {entry.handle for entry in desired.classes} - inner
    places.update(*(places_below(qdisc) for qdisc in standing.above.values()))
    for known in left:
        if known.parent not in places:
            continue
        standing.lose(known)
        yield standing.place(known), qdisc_step(device, "del", known, retire=True, caution=QUEUE_LOST)
        above = standing.above.get(known.parent & MAJOR)
        if above and above.kind == "tbf":  # without a queue it drops everything, until a change gives it one
            yield standing.place(known), qdisc_step(device, "change", above, CHANGE, retire=True)


SAME, CHANGED, ANOTHER = range(3)


def _fits(known: Qdisc, wanted: Qdisc) -> int:
    """Whether the queue that stands is as wanted, can be changed to it, or has to make way for another."""
    if known.kind != wanted.kind or wanted.handle not in (0, known.handle):
        return ANOTHER
    if same("qdisc", wanted, known):
        return SAME
    return ANOTHER if codec("qdisc", wanted.kind).unchangeable(known.options, wanted.options) else CHANGED


def _another(device: Device, known: Qdisc, wanted: Qdisc) -> Iterator[Step]:
    if wanted.handle not in (0, known.handle) or (not wanted.handle and wanted.kind != known.kind):
        yield qdisc_step(device, "replace", wanted, REPLACE, caution=QUEUE_LOST)
        return
    # Under a handle that stands the kernel only changes, and no kind into another.
    yield qdisc_step(device, "del", known, caution=QUEUE_LOST)
    yield qdisc_step(device, "add", wanted, ADD)


def _by_parent(tree: Tree) -> Queues:
    return {qdisc.parent: qdisc for qdisc in tree.qdiscs if qdisc.parent != ROOT and side(qdisc.parent) == ROOT}


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
