# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of chosen packets, and programs of a user's own, under User-Mode-Linux: a kernel that interprets BPF, and can
send what arrives to an IFB."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import pytest_inside

pytestmark = pytest.mark.minutes

# Of the places and patterns two; the machine's own kernel meets them all.
CHOSEN = "not router and not nth and not pattern or bridge and (20-7 or 2-0 or 1101)"


def test_faults_under_uml(tmp_path: Path) -> None:
    """What fails in there is shown as it was printed in there."""
    outcome = pytest_inside(["-q", "-k", CHOSEN, "tests/integration/test_bpf_faults.py"], tmp_path)
    assert outcome.code == 0, outcome.output


def test_programs_of_a_users_own_under_uml(tmp_path: Path) -> None:
    """Its verifier's log ends where it is full (Linux 6.1)."""
    chosen = "every_nth or another_program or verdict or place or verifier"
    files = ["tests/integration/test_bpf_module.py", "tests/integration/test_bpf_errors.py"]
    outcome = pytest_inside(["-q", "-k", chosen, *files], tmp_path)
    assert outcome.code == 0, outcome.output


def test_drops_by_nftables_under_uml(tmp_path: Path) -> None:
    """On a kernel whose filters see marks too."""
    outcome = pytest_inside(["-q", "-k", "matches or second", "tests/integration/test_drop_by_nft.py"], tmp_path)
    assert outcome.code == 0, outcome.output
