# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BPF program and its loader under other kernels: another verifier, and an interpreter instead of machine code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.bpf_program import give
from tests.integration.chroot import run_under
from tests.integration.uml import pytest_inside

FILES = [f"tests/integration/test_bpf_{name}.py" for name in ("program", "loader", "traffic")]
# What needs more CPUs than one, or shows nothing new here, is left to the machine's own kernel.
CHOSEN = "not checksums and not senders and not superpackets or by_device-as_it_was"


def test_under_uml(tmp_path: Path) -> None:
    """What fails in there is shown as it was printed in there."""
    give(tmp_path)
    outcome = pytest_inside(["-q", "-k", CHOSEN, *FILES], tmp_path)
    assert outcome.code == 0, outcome.output


@pytest.mark.long
@pytest.mark.timeout(700)
@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_under_the_kernel_of_another_release(tmp_path: Path, suite: str) -> None:
    """Linux 6.12 and newer, but for what needs a compiler there."""
    argv = ["python3", "-m", "pytest", "-c", "/dev/null", "--rootdir=/collection"]  # as pytest_under()
    argv += [
        "-o",
        "pythonpath=/collection",
        "-p",
        "no:cacheprovider",
        "--color=no",
        "-W",
        "ignore",
        "-q",
        "-k",
        "not four_senders",
        *FILES,
    ]
    outcome = run_under(suite, argv, 600, give(tmp_path))
    assert outcome.code == 0, outcome.output
