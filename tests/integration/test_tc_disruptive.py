# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would lose packets is told with the packets at stake, and made only where it is allowed."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from plugins.module_utils.errors import Disruptive
from tests.integration.engine import Bench, inside
from tests.integration.test_tc import htb
from tests.integration.test_tc_traffic import ETH_P_IP, frame

CLASS = {"classid": "1:1", "rate": "400bit", "burst": "1600B"}  # a frame in two seconds, once the burst has gone
LANE = htb(CLASS, root={"default": 0x1}, qdiscs=[{"parent": "1:1", "handle": "10:", "kind": "pfifo", "limit": 50}])
MATCH = {"match": ["u32 0 0"], "flowid": "1:1", "prio": 3}


def lane(**leaf: Any) -> dict[str, Any]:
    return {**LANE, "qdiscs": [LANE["qdiscs"][0], {"parent": "1:1", "handle": "10:", **leaf}]}


CHANGES: dict[str, dict[str, Any]] = {
    "another kind of queue": lane(kind="bfifo", limit="90kB"),
    "another handle": lane(kind="pfifo", limit=50, handle="11:"),
    "another default": {**LANE, "qdiscs": [{**LANE["qdiscs"][0], "default": 0}, LANE["qdiscs"][1]]},
    "another kind of root": {"qdiscs": [{"parent": "root", "handle": "1:", "kind": "pfifo", "limit": 50}]},
}
HARMLESS: dict[str, dict[str, Any]] = {
    "a value": lane(kind="pfifo", limit=60),
    "a rate": {**LANE, "classes": [{**LANE["classes"][0], "rate": "800bit"}]},
    "a class more, and a filter": {
        **LANE,
        "classes": [*LANE["classes"], {"kind": "htb", "parent": "1:", "classid": "1:2", "rate": "1mbit"}],
        "filters": [{"parent": "1:", "kind": "u32", **MATCH}],
    },
}


@pytest.fixture
def bench(benches: list[Bench]) -> Bench:
    """LANE stands, and 20 frames wait in it."""
    made = benches[0]
    made.run(LANE, disruptive="refuse")  # the first run loses nothing that anybody made to wait
    with inside(made.place), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((made.device, ETH_P_IP))
        for number in range(40):
            wire.send(frame(number))
    assert backlog(made) > 10
    return made


def backlog(bench: Bench) -> int:
    """Packets that wait, as tc shows them at the root."""
    shown = bench.typed(f"tc -s qdisc show dev {bench.device} root")
    return int(re.findall(r"backlog \S+ (\d+)p", shown)[0])


@pytest.mark.parametrize("what", CHANGES)
def test_it_is_refused_with_what_is_at_stake(bench: Bench, what: str) -> None:
    before = bench.state()
    told = bench.run(CHANGES[what], check=True, disruptive="refuse")
    assert any("disruptive: " in step for step in told.steps)
    at_stake = backlog(bench)
    with pytest.raises(Disruptive) as refusal:
        bench.run(CHANGES[what], disruptive="refuse")
    said = int(re.findall(r"with (\d+) packets waiting in t0", str(refusal.value))[0])
    assert backlog(bench) <= said <= at_stake
    assert "disruptive: allow" in str(refusal.value)
    assert bench.state() == before
    assert bench.run(CHANGES[what]).steps == told.steps
    assert not bench.run(CHANGES[what], disruptive="refuse").changed


@pytest.mark.parametrize("what", HARMLESS)
def test_what_loses_nothing_is_made(bench: Bench, what: str) -> None:
    waiting = backlog(bench)
    report = bench.run(HARMLESS[what], disruptive="refuse")
    assert report.changed
    assert backlog(bench) >= waiting - 3  # but for those that the rate let go on
    assert not any("disruptive" in step for step in report.steps)


def test_taking_all_away_is_asked_for(bench: Bench) -> None:
    assert bench.run(state="absent", disruptive="refuse").changed
    assert bench.state() == []
