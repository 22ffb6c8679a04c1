# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netem and HTB to the tick where the kernel of `make kernel` is in the cache; else as exact as Debian's allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import PACKAGED, Kernel, built, exact, pytest_inside

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
    """All values; where time travels two kernels, one after the other, do the same to the nanosecond."""
    outcome = pytest_inside(["-q", "-rP", TESTS], folder, kernel=kernel)
    print(outcome.output)
    assert outcome.code == 0, outcome.output
    if kernel.time_travel:
        assert hundred_seconds(kernel, folder / "first") == hundred_seconds(kernel, folder / "second")


def hundred_seconds(kernel: Kernel, folder: Path) -> str:
    """Which packets came in a kernel of its own, and after how many nanoseconds."""
    folder.mkdir()
    outcome = pytest_inside(["-q", f"{TESTS}::test_a_hundred_seconds_take_two"], folder, kernel=kernel)
    assert outcome.code == 0, outcome.output
    return (folder / "series").read_text()
