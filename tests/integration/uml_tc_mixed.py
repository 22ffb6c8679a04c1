# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any tree to any other, with filters of every kind and actions, at queues, classes and where packets arrive.

uml_tc_ways.py does so for queues below queues; both are run by test_tc_uml.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.engine import Bench
from tests.integration.test_tc_ways import MATCHES, RATES
from tests.integration.uml_tc_actions import ACTIONS
from tests.integration.uml_tc_filters import FLOWERS
from tests.integration.uml_tc_ways import FEW, KINDS, check, places
from tests.oracle import tc as oracle

Entry = dict[str, Any]


def several(of: st.SearchStrategy[Any], most: int, by: Callable[[Any], Any] | None = None) -> st.SearchStrategy[Any]:
    return st.lists(of, min_size=1, max_size=most, unique_by=by)


@st.composite
def classes(draw: st.DrawFn) -> list[Entry]:
    """HTB classes at two or three levels."""
    found: list[Entry] = []
    for minor in draw(st.permutations(range(1, 6)))[: draw(st.integers(1, 5))]:
        parent = draw(st.sampled_from(["1:", *(entry["classid"] for entry in found)]))
        entry = {"kind": "htb", "parent": parent, "classid": f"1:{minor}", "rate": draw(st.sampled_from(RATES))}
        found.append(entry | draw(st.sampled_from([{}, {"prio": 3}, {"quantum": 2000}, {"ceil": "100mbit"}])))
    return found


@st.composite
def trees(draw: st.DrawFn) -> oracle.Tree:
    """A root, what stands where packets arrive, or both; filters at all of them."""
    hook = draw(st.sampled_from(["", "", "ingress", "clsact"]))
    root = draw(st.sampled_from(["htb", "htb", "other", "none"] if hook else ["htb", "other"]))
    qdiscs: list[Entry] = []
    made: list[Entry] = []
    free: list[str] = []
    targets: dict[str, list[str]] = {}  # where filters can stand, and where they can lead
    if root == "htb":
        made = draw(classes())
        inner = {entry["parent"] for entry in made}
        free = [entry["classid"] for entry in made if entry["classid"] not in inner]
        targets = {parent: [entry["classid"] for entry in made] for parent in sorted(inner | {"1:"})}
        default = draw(st.none() | st.sampled_from(free))
        qdiscs.append({"parent": "root", "handle": "1:", "kind": "htb"})
        if default:
            qdiscs[0]["default"] = int(default.partition(":")[2], 16)
    elif root == "other":
        qdiscs.append({"parent": "root", "handle": "1:", **draw(st.sampled_from(KINDS))})
        free = places(qdiscs[0])
    for number, place in enumerate(free, 2):
        kind = draw(st.none() | st.sampled_from(KINDS))
        if kind:
            qdiscs.append({"parent": place, "handle": f"{number:x}:", **kind})
    targets |= {entry["handle"]: places(entry) for entry in qdiscs if entry["kind"] == "prio"}
    if hook:
        qdiscs.append({"kind": hook})
        targets |= {side: ["1:1", "1:2"] for side in ("ingress", "egress")[: 1 + (hook == "clsact")]}
    return {"qdiscs": qdiscs, "classes": made, "filters": draw(filters(targets)) if targets else []}


@st.composite
def filters(draw: st.DrawFn, targets: dict[str, list[str]]) -> list[Entry]:
    """Groups: what has one priority is of one kind and protocol, below one parent."""
    found: list[Entry] = []
    prios: list[int] = draw(st.lists(st.integers(1, 9), max_size=4, unique=True))
    for prio in prios:
        parent = draw(st.sampled_from(sorted(targets)))
        kind = draw(st.sampled_from(["u32", "fw", "flower", "matchall"]))
        group: list[Entry] = draw(GROUPS[kind])
        for one in group:
            entry = {"kind": kind, "parent": parent, "prio": prio, **one}
            if kind in ("u32", "fw") or draw(st.booleans()):
                entry["flowid"] = draw(st.sampled_from(targets[parent]))
            if draw(st.booleans()) or "flowid" not in entry:
                entry["action"] = draw(st.sampled_from(ACTIONS))
            found.append(entry)
    return found


@st.composite
def marks(draw: st.DrawFn) -> list[Entry]:
    mask: Entry = draw(st.sampled_from([{}, {"mask": 0xFF}]))
    return [{"handle": handle, **mask} for handle in draw(several(st.integers(1, 9), 4, lambda number: number))]


@st.composite
def hosts(draw: st.DrawFn) -> list[Entry]:
    """Of one hash table."""
    shape: Entry = draw(st.sampled_from([{"protocol": "ip"}, {"protocol": "ip", "ip_proto": "udp", "dst_port": 53}]))
    return [{**shape, "dst_ip": f"10.0.0.{last}"} for last in draw(several(st.integers(0, 9), 5, lambda last: last))]


@st.composite
def selectors(draw: st.DrawFn) -> list[Entry]:
    protocol = draw(st.sampled_from(["all", "ip", "ipv6"]))
    return [{"protocol": protocol, "match": found} for found in draw(several(several(st.sampled_from(MATCHES), 2), 4))]


GROUPS: dict[str, st.SearchStrategy[list[Entry]]] = {
    "u32": selectors(),
    "fw": marks(),
    "flower": hosts() | st.sampled_from([[keys] for keys in FLOWERS]),
    "matchall": st.sampled_from([[{}], [{"protocol": "ip"}]]),
}
WAYS = st.lists(trees(), min_size=2, max_size=4)


@settings(FEW, max_examples=50)
@given(WAYS)
def test_any_way_leads_to_what_tc_makes(benches: list[Bench], way: list[oracle.Tree]) -> None:
    check(benches, way)


@pytest.mark.long
@settings(FEW, derandomize=False, max_examples=1000)
@given(WAYS)
def test_any_of_thousands_of_ways(benches: list[Bench], way: list[oracle.Tree]) -> None:
    check(benches, way)
