# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netem and HTB to the tick where the kernel of `make kernel` is in the cache; else as exact as Debian's allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import PACKAGED, Kernel, built, exact, pytest_inside

APART = 10_000  # ns; mostly it is nothing, and on a busy machine an interrupt of its own comes between (3.6 us seen)
TESTS = "tests/integration/uml_time_travel.py"


@pytest.mark.alone
def test_values_to_the_tick(tmp_path: Path) -> None:
    judge(exact(), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["packaged", "built", "built, time travel"])
def test_values_on_each_kernel(tmp_path: Path, name: str) -> None:
    """Those of the self-built one, which `make test-long` makes first, hold with and without time travel."""
    program = built()
    assert program, "`make kernel` builds it"
    kernels = {"packaged": PACKAGED, "built": Kernel(program), "built, time travel": Kernel(program, time_travel=True)}
    judge(kernels[name], tmp_path)


def judge(kernel: Kernel, folder: Path) -> None:
    """All values; where time travels a second start gives the same: which packets came, and when, to 10 us of 50 ms."""
    outcome = pytest_inside(["-q", "-rP", TESTS], folder, kernel=kernel)
    print(outcome.output)
    assert outcome.code == 0, outcome.output
    if kernel.time_travel:
        again = folder / "again"
        again.mkdir()
        outcome = pytest_inside(["-q", f"{TESTS}::test_a_hundred_seconds_take_two"], again, kernel=kernel)
        assert outcome.code == 0, outcome.output
        first, second = (series(run / "series") for run in (folder, again))
        assert len(first) > 8000 and first.keys() == second.keys()
        assert max(abs(first[number] - second[number]) for number in first) <= APART


def series(file: Path) -> dict[int, int]:
    """For how many nanoseconds each packet was held."""
    pairs = (line.split() for line in file.read_text().splitlines())
    return {int(number): int(ns) for number, ns in pairs}
