# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifiers from those that stand to those that are wanted: the new one before the old one goes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from ..converge import Step
from .kinds.table import lookup
from .model import Filter, Raw
from .steps import ADD, REPLACE, Device, filter_step, same

UNPLACED = 0  # the priority of a filter whose place in the order counts, not its number
LAST_PRIORITY = 0xFFFF
SPACING = 64  # between priorities on an empty qdisc, so that later filters find room
MOST_TABLES = 2046  # u32 priorities of a qdisc: each has a hash table's number (net/sched/cls_u32.c, gen_new_htid)
GAP = "disruptive: packets pass unclassified until the new filter stands"

NUMBERED = ("u32", "flower")  # kinds whose handles the kernel chooses
LAST_NODE = 0xFFF  # of the u32 filters in one hash table (TC_U32_NODE)

Group = tuple[int, int]  # parent and priority: what the kernel orders, and keeps to one kind and one protocol


def plan(device: Device, current: Sequence[Filter], desired: Sequence[Filter]) -> list[Step]:
    """Steps for all filters of an interface. Filters that have to go are taken away after every addition.

    Where the kernel has no number left for a new u32 priority, one that has to go makes room before.
    """
    found, wanted = _groups(current), _groups(place(current, desired))
    steps: list[Step] = []
    going = {group: filters for group, filters in found.items() if group not in wanted}
    free = {qdisc: MOST_TABLES - len(tables) for qdisc, tables in _tables(found).items()}
    leaving = {qdisc: iter(tables) for qdisc, tables in _tables(going).items()}
    for group, filters in wanted.items():
        qdisc = group[0] >> 16
        if group not in found and filters[0].kind == "u32":
            free[qdisc] = free.get(qdisc, MOST_TABLES) - 1
            first = next(leaving.get(qdisc, iter(())), None) if free[qdisc] < 0 else None
            if first:
                steps.append(filter_step(device, "del", going.pop(first)[0]._replace(handle=0), caution=GAP))
        steps += _group(device, found.get(group, []), filters)
    for filters in going.values():
        steps.append(filter_step(device, "del", filters[0]._replace(handle=0), retire=True))
    return steps


def _tables(groups: dict[Group, list[Filter]]) -> dict[int, list[Group]]:
    """The groups of u32 filters, by the major number of their qdisc."""
    found: dict[int, list[Group]] = {}
    for group, filters in groups.items():
        if filters[0].kind == "u32":
            found.setdefault(group[0] >> 16, []).append(group)
    return found


def place(current: Sequence[Filter], desired: Sequence[Filter]) -> list[Filter]:
    """Give every unplaced filter a priority that keeps the wanted order.

    Filters that stand already keep theirs as far as the order allows (a longest increasing run), so that
    a filter added, taken away or moved is one filter's change.
    """
    placed: list[Filter] = [entry for entry in desired if entry.priority != UNPLACED]
    by_parent: dict[int, list[Filter]] = {}
    for entry in desired:
        if entry.priority == UNPLACED:
            by_parent.setdefault(entry.parent, []).append(entry)
    for parent, entries in by_parent.items():
        units = _units(entries)
        here = [entry for entry in current if entry.parent == parent]
        numbers = _numbers(_kept(here, units), [entry.priority for entry in here])
        placed += [entry._replace(priority=number) for unit, number in zip(units, numbers) for entry in unit]
    return placed


def _units(entries: Sequence[Filter]) -> list[list[Filter]]:
    """What gets a priority of its own: each filter, but flower filters of one shape in a row share a hash table."""
    units: list[list[Filter]] = []
    for entry in entries:
        if entry.kind == "flower" and units and _table(units[-1][0]) == _table(entry):
            units[-1].append(entry)
        else:
            units.append([entry])
    return units


def _table(entry: Filter) -> object:
    """What flower filters of one hash table have in common."""
    return getattr(entry.options, "shape", None)


