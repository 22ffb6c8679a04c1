# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of chosen packets, by BPF and nftables, and programs of a user's own, under User-Mode-Linux: a kernel that
interprets BPF, and can send what arrives to an IFB."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import pytest_inside

pytestmark = pytest.mark.minutes

# What shows something new on this kernel; of the places and patterns two, as the machine's own kernel meets them all.
# Its verifier's log ends where it is full (Linux 6.1), and its filters of nftables see marks too.
CHOSEN = {
    "test_bpf_faults": "not router and not nth and not pattern or bridge and (20-7 or 2-0 or 1101)",
    "test_bpf_module": "every_nth or another_program or verdict or place",
    "test_bpf_errors": "verifier or place",
    "test_drop_by_nft": "matches or second",
}


def test_under_uml(tmp_path: Path) -> None:
    """All in one kernel: to start it and pytest takes as long as many a test. What fails in there is shown as it was
    printed in there."""
    chosen = " or ".join(f"{file} and ({tests})" for file, tests in CHOSEN.items())
    outcome = pytest_inside(["-q", "-k", chosen, *(f"tests/integration/{file}.py" for file in CHOSEN)], tmp_path)
    assert outcome.code == 0, outcome.output
