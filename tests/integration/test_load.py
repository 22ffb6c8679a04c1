# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hundred changes under load: nothing is lost, nothing passes unimpaired, and nothing overtakes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.load import PORTS, hundred
from tests.integration.uml import pytest_inside


def test_a_hundred_changes_under_load_here(tmp_path: Path) -> None:
    """On this machine's own kernel, which need not have netem."""
    found = hundred(False, f"impair-load-{os.getpid()}", tmp_path)
    assert [(flow.lost, flow.reordered) for flow in found.flows] == [(0, 0)] * PORTS, found
    assert not found.astray, found
    assert min(flow.sent for flow in found.flows) > 100, found


def test_a_hundred_changes_under_load_with_netem(tmp_path: Path) -> None:
    """Everything of uml_load.py, on a kernel that has netem."""
    outcome = pytest_inside(["-q", "-rP", "tests/integration/uml_load.py"], tmp_path)
    print(outcome.output)
    assert outcome.code == 0, outcome.output
