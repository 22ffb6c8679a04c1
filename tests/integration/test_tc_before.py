# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was there before: kept, named when it is in the way, given back; also when the engine is killed on the way."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from plugins.module_utils import netlink
from plugins.module_utils.errors import ForeignState, RolledBack
from plugins.module_utils.impairment import engine as impairment
from tests.integration.engine import Bench, inside, namespace, watched
from tests.integration.test_tc import ONE, TREES, TWO, htb
from tests.oracle import tc as oracle

FOREIGN = {
    "tbf": ["qdisc add dev {0} root handle 7: tbf rate 5mbit burst 7kb limit 90kb"],
    "pfifo": ["qdisc add dev {0} root handle 8: pfifo limit 33"],
    "classes and filters": [
        "qdisc add dev {0} root handle 2: htb default 0x3",
        "class add dev {0} parent 2: classid 2:3 htb rate 1mbit ceil 4mbit",
        "class add dev {0} parent 2:3 classid 2:4 htb rate 1mbit prio 3",
        "qdisc add dev {0} parent 2:4 handle 44: bfifo limit 5000",
        "filter add dev {0} parent 2: prio 5 protocol ip u32 match ip dport 22 0xffff flowid 2:4",
        "filter add dev {0} parent 2: prio 3 protocol ip u32 match ip dport 23 0xffff flowid 2:4",
        "filter add dev {0} parent 2: prio 3 protocol ip u32 match ip dport 24 0xffff flowid 2:4",
        "filter del dev {0} parent 2: prio 3 protocol ip handle 801::800 u32",
    ],
}
TREE = TREES["leaves"]


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, benches: list[Bench]) -> Bench:
    bench = benches[0]
    give(bench, FOREIGN[request.param])
    return bench


def give(bench: Bench, lines: list[str]) -> None:
    """Make what somebody else has on the interface."""
    bench.tc([line.format(bench.device) for line in lines])


def test_a_foreign_root_is_refused_by_its_name_and_stays(foreign: Bench) -> None:
    before = foreign.state()
    with watched(foreign.place) as seen:
        for check in (True, False):
            with pytest.raises(ForeignState, match=rf"root of {foreign.device} already holds `qdisc \w+ \d:`"):
                foreign.run(TREE, check=check)
        assert not foreign.run(state="absent").changed
        assert seen() == []
    assert foreign.state() == before


def test_purge_replaces_a_foreign_root_and_absent_gives_it_back(foreign: Bench) -> None:
    before, shown = foreign.state(), foreign.show()
    foreign.run(TREE, purge=True)
    foreign.run(TREES["quantum"])  # ours by now: no purge is needed
    assert foreign.run(state="absent", check=True).changed
    assert foreign.state() != before
    foreign.run(state="absent")
    assert (foreign.state(), foreign.show()) == (before, shown)
    with pytest.raises(ForeignState):
        foreign.run(TREE)
    assert not foreign.run(state="absent").changed


def test_a_failed_change_is_rolled_back_to_the_foreign_root(foreign: Bench) -> None:
    before, shown = foreign.state(), foreign.show()
    wrong = htb(ONE, filters=[{"match": ["u32 0 0"], "flowid": "1:1", "indev": "no-such-device"}])
    with pytest.raises(RolledBack, match=r"the state before was restored"):
        foreign.run(wrong, purge=True)
    assert (foreign.state(), foreign.show()) == (before, shown)
    with pytest.raises(ForeignState):
        foreign.run(TREE)


def test_a_failed_change_is_rolled_back_to_our_tree(benches: list[Bench]) -> None:
    ours = benches[0]
    for name in TREES:
        ours.run(TREES[name])
        before = ours.state()
        wrong = htb(ONE, TWO, filters=[{"match": ["u32 0 0"], "flowid": "1:1", "indev": "no-such-device", "prio": 99}])
        with pytest.raises(RolledBack, match=r"the state before was restored"):
            ours.run(wrong)
        assert ours.state() == before, name


