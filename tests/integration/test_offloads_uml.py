# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offloads under User-Mode-Linux, an older kernel."""

from __future__ import annotations

from pathlib import Path

from tests.integration.uml import pytest_inside


def test_offloads_under_uml(tmp_path: Path) -> None:
    """What fails in there is shown as it was printed in there."""
    outcome = pytest_inside(
        ["-q", "-k", "bridge and (dropped or gathered or itself)", "tests/integration/test_offloads.py"], tmp_path
    )
    assert outcome.code == 0, outcome.output
