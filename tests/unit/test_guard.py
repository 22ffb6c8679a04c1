# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that nobody confirms is taken back by a process of its own, whatever became of the run that made it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plugins.module_utils import guard

DEADLINE = 10  # seconds that a test waits for a guard to act


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PENDING", tmp_path / "pending")
    monkeypatch.setattr(guard, "PLACE", str(tmp_path))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def noting(log: Path, word: str) -> Callable[[], None]:
    """A way back that leaves a word in the log: a guard is another process."""

    def take_back() -> None:
        with log.open("a") as file:
            file.write(f"{word} ")

    return take_back


def made(log: Path, word: str, within: float) -> guard.Pending:
    with guard.alone():
        return guard.arm(noting(log, word), within)


def ended(pending: guard.Pending) -> None:
    """Wait until nobody guards these changes any more."""
    deadline = time.monotonic() + DEADLINE
    while guard.PENDING.exists():
        assert time.monotonic() < deadline, f"still there: {pending.files}"
        time.sleep(0.02)


def test_unconfirmed_it_is_taken_back(log: Path) -> None:
    ended(made(log, "back", 0.1))
    assert log.read_text() == "back "


def test_confirmed_it_stays_and_a_second_confirmation_fails(log: Path) -> None:
    pending = made(log, "back", 0.5)
    assert subprocess.run(pending.command, shell=True, check=False).returncode == 0
    assert subprocess.run(pending.command, shell=True, stderr=subprocess.DEVNULL, check=False).returncode
    ended(pending)
    assert not log.exists()


def test_the_latest_change_is_taken_back_first(log: Path) -> None:
    made(log, "first", 0.1)
    ended(made(log, "second", 0.6))
    assert log.read_text() == "second first "


def test_a_confirmation_covers_the_changes_before(log: Path) -> None:
    made(log, "first", 0.5)
    pending = made(log, "second", 0.5)
    assert subprocess.run(pending.command, shell=True, check=False).returncode == 0
    ended(pending)
    assert not log.exists()


def test_a_change_that_was_not_made_leaves_those_before_it(log: Path) -> None:
    made(log, "first", 0.3)
    pending = made(log, "second", 0.3)
    pending.disarm()
    ended(pending)
    assert log.read_text() == "first "


def test_the_time_counts_from_the_end_of_the_run(log: Path) -> None:
    with guard.alone():
        pending = guard.arm(noting(log, "back"), 0)
        time.sleep(0.5)  # a long run: longer than its guard would wait
        assert pending.files[-1].exists()
    ended(pending)
    assert log.read_text() == "back "


def test_a_run_that_is_killed_is_taken_back(log: Path) -> None:
    child = os.fork()
    if child == 0:
        with guard.alone():
            guard.arm(noting(log, "back"), 0.1)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + DEADLINE
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with guard.alone():  # the one that was killed left no lock behind
        assert log.read_text() == "back "
