# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tc engine against a kernel with netem and fw: test_tc_uml.py runs this inside one; not collected elsewhere."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import ForeignState, MissingCapability, RolledBack, TestbedError
from plugins.module_utils.tc.kinds.netem import Netem
from tests.integration.engine import Bench, Prompt
from tests.integration.places import Netns
from tests.integration.test_tc import htb
from tests.integration.test_tc_before import give
from tests.oracle import tc as oracle

LATENCY64, JITTER64 = 10, 11  # TCA_NETEM_*
GEMODEL, STATE = ("p", "r", "1-h", "1-k"), ("p13", "p31", "p32", "p23", "p14")


def first_words(names: tuple[str, ...], *values: str) -> list[dict[str, str]]:
    """The model with its first word, its first two, … all of them."""
    return [dict(zip(names, values[:count])) for count in range(1, len(values) + 1)]


NETEMS: list[dict[str, Any]] = [
    {},
    {"delay": "50ms"},
    {"delay": "5s", "jitter": "2.1s"},
    {"delay": "50ms", "jitter": "10ms", "delay_correlation": "25%"},
    {"delay": "50ms", "jitter": "10ms", "distribution": "normal"},
    {"delay": "50ms", "jitter": "10ms", "delay_correlation": "25%", "distribution": "pareto", "corrupt": "1%"},
    {"delay": "50ms", "jitter": "10ms", "distribution": "paretonormal", "corrupt": "1%", "reorder": "1%"},
    {"delay": "50ms", "jitter": "10ms", "distribution": "normal", "corrupt": "1%", "reorder": "1%", "duplicate": "1%"},
    {"delay": "50ms", "jitter": "10ms", "distribution": "uniform"},
    {"loss": "1%"},
    {"loss": "100%"},
    {"loss": "0.0000001%"},
    {"loss": "33.3333333%"},
    {"loss": {"random": "2%", "correlation": "50%"}},
    *({"loss": {"gemodel": model}} for model in first_words(GEMODEL, "10%", "70%", "90%", "0.1%")),
    *({"loss": {"gemodel": {"p": f"{percent}%"}}} for percent in ("0.3", "30", "50", "70", "90", "99.99")),
    *({"loss": {"state": model}} for model in first_words(STATE, "10%", "70%", "5%", "80%", "0.5%")),
    *({"loss": {"state": {"p13": f"{percent}%"}}} for percent in ("30", "50", "90")),
    {"duplicate": "3%"},
    {"duplicate": {"percent": "3%", "correlation": "10%"}, "loss": {"random": "1%", "correlation": "1%"}},
    {"corrupt": "0.1%"},
    {"corrupt": {"percent": "0.1%", "correlation": "99%"}},
    {"delay": "10ms", "reorder": "25%"},
    {"delay": "10ms", "reorder": {"percent": "25%", "correlation": "50%"}},
    {"delay": "10ms", "reorder": {"percent": "25%", "correlation": "50%", "gap": 5}},
    {"rate": "128kbit"},
    {"rate": "34.359738360gbit"},
    {"rate": "34.359738368gbit"},
    {"rate": "100gbit"},
    {"rate": "1mbit", "packet_overhead": -14},
    {"rate": "1mbit", "packet_overhead": 24, "cell_size": 53, "cell_overhead": 5},
    {"rate": "1mbit", "packet_overhead": 0, "cell_size": 48, "cell_overhead": -5},
    {"slot": {"min": "10ms"}},
    {"slot": {"min": "10ms", "max": "20ms"}},
    {"slot": {"min": "10ms", "max": "5s", "packets": 5}},
    {"slot": {"min": "10ms", "max": "20ms", "packets": 5, "bytes": 9000}},
    {"slot": {"min": "0", "max": "20ms", "bytes": 2147483646}},
    {"slot": {"distribution": "pareto", "delay": "10ms", "jitter": "2ms"}},
    {"slot": {"distribution": "normal", "delay": "10ms", "jitter": "2ms", "packets": 5, "bytes": 9000}},
    {"loss": "1%", "ecn": True},
    {"limit": 1},
    {"limit": 4294967295},
    {
        "delay": "20ms",
        "jitter": "3ms",
        "delay_correlation": "11%",
        "loss": {"random": "1.5%", "correlation": "12%"},
        "duplicate": {"percent": "2.5%", "correlation": "13%"},
        "corrupt": {"percent": "3.5%", "correlation": "14%"},
        "reorder": {"percent": "4.5%", "correlation": "15%", "gap": 3},
        "rate": "50gbit",
        "packet_overhead": 1,
        "cell_size": 64,
        "cell_overhead": -2,
        "slot": {"min": "1ms", "max": "2ms", "packets": 7, "bytes": 8000},
        "ecn": True,
        "limit": 77,
    },
]
FULL = NETEMS[-1]