def _kept(current: Iterable[Filter], units: Sequence[list[Filter]]) -> list[int]:
    """Priority that each unit keeps, 0 where it needs a new one."""
    standing: dict[Filter, list[int]] = {}
    tables: dict[object, dict[int, set[Filter]]] = {}
    for entry in sorted(current, key=lambda entry: entry.priority, reverse=True):
        if entry.kind == "flower":
            tables.setdefault(_table(entry), {}).setdefault(entry.priority, set()).add(_content(entry))
        else:
            standing.setdefault(_content(entry), []).append(entry.priority)
    candidates = []
    for unit in units:
        if unit[0].kind == "flower":
            candidates.append(_fullest(tables.get(_table(unit[0]), {}), unit))
        else:
            priorities = standing.get(_content(unit[0]))
            candidates.append(priorities.pop() if priorities else UNPLACED)
    keep = _increasing_run([(number, index) for index, number in enumerate(candidates) if number])
    return [number if index in keep else UNPLACED for index, number in enumerate(candidates)]


def _fullest(tables: dict[int, set[Filter]], unit: Sequence[Filter]) -> int:
    """The priority whose table holds most of the unit's filters, taken out of `tables`; UNPLACED where none does."""
    wanted = set(map(_content, unit))
    priority = max(tables, key=lambda number: len(tables[number] & wanted), default=UNPLACED)
    if priority == UNPLACED or not tables[priority] & wanted:
        return UNPLACED
    del tables[priority]
    return priority


def _content(entry: Filter) -> Filter:
    """What makes two filters the same: all but the priority, and a handle that the kernel chose."""
    return entry._replace(priority=UNPLACED, handle=0 if entry.kind in NUMBERED else entry.handle)


def _increasing_run(numbered: Sequence[tuple[int, int]]) -> set[int]:
    """Indices of a longest increasing run of priorities (patience sorting)."""
    tops: list[int] = []
    piles: list[int] = []
    before: dict[int, int | None] = {}
    for number, index in numbered:
        place_ = bisect_left(tops, number)
        before[index] = piles[place_ - 1] if place_ else None
        tops[place_ : place_ + 1] = [number]
        piles[place_ : place_ + 1] = [index]
    run: set[int] = set()
    at: int | None = piles[-1] if piles else None
    while at is not None:
        run.add(at)
        at = before[at]
    return run


