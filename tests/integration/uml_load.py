# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hundred changes under load on a kernel with netem: test_load.py runs this in one; not collected elsewhere."""

from __future__ import annotations

from pathlib import Path

from tests.integration.load import DELAY, PORTS, hundred


def test_a_hundred_changes(tmp_path: Path) -> None:
    found = hundred(True, "load", tmp_path)
    assert [(flow.lost, flow.reordered) for flow in found.flows] == [(0, 0)] * PORTS, found
    assert min(flow.least for flow in found.flows) >= DELAY, "a packet came before its delay was over"
    assert not found.astray, found
    assert min(flow.sent for flow in found.flows) > 100, found
