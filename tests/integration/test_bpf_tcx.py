# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of impairments at TCX: beside what others have there, and on its way from and to clsact."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.capabilities import Capabilities, load
from plugins.module_utils.impairment import engine
from tests.integration import load as traffic
from tests.integration.engine import inside, namespace
from tests.integration.places import namespace_number
from tests.integration.program import compiled
from tests.integration.test_bpf_killed import killed_at
from tests.integration.wire import sh
from tests.oracle import programs

DEVICE = "t0"
ASKED: list[dict[str, Any]] = [{"name": DEVICE, "classes": [{"name": "counted", "drop": {"every": 5}}]}]
OTHER: list[dict[str, Any]] = [{"name": DEVICE, "classes": [{"name": "udp", "match": {"protocol": "udp"}}]}]
OTHER[0]["classes"][0]["drop"] = {"every": 5}
TCX = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (6, 6)
AT_TCX, AT_CLSACT = rf"tcx/egress dev {DEVICE} name imp_\w{{11}} id", r"pref 65111 bpf .* imp_\w{11} direct-action"
MOVES = 20
RATE = 10_000  # packets per second
BPF_FS = Path("/sys/fs/bpf")
NEXT, DROP = -1, 2  # TCX_NEXT, TCX_DROP


class OldKernel:
    """Turns TCX off, and on again, for the engine: what it makes meanwhile is what it makes on Linux 6.1."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._able = dict(load())

    def be(self, old: bool) -> None:
        able = {**self._able, **({"bpf.tcx": "TCX of Linux 6.6 or later"} if old else {})}
        self._patch.setattr(engine, "load", lambda: Capabilities(able))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> OldKernel:
    made = OldKernel(monkeypatch)
    assert (load()["bpf.tcx"] is True) == TCX
    return made


@pytest.fixture
def place(kernel: OldKernel) -> Iterator[None]:
    with namespace(1) as made, inside(made):
        before = standing()
        yield
        engine.clear()
        assert standing() == before
        assert not Path(f"/run/impair.testbed/before/{namespace_number()}").exists()


def standing() -> str:
    return sh(f"tc qdisc show dev {DEVICE}") + programs.leaving(DEVICE)


def apply(asked: list[dict[str, Any]]) -> list[str]:
    """The steps; check mode has foretold them, and there are none left."""
    foretold = engine.apply(asked, [], check=True, program=compiled()).report.steps
    steps = engine.apply(asked, [], program=compiled()).report.steps
    assert steps == foretold
    assert not engine.apply(asked, [], program=compiled()).report.changed
    return steps


def expect(old: bool = False) -> None:
    """One program, where it has to be."""
    shown = programs.leaving(DEVICE)
    wanted, other = (AT_TCX, AT_CLSACT) if TCX and not old else (AT_CLSACT, AT_TCX)
    assert re.search(wanted, shown), shown
    assert not re.search(other, shown), shown
    assert shown.count("name imp_") == 1


@pytest.mark.alone
def test_between_clsact_and_tcx_every_packet_is_counted_once(tmp_path: Path, kernel: OldKernel) -> None:
    """Exactly each fifth is missing, from the first to the last: none passed the program by, none passed two."""
    program = compiled()

    def move() -> None:
        time.sleep(0.2)
        for number in range(MOVES):
            kernel.be(old=number % 2 == 0)
            assert engine.apply(ASKED, [], program=program).report.changed == (TCX or not number)
            expect(old=number % 2 == 0)
            time.sleep(0.02)

    with traffic.ends(f"impair-tcx-{os.getpid()}") as places, inside(places[0]):
        try:
            sh(f"tc qdisc add dev {DEVICE} clsact")  # somebody else's: without queues for a moment, packets are lost
            engine.apply(ASKED, [], program=program)
            sent, came = traffic.Load(*places, tmp_path).numbers(RATE, move)
        finally:
            engine.clear()
        assert not programs.leaving(DEVICE)
    assert sent > MOVES * 100
    assert came == [number for number in range(sent) if number % 5 != 4]


def test_programs_of_others_at_tcx_stay_and_come_first(place: None) -> None:
    if not TCX:
        assert apply(ASKED)
        expect()
        return
    pins = [BPF_FS / f"impair-test-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for pin in pins:
            programs.pin(pin, NEXT)
        programs.attach(DEVICE, pins[0])
        apply(ASKED)
        first, ours = programs.at_tcx(DEVICE).splitlines()
        assert "name imp_" in ours and "imp_" not in first
        programs.attach(DEVICE, pins[1])
        last = programs.at_tcx(DEVICE).splitlines()[-1]
        steps = apply(OTHER)
        now = programs.at_tcx(DEVICE).splitlines()
        (name,) = re.findall(r" name (\S+)", now[1])
        assert [step for step in steps if step.startswith("bpftool net")] == [
            f"bpftool net attach tcx_egress name {name} dev {DEVICE} overwrite"
        ]
        assert (now[0], now[2]) == (first, last) and now[1] != ours
        engine.clear()
        assert programs.at_tcx(DEVICE).splitlines() == [first, last]
        for pin in pins:
            programs.detach(DEVICE, pin)
    finally:
        for pin in pins:
            pin.unlink(missing_ok=True)


def test_filters_of_others_before_ours_come_first(place: None) -> None:
    """TCX would be before them: the program stands in clsact while they are there, and moves when they go or come."""
    apply(ASKED)
    expect()
    own = f"filter add dev {DEVICE} egress pref 10 protocol all u32 match u32 0 0 flowid 1:1"
    sh(f"tc qdisc show dev {DEVICE} | grep -q clsact || tc qdisc add dev {DEVICE} clsact", f"tc {own}")
    steps = apply(ASKED)
    expect(old=True)
    if TCX:
        assert [step.split()[:3] for step in steps] == [
            ["bpftool", "net", "attach"],
            ["tc", "filter", "add"],
            ["bpftool", "net", "detach"],
        ]
    sh(f"tc filter del dev {DEVICE} egress pref 10")
    steps = apply(ASKED)
    expect()
    if TCX:
        assert [step.split()[:3] for step in steps] == [
            ["bpftool", "net", "attach"],
            ["tc", "filter", "del"],
            ["bpftool", "net", "attach"],
        ]
        assert "clsact" in standing(), "it is somebody else's"
        engine.clear()
        assert "clsact" in standing()
    sh(f"tc qdisc show dev {DEVICE} | grep -q clsact && tc qdisc del dev {DEVICE} clsact || true")


def test_an_ingress_qdisc_of_somebody_else_is_no_obstacle(place: None) -> None:
    sh(f"tc qdisc add dev {DEVICE} ingress")
    if TCX:
        apply(ASKED)
        expect()
        engine.clear()
    assert "qdisc ingress" in standing()
    sh(f"tc qdisc del dev {DEVICE} ingress")


def test_from_clsact_to_tcx_the_qdisc_that_was_made_goes(place: None, kernel: OldKernel) -> None:
    kernel.be(old=True)
    apply(ASKED)
    expect(old=True)
    assert "clsact" in standing()
    kernel.be(old=False)
    steps = apply(ASKED)
    expect()
    assert ("clsact" in standing()) != TCX
    if TCX:
        assert steps[-1].startswith(f"tc qdisc del dev {DEVICE} clsact  # disruptive: packets of that moment are lost")
        sh(f"tc qdisc add dev {DEVICE} clsact")  # somebody's, from now on
        engine.clear()
        assert "clsact" in standing() and not programs.leaving(DEVICE)
        sh(f"tc qdisc del dev {DEVICE} clsact")


def test_killed_on_the_way(place: None, kernel: OldKernel) -> None:
    """Before each seventh call of bpf(2): the next run finds the program in both places, in one, or in none."""
    for number in range(0, 100, 7):
        for old in (True, False):
            kernel.be(old=not old)
            engine.apply(ASKED, [], program=compiled())
            kernel.be(old=old)
            killed = killed_at(number, lambda: engine.apply(ASKED, [], program=compiled()))
            apply(ASKED)
            expect(old=old)
        if not killed:
            break
    assert not killed and number > 10
