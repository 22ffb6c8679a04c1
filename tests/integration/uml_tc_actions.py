# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions of filters of every kind, judged by tc and by packets; test_tc_uml.py runs this in a kernel that has them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.integration.engine import Bench
from tests.integration.test_tc import htb

ACTIONS: list[list[dict[str, Any]]] = [
    *([{"kind": "gact", "control": word}] for word in ("pass", "drop", "pipe", "continue", "reclassify", "trap")),
    [{"kind": "gact", "control": "ok"}],
    [{"kind": "gact", "control": "pass", "random": {"type": "determ", "control": "drop", "value": 20}}],
    [{"kind": "gact", "control": "pipe", "random": {"type": "netrand", "control": "drop", "value": 3}}],
    [{"kind": "mirred", "egress": "redirect", "dev": "lo"}],
    [{"kind": "mirred", "egress": "mirror", "dev": "lo"}],
    [{"kind": "mirred", "ingress": "redirect", "dev": "lo"}],
    [{"kind": "mirred", "ingress": "mirror", "dev": "lo", "control": "drop"}],
    [{"kind": "skbedit", "mark": 7}],
    [{"kind": "skbedit", "mark": "0x50000/0xff0000", "control": "continue"}],
    [{"kind": "skbedit", "priority": "1:2", "queue_mapping": 3, "ptype": "host"}],
    [{"kind": "skbedit", "ptype": "otherhost"}],
    [{"kind": "police", "rate": "1mbit", "burst": "10kB", "exceed": "drop"}],
    [{"kind": "police", "rate": "8mbit", "burst": "10kB", "exceed": "continue", "conform": "pipe", "mtu": "9000B"}],
    [{"kind": "police", "rate": "1mbit", "burst": "10kB", "peakrate": "2mbit", "mtu": "2000B", "overhead": 24}],
    [{"kind": "police", "rate": "40gbit", "burst": "50kB", "peakrate": "80gbit", "mtu": "2000B", "exceed": "pass"}],
    [{"kind": "police", "rate": "1mbit", "burst": "10kB", "linklayer": "atm", "mpu": 64}],
    [{"kind": "skbedit", "mark": 7}, {"kind": "gact", "control": "drop"}],
    [
        {"kind": "skbedit", "mark": "0x1/0xf"},
        {"kind": "police", "rate": "1mbit", "burst": "10kB", "exceed": "drop", "conform": "pipe"},
        {"kind": "mirred", "egress": "mirror", "dev": "lo"},
        {"kind": "mirred", "egress": "redirect", "dev": "lo"},
    ],
]
FILTERS: dict[str, dict[str, Any]] = {
    "u32": {"kind": "u32", "match": ["ip dport 7575 0xffff"], "protocol": "ip"},
    "fw": {"kind": "fw", "handle": 7},
    "flower": {"kind": "flower", "protocol": "ip", "dst_ip": "10.0.0.7"},
    "matchall": {"kind": "matchall"},
}


def tree(*filters: dict[str, Any]) -> dict[str, Any]:
    return htb({"classid": "1:1"}, {"classid": "1:2"}, filters=[{"parent": "1:", **one} for one in filters])


def each(shift: int, **more: Any) -> dict[str, Any]:
    """Every list of actions at a priority of its own, the kinds of filters taken in turn from `shift` on."""
    kinds = itertools.islice(itertools.cycle(FILTERS.values()), shift, None)
    pairs = enumerate(zip(kinds, ACTIONS), 1)
    return tree(*({**kind, "prio": prio, "action": actions, **more} for prio, (kind, actions) in pairs))


TREES = {
    **{f"actions, {kind} first": each(shift) for shift, kind in enumerate(FILTERS)},
    "actions and classes": each(0, flowid="1:2"),
    "classes alone": tree(*({**kind, "prio": prio, "flowid": "1:1"} for prio, kind in enumerate(FILTERS.values(), 1))),
}


@pytest.mark.parametrize("name", TREES)
def test_it_is_what_tc_makes_and_says_so(benches: list[Bench], name: str) -> None:
    ours, _straight, theirs, typed = benches
    report = ours.run(TREES[name])
    theirs.make(TREES[name])
    assert ours.state() == theirs.state()
    typed.shell(report.steps, ours.device)
    assert typed.state() == theirs.state()
    assert not ours.run(TREES[name]).changed


def test_any_leads_to_any(benches: list[Bench]) -> None:
    ours, _straight, theirs, typed = benches
    for first, second in itertools.pairwise(["actions and classes", *TREES, "actions, u32 first", "classes alone"]):
        for bench in (ours, theirs, typed):
            bench.clear()
        ours.run(TREES[first])
        typed.make(TREES[first])
        report = ours.run(TREES[second])
        typed.shell(report.steps, ours.device)
        theirs.make(TREES[second])
        assert ours.state() == theirs.state(), (first, second)
        assert typed.state() == theirs.state(), (first, second)
        assert not ours.run(TREES[second]).changed