def test_ingress_of_others_stays(benches: list[Bench]) -> None:
    ours = benches[0]
    ours.tc([f"qdisc add dev {ours.device} clsact", f"filter add dev {ours.device} ingress prio 1 u32 match u32 0 0"])
    before = ours.show(["ffff:"])
    ours.run(TREE)
    ours.run(TREES["u32 several in one prio"])
    ours.run(state="absent")
    assert ours.show(["ffff:"]) == before
    ours.tc([f"qdisc del dev {ours.device} clsact"])


INGRESS: oracle.Tree = {
    "qdiscs": [{"kind": "clsact"}],
    "filters": [{"parent": "ingress", "prio": 9, "kind": "u32", "match": ["ip dport 9 0xffff"], "flowid": "1:1"}],
}
BOTH: oracle.Tree = {**TREE, "qdiscs": [*TREE["qdiscs"], *INGRESS["qdiscs"]], "filters": INGRESS["filters"]}
FILTERED = [
    "qdisc add dev {0} ingress",
    "filter add dev {0} ingress prio 1 protocol ip u32 match ip dport 1 0xffff flowid 1:1",
]
QUEUED = ["qdisc add dev {0} root handle 7: pfifo limit 17"]


def test_ingress_that_the_tree_asks_for_is_ours_and_goes_by_absent(benches: list[Bench]) -> None:
    ours = benches[0]
    give(ours, QUEUED)
    before = ours.state()
    ours.run(INGRESS)  # leaves alone what it does not name: no purge is needed
    assert len(ours.state()) > len(before)
    assert [line for line in ours.state() if line in before] == before
    assert ours.run(state="absent").changed
    assert ours.state() == before
    assert not ours.run(state="absent").changed


def test_ingress_that_was_ours_goes_with_a_tree_that_has_none(benches: list[Bench]) -> None:
    ours, theirs, *_more = benches
    theirs.make(TREE)
    ours.run(BOTH)
    ours.run(TREE)
    assert ours.state() == theirs.state()
    give(ours, FILTERED)  # by somebody else, on a side that we have given up
    with_theirs = ours.state()
    ours.run(TREE)
    assert ours.state() == with_theirs
    ours.run(state="absent")
    assert len(ours.state()) == len(with_theirs) - len(theirs.state())


def test_a_foreign_ingress_is_refused_purged_and_given_back(benches: list[Bench]) -> None:
    ours = benches[0]
    give(ours, FILTERED)
    before = ours.state()
    for asked in (INGRESS, BOTH):
        with pytest.raises(ForeignState, match=rf"ingress of {ours.device} already holds `qdisc ingress ffff:`"):
            ours.run(asked)
    assert ours.state() == before
    ours.run(TREE)
    ours.run(BOTH, purge=True)
    ours.run(TREE)
    ours.run(state="absent")
    assert ours.state() == before
    with pytest.raises(ForeignState):
        ours.run(INGRESS)


def test_a_foreign_action_is_given_back(benches: list[Bench]) -> None:
    ours = benches[0]
    redirect = "action mirred egress redirect dev p1"
    give(ours, [FILTERED[0], f"filter add dev {{0}} ingress prio 1 u32 match u32 0 0 {redirect}"])
    before = ours.show(["ffff:fff2"])
    assert ours.run(INGRESS, purge=True).changed
    assert not any("mirred" in line for line in ours.show(["ffff:fff2"]))
    ours.run(state="absent")
    assert ours.show(["ffff:fff2"]) == before


def test_an_empty_ingress_of_others_is_used_and_given_back(benches: list[Bench]) -> None:
    ours = benches[0]
    give(ours, FILTERED[:1])
    before = ours.state()
    assert any("disruptive" in step for step in ours.run(INGRESS).steps)
    ours.run(state="absent")
    assert ours.state() == before


