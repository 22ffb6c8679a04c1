# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of chosen packets under QEMU: the kernel of boards and servers, which compiles BPF, on two processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.program import compiled
from tests.integration.qemu import pytest_inside

pytestmark = pytest.mark.minutes

FILE = "tests/integration/test_bpf_faults.py"


@pytest.mark.timeout(700)
def test_faults_under_qemu(tmp_path: Path) -> None:
    """Emulation is slow: one place in both families and four senders at once."""
    compiled()  # once, and here: emulation takes twenty seconds for it
    outcome = pytest_inside(["-q", "-k", "bridge and (20-7 or senders)", FILE], tmp_path, 650)
    assert outcome.code == 0, outcome.output


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_faults_under_qemu(tmp_path: Path) -> None:
    outcome = pytest_inside(["-q", FILE], tmp_path, 3500)
    assert outcome.code == 0, outcome.output
