# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds of queues that not every kernel has, and queues below queues; test_tc_uml.py runs this inside such a kernel."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from plugins.module_utils.errors import RolledBack
from tests.integration.engine import Bench
from tests.integration.test_tc import htb
from tests.oracle import tc as oracle

MAP = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
ALONE: list[dict[str, Any]] = [
    {"kind": "prio"},
    {"kind": "prio", "bands": 2, "priomap": [0, 1] * 8},
    {"kind": "prio", "bands": 16, "priomap": MAP},
    {"kind": "fq"},
    {"kind": "fq", "limit": 77, "flow_limit": 7, "quantum": "3000B", "initial_quantum": "9000B", "maxrate": "1mbit"},
    {"kind": "fq", "buckets": 256, "orphan_mask": 15, "pacing": False, "ce_threshold": "4ms"},
    {"kind": "fq", "refill_delay": "33ms", "low_rate_threshold": "80kbit", "timer_slack": "500us"},
    {"kind": "fq", "horizon": "2s", "horizon_drop": False, "maxrate": "34.2gbit"},
    {"kind": "fq_codel"},
    {"kind": "fq_codel", "limit": 99, "quantum": "300B", "target": "7ms", "interval": "83ms", "ecn": False},
    {"kind": "fq_codel", "flows": 17, "memory_limit": "1MiB", "drop_batch": 5, "target": "3us"},
    {"kind": "fq_codel", "flows": 17, "target": "1.777s", "interval": "1023us", "ce_threshold": "1ms"},
    {"kind": "fq_codel", "ce_threshold": "999us", "ce_threshold_selector": "0x1/0x3"},
    {"kind": "cake"},
    {"kind": "cake", "bandwidth": "5mbit", "diffserv": "diffserv4", "isolation": "dual-dsthost", "rtt": "20ms"},
    {"kind": "cake", "bandwidth": "50gbit", "autorate_ingress": True, "ingress": True, "wash": True},
    {"kind": "cake", "overhead": 24, "mpu": 64, "framing": "atm", "ack_filter": "ack-filter", "split_gso": False},
    {"kind": "cake", "overhead": -4, "raw": True, "framing": "ptm", "ack_filter": "ack-filter-aggressive"},
    {"kind": "cake", "diffserv": "besteffort", "isolation": "flowblind", "memlimit": "4MiB", "fwmark": 0xFF0000},
    {"kind": "cake", "diffserv": "precedence", "rtt": "19us", "overhead": 0},
    {"kind": "netem", "delay": "10ms"},
    {"kind": "tbf", "rate": "1mbit", "burst": "5kB", "limit": "30kB"},
]


