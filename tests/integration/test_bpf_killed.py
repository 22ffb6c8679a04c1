# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed anywhere between loading a BPF program and taking it away: the next one converges, or clears."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from plugins.module_utils.bpf import files, syscall
from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside, namespace
from tests.integration.places import namespace_number
from tests.integration.program import compiled
from tests.integration.wire import sh
from tests.oracle import programs

CALLS = 80  # of bpf(2) that a run makes, at most
DEVICE = "t0"
CLASS: dict[str, Any] = {"name": "udp", "match": {"port": 7}, "drop": {"every": 3}}
ASKED: list[dict[str, Any]] = [{"name": DEVICE, "classes": [CLASS]}]
CHANGED: list[dict[str, Any]] = [{"name": DEVICE, "drop": {"pattern": "01"}}]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What others left is never old enough to be looked at, which takes calls by the hundred."""
    monkeypatch.setattr(files, "YOUNG", math.inf)
    load()
    with namespace(1) as made, inside(made):
        yield namespace_number()


def standing(place: str) -> str:
    shown = sh(f"tc qdisc show dev {DEVICE}") + programs.leaving(DEVICE)
    pins = f"/sys/fs/bpf/impair_testbed/{place}"
    return shown + (sh(f"ls {pins}") if os.path.exists(pins) else "")


def killed_at(number: int, what: Any) -> bool:
    """Whether a run in a process of its own was killed before its `number`th call of bpf(2)."""
    child = os.fork()
    if not child:
        left, call = [number], syscall.bpf

        def counted(*arguments: Any) -> int:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        vars(syscall)["bpf"] = counted
        code = 1
        try:
            what()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_before_any_call(place: str) -> None:
    program = compiled()
    before = standing(place)

    def applied(asked: list[dict[str, Any]]) -> engine.Outcome:
        return engine.apply(asked, [], program=program)

    number = 0
    while killed_at(number, lambda: applied(ASKED)):
        if number % 2:
            applied(ASKED)
            assert not applied(ASKED).report.changed
            shown = standing(place)
            assert shown.count(" name imp_") == 1 and "rules" in shown
            killed_at(number, lambda: applied(CHANGED))
            applied(CHANGED)
            assert standing(place).count(" name imp_") == 1
        else:
            killed_at(number // 2, engine.clear)
        engine.clear()
        assert standing(place) == before
        number += 1
    assert 10 < number < CALLS
    engine.clear()
    assert standing(place) == before


def every(folder: str) -> int:
    """What the kernel drops one of: the rule's word in the map that is looked at first."""
    (rule,) = json.loads(sh(f"bpftool -j map dump pinned {folder}/rules"))
    found = json.loads(sh(f"bpftool -j map lookup pinned {folder}/drops key hex {' '.join(rule['key'][:2])} 00 00"))
    return int.from_bytes(bytes(int(byte, 16) for byte in found["value"][:4]), sys.byteorder)


def test_a_value_that_was_half_written_is_written_by_the_next_run(place: str) -> None:
    program, folder = compiled(), f"/sys/fs/bpf/impair_testbed/{place}"

    def applied(number: int) -> None:
        engine.apply([{"name": DEVICE, "classes": [{**CLASS, "drop": {"every": number}}]}], [], program=program)

    applied(3)
    number, halves = 0, 0
    while killed_at(number, lambda: applied(5)):
        before = every(folder)
        (rule,) = json.loads(sh(f"bpftool -j map dump pinned {folder}/rules"))
        halves += [before, int(rule["value"][12], 16)] == [3, 5]  # struct rule: uses, zero, drop.kind, drop.every
        applied(5)
        assert every(folder) == 5
        applied(3)
        assert every(folder) == 3
        number += 1
    assert halves == 1
    engine.clear()


def test_pins_that_are_gone_are_made_again(place: str) -> None:
    """The program has its maps still: the count goes on, and nothing is loaded anew but the value that changes."""
    program = compiled()
    engine.apply(ASKED, [], program=program)
    shown = programs.leaving(DEVICE)
    sh(f"rm -r /sys/fs/bpf/impair_testbed/{place}")
    assert not engine.apply(ASKED, [], program=program).report.changed
    changed = [{"name": DEVICE, "classes": [{**CLASS, "drop": {"every": 5}}]}]
    assert len(engine.apply(changed, [], program=program).report.steps) == 1
    assert programs.leaving(DEVICE) == shown
    assert "rules" in standing(place)
    engine.clear()


def test_clear_finds_a_program_in_somebody_elses_qdisc_without_its_pins(place: str) -> None:
    program = compiled()
    sh(f"tc qdisc add dev {DEVICE} clsact")
    before = standing(place)
    engine.apply(ASKED, [], program=program)
    sh(f"rm -r /sys/fs/bpf/impair_testbed/{place}; rmdir /sys/fs/bpf/impair_testbed 2>/dev/null || true")
    engine.clear()
    assert standing(place) == before


def test_pins_of_another_version_are_replaced(place: str) -> None:
    """Values of another size would be read as something else."""
    program = compiled()
    engine.apply(ASKED, [], program=program)
    folder = f"/sys/fs/bpf/impair_testbed/{place}"
    sh(f"rm {folder}/rules", f"bpftool map create {folder}/rules type hash key 4 value 8 entries 4 name rules")
    sh(f"bpftool map update pinned {folder}/rules key 1 0 0 0 value 255 255 255 255 255 255 255 255")
    changed = [{"name": DEVICE, "classes": [{**CLASS, "drop": {"every": 5}}]}]
    assert engine.apply(changed, [], program=program).report.changed
    assert not engine.apply(changed, [], program=program).report.changed
    assert "value 8B" not in sh(f"bpftool map show pinned {folder}/rules")
    engine.clear()
    assert not os.path.exists(folder)