def _numbers(kept: Sequence[int], taken: Sequence[int]) -> list[int]:
    """A priority for each place: those kept stay, the others are spread over free numbers between their neighbours."""
    occupied = set(taken)
    numbers = list(kept)
    index = 0
    while index < len(numbers):
        if numbers[index]:
            index += 1
            continue
        end = next((at for at in range(index, len(numbers)) if numbers[at]), len(numbers))
        low = numbers[index - 1] if index else 0
        count = end - index
        high = numbers[end] if end < len(numbers) else min(LAST_PRIORITY, low + SPACING * (count + 1))
        free = [number for number in range(low + 1, high) if number not in occupied]
        if len(free) < count:
            return _renumbered(len(numbers), occupied)
        for offset in range(count):
            numbers[index + offset] = free[(2 * offset + 1) * len(free) // (2 * count)]
        index = end
    return numbers


def _renumbered(count: int, occupied: set[int]) -> list[int]:
    """All priorities anew, beside those that stand: there is no room between neighbours."""
    free = [number for number in range(1, LAST_PRIORITY) if number not in occupied]
    return [free[(2 * index + 1) * len(free) // (2 * count)] for index in range(count)]


def _groups(filters: Iterable[Filter]) -> dict[Group, list[Filter]]:
    groups: dict[Group, list[Filter]] = {}
    for entry in filters:
        groups.setdefault((entry.parent, entry.priority), []).append(entry)
    return groups


def _group(device: Device, found: list[Filter], wanted: list[Filter]) -> list[Step]:
    """Steps within one priority."""
    if found and (
        (found[0].kind, found[0].protocol) != (wanted[0].kind, wanted[0].protocol) or _masks(found) != _masks(wanted)
    ):
        return _anew(device, found, wanted)
    if wanted[0].kind == "u32":
        return _in_order(device, found, wanted)
    if wanted[0].kind == "flower":
        return _by_keys(device, found, wanted)
    return _by_handle(device, found, wanted)


def _anew(device: Device, found: list[Filter], wanted: list[Filter]) -> list[Step]:
    gone = filter_step(device, "del", found[0]._replace(handle=0), caution=GAP)
    unnumbered = (entry._replace(handle=0) if entry.kind in NUMBERED else entry for entry in wanted)
    return [gone, *(filter_step(device, "add", entry, ADD) for entry in unnumbered)]


def _masks(filters: list[Filter]) -> set[int]:
    """cls_fw holds one mask for all filters of a priority, set by the first."""
    return {getattr(entry.options, "mask", 0) for entry in filters if entry.kind == "fw"}


def _by_handle(device: Device, found: list[Filter], wanted: list[Filter]) -> list[Step]:
    """Filters whose handle is their key."""
    known = {entry.handle: entry for entry in found}
    steps = []
    for entry in wanted:
        if entry.handle not in known:
            steps.append(filter_step(device, "add", entry, ADD))
        elif not same("filter", entry, known[entry.handle]):
            steps += _replaced(device, known[entry.handle], entry)
    staying = {entry.handle for entry in wanted}
    steps += [filter_step(device, "del", entry, retire=True) for entry in found if entry.handle not in staying]
    return steps


def _by_keys(device: Device, found: list[Filter], wanted: list[Filter]) -> list[Step]:
    """flower filters: their keys tell them apart, and their order means nothing."""
    known = {_keys(entry): entry for entry in found}
    steps = []
    for entry in wanted:
        stands = known.pop(_keys(entry), None)
        if stands is None:
            steps.append(filter_step(device, "add", entry._replace(handle=0), ADD))
        elif not same("filter", entry, stands):
            steps.append(filter_step(device, "replace", entry._replace(handle=stands.handle), REPLACE))
    return steps + [filter_step(device, "del", entry, retire=True) for entry in known.values()]


def _keys(entry: Filter) -> object:
    if isinstance(entry.options, Raw):
        return entry.options
    return entry.options._replace(target=0, actions=())


def _replaced(device: Device, known: Filter, entry: Filter) -> list[Step]:
    kind = lookup("filter", entry.kind)
    if kind and kind.unchangeable(known.options, entry.options):
        return [filter_step(device, "del", known, caution=GAP), filter_step(device, "add", entry, ADD)]
    return [filter_step(device, "replace", entry, REPLACE)]


def _in_order(device: Device, found: list[Filter], wanted: list[Filter]) -> list[Step]:
    """u32 filters of one priority match in the order of their nodes, and their keys cannot be changed.

    Walk both lists: equal stays; same keys take a new target in place; from the first filter that
    does not stand yet, all are added at the end, and what was passed over goes. The place at the end is named:
    left to itself the kernel fills the first gap that a deletion left.
    """
    rest = iter(found)
    passed: list[Filter] = []
    steps: list[Step] = []
    stands = 0  # of those wanted, in their order
    while stands < len(wanted):
        known = next(rest, None)
        if known is None:
            break
        entry = wanted[stands]
        if known.options != entry.options and _keys(known) != _keys(entry):
            passed.append(known)
            continue
        if not same("filter", entry, known):
            steps.append(filter_step(device, "replace", entry._replace(handle=known.handle), REPLACE))
        stands += 1
    pending = wanted[stands:]
    last = max((entry.handle & LAST_NODE for entry in found), default=0)
    if last + len(pending) > LAST_NODE:
        return _anew(device, found, wanted)
    places = range(last + 1, last + 1 + len(pending)) if found else [0] * len(pending)
    steps += [filter_step(device, "add", entry._replace(handle=node), ADD) for entry, node in zip(pending, places)]
    steps += [filter_step(device, "del", entry, retire=True) for entry in [*passed, *rest]]
    return steps


def shared_tables(filters: Sequence[Filter]) -> list[str]:
    """Priorities that u32 filters share across parents of one qdisc: the kernel lists these below each parent."""
    parents: dict[tuple[int, int], set[int]] = {}
    for entry in filters:
        if entry.kind == "u32":
            parents.setdefault((entry.parent >> 16, entry.priority), set()).add(entry.parent)
    return [f"prio {priority}" for (_major, priority), places in parents.items() if len(places) > 1]