def root(parameters: dict[str, Any]) -> oracle.Tree:
    return {"qdiscs": [{"parent": "root", "handle": "1:", "kind": "netem", **parameters}], "classes": [], "filters": []}


@pytest.fixture
def both(benches: list[Bench]) -> tuple[Bench, Bench]:
    ours, theirs, *_more = benches
    return ours, theirs


@pytest.mark.parametrize("parameters", NETEMS, ids=oracle.netem_words)
def test_netem_as_tc_makes_it_and_nothing_of_another_is_left(
    both: tuple[Bench, Bench], parameters: dict[str, Any]
) -> None:
    ours, theirs = both
    theirs.make(root(parameters))
    made = ours.run(root(parameters))
    assert (ours.state(), ours.show()) == (theirs.state(), theirs.show())
    assert not ours.run(root(parameters)).changed
    theirs.clear()
    theirs.shell(made.steps, ours.device)
    assert ours.state() == theirs.state()
    for other in (FULL, {}):
        steps = ours.run(root(other)).steps
        steps += ours.run(root(parameters)).steps
        if "distribution" not in parameters.get("slot", {}):  # whose slots keep a table to the end
            assert all(step.startswith("tc qdisc change ") for step in steps)
        assert ours.state() == theirs.state()


@pytest.mark.parametrize("nanoseconds", [1, 63, 50000001, 4294967297, 3 * 10**11])
def test_times_that_tc_of_iproute2_6_1_cannot_ask_for(both: tuple[Bench, Bench], nanoseconds: int) -> None:
    ours, _theirs = both
    jitter = min(nanoseconds, 2147483647)
    ours.run(root({"delay": f"{nanoseconds}ns", "jitter": f"{jitter}ns"}))
    ((_role, _kind, _handle, _parent, options),) = ours.state()
    exact = [number.to_bytes(8, "little").hex() for number in (nanoseconds, jitter)]
    assert [dict(options)[attribute] for attribute in (LATENCY64, JITTER64)] == exact


def test_one_value_is_one_change_message(both: tuple[Bench, Bench]) -> None:
    ours, _theirs = both
    leaf = {"parent": "1:1", "handle": "10:", "kind": "netem", "delay": "50ms"}
    ours.run(htb({"classid": "1:1"}, qdiscs=[leaf]))
    report = ours.run(htb({"classid": "1:1"}, qdiscs=[{**leaf, "delay": "20ms"}]))
    assert report.steps == [f"tc qdisc change dev {ours.device} parent 1:1 handle 10: netem limit 1000 delay 20ms"]


def test_a_seed_needs_a_kernel_that_has_it(both: tuple[Bench, Bench]) -> None:
    ours, _theirs = both
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 6):
        for seed in (42, 2**64 - 1, 0):
            assert len(ours.run(root({"delay": "1ms", "seed": seed})).steps) == 1
            assert f"seed {seed}" in ours.typed(f"tc -d qdisc show dev {ours.device}")
            assert not ours.run(root({"delay": "1ms", "seed": seed})).changed
        return
    with pytest.raises(RolledBack, match=r"seed needs Linux 6.6 .*the state before was restored"):
        ours.run(root({"delay": "1ms", "seed": 42}))
    assert ours.state() == []
    ours.run(root({"delay": "1ms"}))
    with pytest.raises(MissingCapability, match=r"seed needs Linux 6\.6"):
        ours.run(root({"delay": "1ms", "seed": 42}))
    tree = ours.observed().qdiscs[0].options
    assert isinstance(tree, Netem)
    assert (tree.delay, tree.seed) == (10**6, None)


