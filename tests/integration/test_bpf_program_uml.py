# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BPF program and its loader under other kernels: another verifier, and an interpreter instead of machine code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.bpf_program import give
from tests.integration.chroot import run_under
from tests.integration.uml import pytest_inside

FILES = [f"tests/integration/test_bpf_{name}.py" for name in ("program", "loader", "traffic")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file).stem)
def test_under_uml(tmp_path: Path, file: str) -> None:
    """What fails in there is shown as it was printed in there."""
    give(tmp_path)
    outcome = pytest_inside(["-q", file], tmp_path)
    assert outcome.code == 0, outcome.output


@pytest.mark.long
@pytest.mark.timeout(700)
@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_under_the_kernel_of_another_release(tmp_path: Path, suite: str) -> None:
    """Linux 6.12 and newer, but for what needs a compiler there."""
    argv = [Path(sys.executable).name, "-m", "pytest", "-c", "/dev/null", "--rootdir=/collection"]
    argv += ["-o", "pythonpath=/collection", "-p", "no:cacheprovider", "--color=no", "-W", "ignore", "-q", *FILES]
    outcome = run_under(suite, argv, 600, give(tmp_path))
    assert outcome.code == 0, outcome.output
