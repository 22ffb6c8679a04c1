# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control flow on domains of lists: order, roll-back, check mode."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from plugins.module_utils.converge import Step, Target, converge, revert
from plugins.module_utils.errors import NotConverged, RolledBack, StepFailed

State = tuple[str, ...]


class Shelf:
    """A domain whose state is a set of words; `log` has what was done on all shelves."""

    def __init__(self, name: str, log: list[str], state: State = (), refuses: str = "", ignores: str = "") -> None:
        self.name, self._log, self.state = name, log, state
        self._refuses, self._ignores = refuses, ignores

    def observe(self) -> State:
        return self.state

    def plan(self, current: State, desired: State) -> list[Step]:
        added = [Step(f"{self.name}+{word}", (word, True)) for word in desired if word not in current]
        gone = [Step(f"{self.name}-{word}", (word, False), retire=True) for word in current if word not in desired]
        return added + gone

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            word, here = step.payload
            if word == self._refuses and here:
                raise StepFailed(step.command, "refused")
            self._log.append(step.command)
            if word != self._ignores:
                self.state = (*self.state, word) if here else tuple(known for known in self.state if known != word)

    def describe(self, state: State) -> list[str]:
        return [f"{self.name}:{word}" for word in state]


def test_adding_goes_forward_and_taking_away_backward() -> None:
    log: list[str] = []
    first, second = Shelf("a", log, ("old",)), Shelf("b", log, ("old",))
    report = converge([Target(first, ("new",)), Target(second, ("new",))])
    assert log == report.steps == ["a+new", "b+new", "b-old", "a-old"]
    assert (report.changed, report.before, report.after) == (True, ["a:old", "b:old"], ["a:new", "b:new"])
    assert converge([Target(first, ("new",)), Target(second, ("new",))]).steps == []
    assert revert([Target(first, ()), Target(second, ())], report.states).changed
    assert first.state == second.state == ("old",)


def test_check_mode_foretells_and_touches_nothing() -> None:
    log: list[str] = []
    shelf = Shelf("a", log, ("old",))
    report = converge([Target(shelf, ("new",))], check=True)
    assert (report.changed, report.steps, report.after, log) == (True, ["a+new", "a-old"], ["a:old"], [])


def test_a_refusal_rolls_every_domain_back() -> None:
    log: list[str] = []
    first, second = Shelf("a", log, ("old",)), Shelf("b", log, refuses="new")
    with pytest.raises(RolledBack, match=r"`b\+new` failed: refused \(the state before was restored\)") as caught:
        converge([Target(first, ("new",)), Target(second, ("new",))])
    assert caught.value.restored
    assert (first.state, second.state) == (("old",), ())


def test_what_reads_back_differently_is_an_error() -> None:
    log: list[str] = []
    shelf = Shelf("a", log, ("old",), ignores="new")
    with pytest.raises(RolledBack, match=r"reads back differently; still to do: a\+new") as caught:
        converge([Target(shelf, ("old", "new"))])
    assert isinstance(caught.value.cause, NotConverged)
    assert shelf.state == ("old",)


def test_a_roll_back_that_fails_says_so() -> None:
    log: list[str] = []
    first, second = Shelf("a", log, ("old",), refuses="old"), Shelf("b", log, ignores="new")
    with pytest.raises(RolledBack, match=r"restoring the state before failed as well: .*a\+old") as caught:
        converge([Target(first, ()), Target(second, ("new",))])
    assert not caught.value.restored