def test_duplicate_beside_another_netem_is_refused_with_the_kernels_reason(both: tuple[Bench, Bench]) -> None:
    ours, _theirs = both
    classes = ({"classid": "1:1"}, {"classid": "1:2"})
    leaves = [{"parent": f"1:{minor}", "kind": "netem"} for minor in (1, 2)]
    ours.run(htb(*classes, qdiscs=leaves))
    before = ours.state()
    leaves[1]["duplicate"] = "1%"
    _ours, theirs = both
    theirs.make(htb(*classes, qdiscs=leaves[:1]))
    tried = ours.place.run(
        ["tc", "qdisc", "add", "dev", theirs.device, "parent", "1:2", "netem", "duplicate", "1%"], check=False
    )
    if tried.returncode == 0:  # kernels differ in this
        assert ours.run(htb(*classes, qdiscs=leaves)).changed
        assert ours.state() == theirs.state()
        return
    with pytest.raises(RolledBack, match=r"cannot mix duplicating netems.*the state before was restored"):
        ours.run(htb(*classes, qdiscs=leaves))
    assert ours.state() == before


def fw(*filters: dict[str, Any]) -> dict[str, Any]:
    return htb(
        {"classid": "1:1"}, {"classid": "1:2"}, filters=[{"kind": "fw", "flowid": "1:1", **entry} for entry in filters]
    )


FILTERS = {
    "one": fw({"handle": 1}),
    "two in one prio": fw({"handle": 1}, {"handle": 2, "flowid": "1:2"}),
    "other targets": fw({"handle": 1, "flowid": "1:2"}, {"handle": 2}),
    "masked": fw({"handle": 0x20000, "mask": 0xFF0000}, {"handle": 0x30000, "mask": 0xFF0000}),
    "other mask": fw({"handle": 2, "mask": 0xFF}),
    "every bit": fw({"handle": 0xFFFFFFFF}),
    "indev": fw({"handle": 1, "indev": "p0"}),
    "other indev": fw({"handle": 1, "indev": "lo"}),
    "protocol": fw({"handle": 1, "protocol": "ip"}),
    "u32 mark": htb(
        {"classid": "1:1"}, filters=[{"match": ["mark 0x20000 0xff0000", "ip dport 1 0xffff"], "flowid": "1:1"}]
    ),
    "u32 mark alone": htb({"classid": "1:1"}, filters=[{"match": ["u32 0 0", "mark 2 255"], "flowid": "1:1"}]),
    "u32 in the same prio": htb({"classid": "1:1"}, filters=[{"match": ["u32 0 0"], "flowid": "1:1"}]),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise([*FILTERS, *reversed(FILTERS)])))
def test_filters_by_mark(both: tuple[Bench, Bench], first: str, second: str) -> None:
    ours, theirs = both
    ours.run(FILTERS[first])
    steps = ours.run(FILTERS[second]).steps
    theirs.make(FILTERS[second])
    assert ours.state() == theirs.state()
    theirs.clear()
    theirs.make(FILTERS[first])
    theirs.shell(steps, ours.device)
    assert ours.state() == theirs.state()


ORIGINAL = """
tc qdisc add dev {0} parent root handle 1:0 htb default 1
tc class add dev {0} parent 1:0 classid 1:1 htb rate 1mbit ceil 10mbit
tc class add dev {0} parent 1:0 classid 1:2 htb rate 100mbit
tc class add dev {0} parent 1:0 classid 1:3 htb rate 128kbit ceil 128kbit
tc class add dev {0} parent 1:3 classid 1:4 htb rate 128kbit ceil 128kbit
tc class add dev {0} parent 1:3 classid 1:5 htb rate 128kbit ceil 128kbit
tc filter add dev {0} parent 1:0 prio 1 handle 1 fw flowid 1:2
tc filter add dev {0} parent 1:0 prio 2 handle 2 fw flowid 1:3
tc filter add dev {0} parent 1:0 prio 3 handle 3 fw flowid 1:3
tc filter add dev {0} parent 1:3 prio 1 handle 3 fw flowid 1:4
tc filter add dev {0} parent 1:3 prio 2 u32 match u32 0 0 flowid 1:5
tc qdisc add dev {0} parent 1:4 netem loss 100%
"""
AS_WRITTEN: oracle.Tree = {
    "qdiscs": [
        {"parent": "root", "handle": "1:0", "kind": "htb", "default": 1},
        {"parent": "1:4", "kind": "netem", "loss": "100%"},
    ],
    "classes": [
        {"parent": "1:0", "classid": "1:1", "kind": "htb", "rate": "1mbit", "ceil": "10mbit"},
        {"parent": "1:0", "classid": "1:2", "kind": "htb", "rate": "100mbit"},
        {"parent": "1:0", "classid": "1:3", "kind": "htb", "rate": "128kbit", "ceil": "128kbit"},
        {"parent": "1:3", "classid": "1:4", "kind": "htb", "rate": "128kbit", "ceil": "128kbit"},
        {"parent": "1:3", "classid": "1:5", "kind": "htb", "rate": "128kbit", "ceil": "128kbit"},
    ],
    "filters": [
        {"parent": "1:0", "prio": 1, "kind": "fw", "handle": 1, "flowid": "1:2"},
        {"parent": "1:0", "prio": 2, "kind": "fw", "handle": 2, "flowid": "1:3"},
        {"parent": "1:0", "prio": 3, "kind": "fw", "handle": 3, "flowid": "1:3"},
        {"parent": "1:3", "prio": 1, "kind": "fw", "handle": 3, "flowid": "1:4"},
        {"parent": "1:3", "prio": 2, "kind": "u32", "match": ["u32 0 0"], "flowid": "1:5"},
    ],
}