def test_a_failed_first_run_on_ingress_leaves_it_to_others(benches: list[Bench]) -> None:
    ours = benches[0]
    ours.run(TREE)
    filters = [{**INGRESS["filters"][0], "indev": "no-such-device"}]
    with pytest.raises(RolledBack, match=r"the state before was restored"):
        ours.run({**BOTH, "filters": filters})
    give(ours, FILTERED)
    before = ours.state()
    ours.run(TREE)
    assert ours.state() == before


def test_an_interface_made_anew_under_the_same_name_has_no_past(benches: list[Bench]) -> None:
    ours = benches[0]
    ours.tc([f"qdisc add dev {ours.device} root handle 8: pfifo limit 33"])
    ours.run(TREE, purge=True)
    ours.typed(
        f"ip link del {ours.device}; ip link add {ours.device} type veth peer name p0; ip link set {ours.device} up"
    )
    again = Bench(ours.place, ours.prompt, ours.device, ours.folder)
    assert not again.run(state="absent").changed
    again.tc([f"qdisc add dev {again.device} root handle 9: pfifo limit 44"])
    before = again.state()
    again.run(TREE, purge=True)
    again.run(state="absent")
    assert again.state() == before
    again.clear()


# --- killed on the way ------------------------------------------------------------------------------------------------


def run_until_killed(bench: Bench, tree: oracle.Tree, sends: int, **more: Any) -> bool:
    """Run in a process of its own that is killed by SIGKILL before its nth message; whether it came to an end."""
    child = os.fork()
    if not child:
        left = sends

        class Mortal(netlink.Socket):
            def send(self, messages: Any, stop_at_refusal: bool = True) -> Any:
                nonlocal left
                refusals = []
                for message in messages:
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                    refusals += super().send([message])
                return refusals

        from plugins.modules import tc as module

        module.Socket = Mortal  # type: ignore[misc]
        try:
            bench.run(tree, **more)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, TREE),
        (TREE, TREES["u32 several in one prio"]),
        (TREES["u32 several in one prio"], TREES["children, prio on the inner class"]),
        (TREES["children, prio on the inner class"], htb({**ONE, "prio": 2}, TWO)),
    ],
)
@pytest.mark.parametrize("kind", ["tbf", "classes and filters"])
def test_killed_at_any_step_the_next_run_gets_there(
    benches: list[Bench], kind: str, first: oracle.Tree | None, second: oracle.Tree
) -> None:
    ours, theirs, other, _unused = benches
    for bench in (ours, other):
        give(bench, FOREIGN[kind])
    theirs.make(second)
    foreign = ours.state()
    ended, sends = False, 0
    while not ended:
        sends += 1
        if first:
            ours.run(first, purge=True)
        ended = run_until_killed(ours, second, sends, purge=True)
        ours.run(second, purge=True)
        assert ours.state() == theirs.state()
        ended &= run_until_killed(ours, oracle.NOTHING, sends, state="absent")
        ours.run(state="absent")
        assert ours.state() == foreign
        assert other.state() == foreign
    assert sends > 4


def test_nothing_is_remembered_of_a_namespace_that_ended() -> None:
    """Ended without clear; the kernel soon gives another namespace the number of its file."""
    asked = [{"name": "t0", "rate": "1mbit"}]
    seen = set()
    for limit in range(100, 160):
        with namespace(1) as place, inside(place):
            place.run(["tc", "qdisc", "add", "dev", "t0", "root", "handle", "8:", "pfifo", "limit", str(limit)])
            impairment.apply(asked, [], purge=True)
            number = os.stat("/proc/thread-self/ns/net").st_ino
            again = number in seen
            seen.add(number)
            if again:
                impairment.clear()
                shown = place.run(["tc", "qdisc", "show", "dev", "t0"]).stdout
                assert shown.startswith("qdisc pfifo 8: root ") and f" limit {limit}p" in shown, shown
                return
        time.sleep(0.1)
    pytest.fail("no number came twice")
