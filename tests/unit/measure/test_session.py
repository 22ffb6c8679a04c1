# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's memory between tasks, second tries, and the compiled probe."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.module_utils.errors import StepFailed
from plugins.module_utils.measure import probe
from plugins.module_utils.measure.schedule import Limits
from plugins.module_utils.measure.session import Session, parse_events
from tests.unit.measure.original import DEVICE, lab_with

SOURCES = Path(__file__).resolve().parents[3] / "files" / "probe"
SLOW = [{"name": "slow", "match": {"bridged": True}, "delay": "50ms"}]


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session.plan(lab_with(SLOW, DEVICE, "eth0").nodes, Limits())
    yield made
    shutil.rmtree(made.directory)


def answered(session: Session, flow: int, extra_ms: float) -> None:
    """The sender says that requests took so much longer through the class."""
    times = {"us": [300 + int(1000 * extra_ms)] * 50, "unimpaired_us": [300] * 50}
    sender = session.flows[flow].sender
    session.add(sender, "events", (json.dumps({"event": "rtt", "flow": flow, **times}) + "\n").encode())


def test_the_plan_is_read_back(session: Session) -> None:
    again = Session(session.directory)
    assert again.flows == session.flows
    assert again.run == session.run
    assert [stage.name for stage in again.first] == ["delay", "packets"]
    assert set(session.scripts("laptop")) == {0, 1, 2}  # and the second try of its own class
    assert session.watch_line("laptop").startswith("watch ")


def test_nothing_is_repeated_where_all_is_well(session: Session) -> None:
    for flow in session.flows:
        answered(session, flow, 50)
    assert all(row.ok for row in session.judge(0))
    assert session.again() == []


def test_a_second_try_takes_the_place_of_the_first(session: Session) -> None:
    answered(session, 1, 50)
    answered(session, 2, 57)
    assert [row.ok for row in session.judge(0)] == [True, False]
    (number,) = session.again()
    assert session.stages[number].name == "delay 2"
    answered(session, 2, 50.2)
    (row,) = session.judge(number)
    assert row.ok
    assert "measured again, alone; first 57.00ms" in row.note
    assert [one.ok for one in session.rows()] == [True, True]


def test_a_second_failure_stands(session: Session) -> None:
    answered(session, 1, 57)
    session.judge(0)
    number = session.again()[0]
    answered(session, 1, 58)
    session.judge(number)
    (first, _second) = session.rows()
    assert not first.ok
    assert first.got == "58.00ms"


def test_the_first_try_does_not_count_in_the_second(session: Session) -> None:
    answered(session, 1, 50)
    answered(session, 2, 57)
    session.judge(0)
    (number,) = session.again()
    (row,) = session.judge(number)  # no answer came in the second try
    assert not row.ok
    assert "too few answers" in row.note


def test_what_the_probe_complains_about(session: Session) -> None:
    session.add(
        "slave", "events", b'{"event": "watched", "records": 10, "dropped": 3}\n{"event": "error", "error": "no'
    )
    assert session.problems() == ["slave: the recorder missed 3 frames"]
    assert parse_events(b'{"event": "full"}\n{"ev') == [{"event": "full"}]


def test_superpackets_of_the_run_are_warned_of(session: Session) -> None:
    place = {"interface": "eth0", "direction": "egress", "class": "slow"}
    before = {"rule": 1, **place, "seen": 1000, "superpackets": 7, "segments": 70}
    session.add("master", "rules", json.dumps([before]).encode())
    assert session.superpackets("master", [{**before, "seen": 3000}]) == []
    (text,) = session.superpackets("master", [{**before, "seen": 3000, "superpackets": 9, "segments": 100}])
    assert text.startswith("master: eth0 egress, class slow: 2 of 2000 packets were superpackets, so 30 packets")
    (text,) = session.superpackets("slave", [before])
    assert text.startswith("slave: eth0 egress, class slow: 7 of 1000 packets")


def test_the_probe_is_compiled_once(tmp_path: Path) -> None:
    program = probe.compiled(SOURCES, tmp_path)
    made = program.stat().st_mtime_ns
    assert probe.compiled(SOURCES, tmp_path).stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.iterdir()] == [program.name]
    assert subprocess.run([program], capture_output=True, check=False).returncode == 2  # says how it is used


def test_another_source_is_another_program(tmp_path: Path) -> None:
    changed = tmp_path / "sources"
    shutil.copytree(SOURCES, changed)
    assert probe.digest(changed) == probe.digest(SOURCES)
    (changed / "clock.c").write_text("this is no C\n")
    assert probe.digest(changed) != probe.digest(SOURCES)
    with pytest.raises(StepFailed, match="clock"):
        probe.compiled(changed, tmp_path / "cache")