def test_the_original_testbeds_tree(place: Netns, prompt: Prompt, tmp_path: Path) -> None:
    """Both interfaces of the original, by their names: first by its shell lines, then by the module."""
    for name in ("eth0", "enx8cae4cf5b7ae"):
        place.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"peer-{name[:9]}"])
        bench = Bench(place, prompt, name, tmp_path / name)
        bench.typed(ORIGINAL.format(name))
        wanted, shown = bench.state(), bench.show(["1:3"])
        assert not bench.run(AS_WRITTEN).changed  # the shell's tree is known for what it is
        bench.clear()
        assert bench.run(AS_WRITTEN).changed
        assert (bench.state(), bench.show(["1:3"])) == (wanted, shown)
        assert bench.run(state="absent").changed
        assert bench.state() == []


UNKNOWN = {
    "fq_codel": ["qdisc add dev {0} root handle 5: fq_codel limit 500 target 7ms noecn"],
    "sfq": ["qdisc add dev {0} root handle 5: sfq perturb 10 quantum 2000 flows 99"],
    "codel": ["qdisc add dev {0} root handle 5: codel limit 99 ecn"],
    "prio with leaves and filters": [
        "qdisc add dev {0} root handle 5: prio bands 4",
        "qdisc add dev {0} parent 5:2 handle 52: netem delay 3ms loss 1% 2%",
        "qdisc add dev {0} parent 5:3 handle 53: fq_codel",
        "filter add dev {0} parent 5: prio 3 protocol ip u32 match ip dport 23 0xffff flowid 5:2",
        "filter add dev {0} parent 5: prio 5 protocol ip handle 0x3/0xff fw flowid 5:2",
    ],
    "hfsc": [
        "qdisc add dev {0} root handle 5: hfsc default 1",
        "class add dev {0} parent 5: classid 5:1 hfsc sc rate 1mbit ul rate 2mbit",
    ],
    "drr": ["qdisc add dev {0} root handle 5: drr", "class add dev {0} parent 5: classid 5:1 drr quantum 3000"],
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_foreign_root_of_an_unknown_kind_is_carried_and_given_back(both: tuple[Bench, Bench], kind: str) -> None:
    ours, _theirs = both
    give(ours, UNKNOWN[kind])
    before, state = ours.show(), ours.state()
    with pytest.raises(ForeignState, match=r"qdisc \w+ 5:"):
        ours.run(FILTERS["one"])
    assert ours.state() == state
    ours.run(FILTERS["one"], purge=True)
    ours.run(state="absent")
    assert ours.show() == before


def test_what_could_not_be_given_back_is_not_replaced(both: tuple[Bench, Bench]) -> None:
    ours, _theirs = both
    give(ours, [*UNKNOWN["prio with leaves and filters"], "filter add dev {0} parent 5: prio 9 basic classid 5:3"])
    before = ours.state()
    with pytest.raises(TestbedError, match="filters of kind basic, which could not be given back"):
        ours.run(FILTERS["one"], purge=True)
    assert ours.state() == before
