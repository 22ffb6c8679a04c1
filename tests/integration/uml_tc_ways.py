# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any tree of queues to any other, below classes, bands and other queues, with filters; run by test_tc_uml.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.engine import Bench
from tests.oracle import tc as oracle

KINDS: list[dict[str, Any]] = [
    {"kind": "prio", "bands": 2, "priomap": [0, 1] * 8},
    {"kind": "prio"},
    {"kind": "prio", "bands": 4, "priomap": [3, 2] * 8},
    {"kind": "netem"},
    {"kind": "netem", "delay": "5ms", "jitter": "1ms"},
    {"kind": "netem", "delay": "5ms", "jitter": "1ms", "distribution": "normal"},
    {"kind": "netem", "slot": {"min": "1ms"}},
    {"kind": "netem", "slot": {"distribution": "pareto", "delay": "2ms", "jitter": "1ms"}},
    {"kind": "tbf", "rate": "1mbit", "burst": "5kB", "limit": "30kB"},
    {"kind": "tbf", "rate": "2mbit", "burst": "5kB", "limit": "20kB"},
    {"kind": "pfifo", "limit": 5},
    {"kind": "pfifo"},
    {"kind": "bfifo", "limit": "9kB"},
    {"kind": "fq", "limit": 50},
    {"kind": "fq", "flow_limit": 5},
    {"kind": "fq_codel", "target": "7ms"},
    {"kind": "fq_codel", "flows": 7},
    {"kind": "cake", "bandwidth": "1mbit"},
    {"kind": "cake", "rtt": "20ms", "overhead": 4},
]
DEEPEST = 3


def places(entry: dict[str, Any]) -> list[str]:
    """Where queues can stand below this one."""
    count = {"prio": entry.get("bands", 3), "netem": 1, "tbf": 1}.get(entry["kind"], 0)
    return [f"{entry['handle']}{minor}" for minor in range(1, count + 1)]


@st.composite
def trees(draw: st.DrawFn) -> oracle.Tree:
    """An HTB with classes, or any other root, and queues down to DEEPEST levels; filters to classes and bands."""
    handles: list[str] = draw(st.permutations([f"{number:x}:" for number in range(2, 11)]))
    classes: list[dict[str, Any]] = []
    if draw(st.sampled_from([True, False])):
        root: dict[str, Any] = {"parent": "root", "handle": "1:", "kind": "htb"}
        minors = draw(st.lists(st.integers(1, 3), max_size=3, unique=True))
        classes = [{"kind": "htb", "parent": "1:", "classid": f"1:{minor}", "rate": "1mbit"} for minor in minors]
    else:
        root = {"parent": "root", "handle": "1:", **draw(st.sampled_from(KINDS))}
    qdiscs, free = [root], [entry["classid"] for entry in classes] or places(root)
    for _level in range(DEEPEST):
        below = []
        for place in free:
            kind = draw(st.none() | st.sampled_from(KINDS)) if handles else None
            if kind:
                qdiscs.append({"parent": place, "handle": handles.pop(), **kind})
                below += places(qdiscs[-1])
        free = below
    return {"qdiscs": qdiscs, "classes": classes, "filters": draw(filters(qdiscs, classes))}


@st.composite
def filters(draw: st.DrawFn, qdiscs: list[dict[str, Any]], classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    targets = {entry["handle"]: places(entry) for entry in qdiscs if entry["kind"] == "prio"}
    if classes:
        targets["1:"] = [entry["classid"] for entry in classes]
    found = []
    for parent, names in targets.items():
        for port in draw(st.lists(st.integers(1, 3), max_size=2)):
            match = {"kind": "u32", "match": [f"ip dport {port} 0xffff"], "flowid": draw(st.sampled_from(names))}
            found.append({"parent": parent, "prio": draw(st.integers(1, 2)), **match})
    return found


TRUNK = {"parent": "root", "handle": "1:", "kind": "htb"}
LANE = {"kind": "htb", "parent": "1:", "classid": "1:2", "rate": "1mbit"}
FILTERED_AT_THE_BOTTOM: oracle.Tree = {
    "qdiscs": [
        TRUNK,
        {"parent": "1:2", "handle": "a:", "kind": "netem"},
        {"parent": "a:1", "handle": "9:", "kind": "netem"},
        {"parent": "9:1", "handle": "8:", "kind": "prio"},
    ],
    "classes": [LANE],
    "filters": [{"parent": "8:", "prio": 1, "kind": "u32", "match": ["ip dport 1 0xffff"], "flowid": "8:1"}],
}


def check(benches: list[Bench], way: list[oracle.Tree]) -> None:
    ours, straight, theirs, _unused = benches
    for bench in (ours, straight, theirs):
        bench.clear()
    for tree in way:
        ours.run(tree)
        assert not ours.run(tree).changed
    straight.run(way[-1])
    theirs.make(way[-1])
    assert ours.state() == theirs.state()
    assert straight.state() == theirs.state()
    ours.run(way[0])
    ours.run(state="absent")
    assert ours.state() == []


FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WAYS = st.lists(trees(), min_size=2, max_size=4)


@FEW
@example([FILTERED_AT_THE_BOTTOM, {"qdiscs": [TRUNK], "classes": [LANE], "filters": []}])
@given(WAYS)
def test_any_way_leads_to_what_tc_makes(benches: list[Bench], way: list[oracle.Tree]) -> None:
    check(benches, way)


@pytest.mark.long
@settings(FEW, max_examples=1500)
@given(WAYS)
def test_any_of_thousands_of_ways(benches: list[Bench], way: list[oracle.Tree]) -> None:
    check(benches, way)