def root(entry: dict[str, Any], *below: dict[str, Any], filters: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    top = {"parent": "root", "handle": "1:", **entry}
    return {
        "qdiscs": [top, *below],
        "filters": [{"parent": "1:", "kind": "u32", "match": ["ip dport 1 0xffff"], **one} for one in filters],
    }


def at(parent: str, kind: str, handle: str = "", **options: Any) -> dict[str, Any]:
    return {"parent": parent, "kind": kind, **({"handle": handle} if handle else {}), **options}


PRIO, TBF, NETEM = {"kind": "prio"}, {"rate": "1mbit", "burst": "5kB", "limit": "30kB"}, {"delay": "10ms"}
SHAPER = {"kind": "tbf", **TBF}
CLASS = {"classid": "1:1"}
TREES: dict[str, dict[str, Any]] = {
    "prio with a queue a band, and filters": root(
        PRIO,
        at("1:1", "netem", "10:", **NETEM),
        at("1:2", "tbf", "20:", **TBF),
        at("1:3", "pfifo", limit=9),
        filters=({"prio": 1, "flowid": "1:1"}, {"prio": 1, "flowid": "1:3"}, {"prio": 2, "flowid": "1:2"}),
    ),
    "prio with more bands": root({**PRIO, "bands": 5}, at("1:5", "netem", "10:", **NETEM), at("1:4", "pfifo", limit=9)),
    "prio with fewer bands": root({**PRIO, "bands": 2, "priomap": [0, 1] * 8}, at("1:2", "netem", "10:", **NETEM)),
    "prio below prio": root(
        PRIO,
        at("1:1", "prio", "10:", bands=2, priomap=[1, 0] * 8),
        at("10:2", "fq_codel", "102:"),
        filters=({"prio": 1, "flowid": "1:1"}, {"prio": 1, "flowid": "10:2", "parent": "10:"}),
    ),
    "bfifo below netem": root({"kind": "netem", **NETEM}, at("1:1", "bfifo", limit="9kB")),
    "tbf below netem": root({"kind": "netem", **NETEM}, at("1:1", "tbf", "2:", **TBF)),
    "netem below tbf": root(SHAPER, at("1:1", "netem", "2:", **NETEM)),
    "pfifo below tbf": root(SHAPER, at("1:1", "pfifo", "2:", limit=7)),
    "pfifo below another tbf": root({**SHAPER, "limit": "20kB"}, at("1:1", "pfifo", "2:", limit=7)),
    "tbf alone": root(SHAPER),
    "class, netem, fq_codel": htb(CLASS, qdiscs=[at("1:1", "netem", "10:", **NETEM), at("10:1", "fq_codel", "20:")]),
    "class, netem, other fq_codel": htb(
        CLASS, qdiscs=[at("1:1", "netem", "10:", delay="5ms"), at("10:1", "fq_codel", "20:", flows=5)]
    ),
    "class, another kind under the same handle, fq": htb(
        CLASS, qdiscs=[at("1:1", "tbf", "10:", **TBF), at("10:1", "fq", "20:", limit=50)]
    ),
    "class, two levels the other way round": htb(
        CLASS, qdiscs=[at("1:1", "netem", "20:", **NETEM), at("20:1", "tbf", "10:", **TBF)]
    ),
    "class, netem alone": htb(CLASS, qdiscs=[at("1:1", "netem", "20:", **NETEM)]),
    "two classes that exchange what hangs below them": htb(
        CLASS,
        {"classid": "1:2"},
        qdiscs=[at("1:2", "netem", "20:", **NETEM), at("20:1", "cake", "30:"), at("1:1", "netem", "10:", **NETEM)],
    ),
    "two classes, exchanged": htb(
        CLASS,
        {"classid": "1:2"},
        qdiscs=[at("1:1", "netem", "20:", **NETEM), at("20:1", "cake", "30:"), at("1:2", "netem", "10:", **NETEM)],
    ),
}
TREES |= {oracle.commands("", root(entry))[0].partition("handle 1: ")[2]: root(entry) for entry in ALONE}


@pytest.fixture
def both(benches: list[Bench]) -> tuple[Bench, Bench]:
    ours, theirs, *_more = benches
    return ours, theirs


@pytest.mark.parametrize("name", TREES)
def test_made_as_tc_makes_it(both: tuple[Bench, Bench], name: str) -> None:
    ours, theirs = both
    theirs.make(TREES[name])
    made = ours.run(TREES[name])
    assert (ours.state(), ours.show()) == (theirs.state(), theirs.show())
    assert not ours.run(TREES[name]).changed
    theirs.clear()
    theirs.shell(made.steps, ours.device)
    assert ours.state() == theirs.state()


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise([*TREES, *reversed(TREES)])))
def test_nothing_of_the_first_is_left_after_the_second(both: tuple[Bench, Bench], first: str, second: str) -> None:
    ours, theirs = both
    theirs.make(TREES[second])
    ours.run(TREES[first])
    ours.run(TREES[second])
    assert ours.state() == theirs.state()


SAME_KIND = [
    (one, other)
    for kind in ("prio", "fq", "fq_codel", "cake")
    for one, other in itertools.pairwise([entry for entry in ALONE if entry["kind"] == kind])
]


