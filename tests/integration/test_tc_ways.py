# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any tree to any other: the way there leaves the same state as tc makes from nothing, and its steps tell the truth."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.engine import Bench, watched
from tests.integration.places import CHECKOUT
from tests.integration.test_tc import TREES
from tests.oracle import tc as oracle

# Rates and bursts that take whole microseconds: tc before iproute2 6.15 cuts all others down to that.
RATES = ["128kbit", "1mbit", "2mbit", "5mbit", "10mbit"]
LEAVES: list[dict[str, Any]] = [
    {"kind": "pfifo", "limit": 5},
    {"kind": "pfifo", "limit": 50},
    {"kind": "pfifo"},
    {"kind": "bfifo", "limit": "9kB"},
    {"kind": "tbf", "rate": "1mbit", "burst": "5kB", "limit": "30kB"},
    {"kind": "tbf", "rate": "2mbit", "burst": "5kB", "latency": "50ms"},
]
MATCHES = ["u32 0 0", "ip dport 80 0xffff", "ip src 10.0.0.0/8", "ip protocol 17 0xff", "u16 0x10 0xff at -2"]


@st.composite
def trees(draw: st.DrawFn) -> oracle.Tree:
    """An HTB with a few classes at two levels, leaves and u32 filters."""
    minors = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5, unique=True))
    parents: dict[int, int] = {}
    for number, minor in enumerate(minors):
        parents[minor] = draw(st.sampled_from([0, *minors[:number]]))
    shape = st.fixed_dictionaries(
        {"rate": st.sampled_from(RATES)},
        optional={"prio": st.integers(0, 7), "quantum": st.integers(1000, 3000), "ceil": st.just("100mbit")},
    )
    classes = [
        {"kind": "htb", "classid": f"1:{minor}", "parent": f"1:{parents[minor] or ''}", **draw(shape)}
        for minor in minors
    ]
    leaves = [minor for minor in minors if minor not in parents.values()]
    root: dict[str, Any] = {"parent": "root", "handle": "1:", "kind": "htb"}
    if draw(st.booleans()):
        root["default"] = draw(st.sampled_from(leaves))
    handles = draw(st.permutations(range(0x10, 0x16)))
    qdiscs = [root]
    for minor, handle in zip(leaves, handles):
        leaf = draw(st.none() | st.sampled_from(LEAVES))
        if leaf:
            named = {"handle": f"{handle:x}:"} if draw(st.booleans()) else {}
            qdiscs.append({"parent": f"1:{minor}", **named, **leaf})
    return {"qdiscs": qdiscs, "classes": classes, "filters": draw(filters(minors, sorted(set(parents.values()))))}


@st.composite
def filters(draw: st.DrawFn, minors: list[int], inner: list[int]) -> list[dict[str, Any]]:
    """Several priorities, each below one parent and of one protocol, with several filters in an order of their own."""
    found = []
    for prio in draw(st.lists(st.integers(1, 4), max_size=3, unique=True)):
        place = {
            "kind": "u32",
            "prio": prio,
            "parent": f"1:{draw(st.sampled_from(inner)) or ''}",
            "protocol": draw(st.sampled_from(["all", "ip"])),
        }
        for match in draw(st.lists(st.sampled_from(MATCHES), min_size=1, max_size=4)):
            found.append({**place, "match": [match], "flowid": f"1:{draw(st.sampled_from(minors))}"})
    return found


@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(trees(), min_size=2, max_size=3))
def test_any_way_leads_to_what_tc_makes(benches: list[Bench], way: list[oracle.Tree]) -> None:
    ours, straight, theirs, typed = benches
    for bench in benches:
        bench.clear()
    for tree in way:
        steps = ours.run(tree).steps
        typed.shell(steps, ours.device)
    assert not ours.run(way[-1]).changed
    straight.run(way[-1])
    theirs.make(way[-1])
    assert ours.state() == theirs.state()
    assert straight.state() == theirs.state()
    assert typed.state() == theirs.state()


@settings(max_examples=10, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=trees(), second=trees())
def test_check_mode_tells_the_same_steps_and_writes_nothing(
    benches: list[Bench], first: oracle.Tree, second: oracle.Tree
) -> None:
    ours = benches[0]
    ours.clear()
    ours.run(first)
    with watched(ours.place) as seen:
        foretold = ours.run(second, check=True)
        assert seen() == []
    done = ours.run(second)
    assert (foretold.changed, foretold.steps, foretold.before) == (done.changed, done.steps, done.before)


def test_a_second_run_of_the_module_sends_no_write(benches: list[Bench], tmp_path: Path) -> None:
    """Seen by strace: a process of its own, with a memory of its own below /run."""
    ours = benches[0]
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"interface": ours.device, **TREES["leaves"]}}))
    command = [sys.executable, "-m", "plugins.modules.tc", str(asked)]
    traced = ["strace", "-f", "-e", "trace=%network", "-o", str(tmp_path / "sent"), *command]
    text = f"mount -t tmpfs run /run; cd {CHECKOUT}; {shlex.join(command)} >&2; {shlex.join(traced)}"
    said = ours.place.run(["unshare", "--mount", "sh", "-ec", text])
    sent = (tmp_path / "sent").read_text()
    assert '"changed": true' in said.stderr
    assert '"changed": false' in said.stdout
    assert "RTM_GETQDISC" in sent
    assert not [line for line in sent.splitlines() if "send" in line and re.search(r"RTM_(NEW|DEL)", line)]
