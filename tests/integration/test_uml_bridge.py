# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A User-Mode Linux on a TAP device of a host's bridge: one command brings it up and prints its table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.labs import processes
from tests.integration.places import Lab

pytestmark = [pytest.mark.lab, pytest.mark.sources]


def test_a_uml_on_a_bridge_is_measured_beside_the_sources_figures(tmp_path: Path) -> None:
    lab = Lab(f"bridgetest-{os.getpid()}", None, "inventories/uml-bridge")
    report = tmp_path / "triage.json"
    try:
        asked = {"triage_sizes": [], "triage_seconds": 1, "triage_report": str(report)}
        said = lab.playbook("triage", "-e", json.dumps(asked)).stdout
        assert any("transport=tap" in command and "umid=node1" in command for command in processes(lab).values())
        neighbours = lab.enter("node0", ["ip", "neighbour", "show", "192.168.1.101"]).stdout
        assert "dev br0 lladdr fe:fd:c0:a8:00:fd" in neighbours
    finally:
        lab.playbook("lab_down")
    found = json.loads(report.read_text())["modes"]["plain"]
    assert not found["failed"] and found["rtt"] > 0 and found["one_way"] > 0.1, said
    rows = [line.split() for line in said.splitlines()]
    assert any("plain" in row and row[-4:] == ["0.196-0.409", "50", "5.4", "13.5"] for row in rows), said