@pytest.mark.parametrize(("first", "second"), SAME_KIND)
def test_values_change_in_place(both: tuple[Bench, Bench], first: dict[str, Any], second: dict[str, Any]) -> None:
    ours, _theirs = both
    for one, other in ((first, second), (second, first)):
        ours.run(root(one))
        before = ours.state()
        (step, *more) = ours.run(root(other)).steps
        if one.get("flows") == other.get("flows"):
            assert step.startswith("tc qdisc change ")
            assert not more
        else:
            assert "disruptive" in step
        ours.run(state="absent")
        ours.tc(oracle.commands(ours.device, root(one)))
        ours.run(root(other), purge=True)
        ours.run(state="absent")
        assert ours.state() == before  # what stood before is given back as it was, times and all
        ours.clear()


def test_the_place_below_netem_and_tbf_has_two_names(both: tuple[Bench, Bench]) -> None:
    ours, _theirs = both
    for name in ("bfifo below netem", "netem below tbf"):
        top, queue = TREES[name]["qdiscs"]
        ours.make({"qdiscs": [top, {**queue, "parent": "1:"}]})
        assert not ours.run(TREES[name]).changed
        assert not ours.run({"qdiscs": [top, {**queue, "parent": "1:"}]}).changed
        ours.clear()


def test_what_others_hung_below_a_queue_goes(both: tuple[Bench, Bench]) -> None:
    """Also below one whose handle the kernel chose."""
    ours, theirs = both
    wanted = htb(CLASS, {"classid": "1:2"}, qdiscs=[at("1:1", "netem", **NETEM), at("1:2", "tbf", "20:", **TBF)])
    theirs.make(wanted)
    ours.run(wanted)
    automatic = next(qdisc.handle for qdisc in ours.observed().qdiscs if qdisc.kind == "netem")
    ours.tc(
        [
            f"qdisc add dev {ours.device} parent {automatic >> 16:x}:1 handle 7: prio",
            f"qdisc add dev {ours.device} parent 7:1 handle 8: bfifo limit 9000",
            f"qdisc add dev {ours.device} parent 20:1 handle 9: netem delay 1ms",
        ]
    )
    assert len(ours.run(wanted).steps) == 3  # a tbf that loses its queue is given one of its own by a change
    assert ours.state() == theirs.state()


def test_plug_is_made_and_its_limit_cannot_be_seen(both: tuple[Bench, Bench]) -> None:
    ours, _theirs = both
    ours.run(root({"kind": "plug", "limit": "64kB"}))
    assert [line.split()[1] for line in ours.show() if line.startswith("qdisc")] == ["plug"]
    assert not ours.run(root({"kind": "plug", "limit": "64kB"})).changed
    assert not ours.run(root({"kind": "plug", "limit": "65kB"})).changed
    (step,) = ours.run(root({"kind": "prio"}), check=True).steps[:1]
    assert "disruptive" in step


def test_bands_of_fq_need_a_kernel_that_has_them(both: tuple[Bench, Bench]) -> None:
    ours, theirs = both
    banded = {"kind": "fq", "priomap": MAP, "weights": [20000, 30000, 40000]}
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        with pytest.raises(RolledBack, match=r"of fq needs Linux 6\.7 or later.*the state before was restored"):
            ours.run(root(banded))
        assert ours.state() == []
        return
    ours.run(root(banded))
    (line,) = (line for line in ours.show() if line.startswith("qdisc"))  # tc of iproute2 6.15 shows, but cannot ask
    assert f"priomap {' '.join(map(str, MAP))} " in line
    assert "weights 20000 30000 40000" in line
    assert not ours.run(root(banded)).changed
    theirs.clear()
    theirs.make(root({"kind": "fq"}))
    assert len(ours.run(root({"kind": "fq"})).steps) == 1
    assert ours.state() == theirs.state()
