# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of filters: the order asked for, the fewest that move, and no quadratic cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.tc import filters
from plugins.module_utils.tc.kinds.htb import Htb
from plugins.module_utils.tc.kinds.u32 import U32, Key
from plugins.module_utils.tc.model import ROOT, Class, Filter, Qdisc, Raw, Tree
from plugins.module_utils.tc.plan import plan
from plugins.module_utils.tc.steps import Device

DEVICE = Device("eth0", 2)
CONTENT = st.lists(st.integers(0, 40), unique=True, max_size=12)


def entry(number: int, priority: int = filters.UNPLACED) -> Filter:
    return Filter("u32", 0x10000, priority, 3, 0x80000800 if priority else 0, U32(0x10001, (Key(number, 0xFFFF, 20),)))


def order(placed: list[Filter]) -> list[int]:
    return [one.options.keys[0].value for one in sorted(placed, key=lambda one: one.priority)]


@given(standing=CONTENT, wanted=CONTENT, spacing=st.sampled_from([1, 2, 64]))
def test_places_keep_the_order(standing: list[int], wanted: list[int], spacing: int) -> None:
    current = [entry(number, 1 + spacing * index) for index, number in enumerate(standing)]
    placed = filters.place(current, [entry(number) for number in wanted])
    priorities = [one.priority for one in placed]
    assert order(placed) == wanted
    assert len(set(priorities)) == len(wanted)
    assert all(0 < priority <= filters.LAST_PRIORITY for priority in priorities)
    taken = {one.priority: one.options for one in current}
    assert all(taken.get(one.priority, one.options) == one.options for one in placed)  # new ones stand beside old ones


@given(CONTENT)
def test_what_stands_in_order_stays(standing: list[int]) -> None:
    current = filters.place([], [entry(number) for number in standing])
    assert filters.place(current, [entry(number) for number in standing]) == current
    assert filters.plan(DEVICE, current, [entry(number) for number in standing]) == []


def test_a_filter_more_in_the_middle_is_one_step() -> None:
    current = filters.place([], [entry(number) for number in range(100)])
    wanted = [entry(number) for number in [*range(50), 200, *range(50, 100)]]
    (step,) = filters.plan(DEVICE, current, wanted)
    assert step.command.startswith("tc filter add ")


def test_a_filter_that_moves_is_added_before_it_goes() -> None:
    current = filters.place([], [entry(number) for number in range(10)])
    steps = filters.plan(DEVICE, current, [entry(number) for number in [9, *range(9)]])
    assert [step.command.split()[2] for step in steps] == ["add", "del"]


def test_no_room_between_neighbours_numbers_all_anew() -> None:
    current = [entry(number, 1 + number) for number in range(3)]
    placed = filters.place(current, [entry(number) for number in (0, 7, 1, 2)])
    assert order(placed) == [0, 7, 1, 2]
    assert not {one.priority for one in placed} & {1, 2, 3}


def lines_executed(function: Callable[[], object]) -> int:
    """How many lines of Python ran: a measure of work that does not depend on the machine."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def test_ten_times_the_classes_and_filters_are_ten_times_the_work() -> None:
    def work(count: int) -> int:
        current = filters.place([], [entry(number) for number in range(0, count, 2)])
        classes = tuple(Class("hfsc", 0x10000 + minor, 0x10000, Raw(b"")) for minor in range(1, count))
        tree = Tree((Qdisc("htb", 0x10000, ROOT, Htb()),), classes, tuple(current))
        wanted = tree._replace(filters=tuple(entry(number) for number in range(count)))
        return lines_executed(lambda: plan(DEVICE, tree, wanted))

    assert work(3000) < 12 * work(300)
