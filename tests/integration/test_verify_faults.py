# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify against faults of chosen packets by the BPF program: one port as asked, the other wrong in every class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.places import Lab

pytestmark = [pytest.mark.lab, pytest.mark.alone]
RIGHT, WRONG = "enx8cae4cf5b7ae", "eth0"  # master's two ports
# By the quantity that is asked: what is asked, and what the wrong port does in its place.
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "drop": ({"drop": {"pattern": "0010100"}}, {"drop": {"pattern": "0010010"}}),
    "loss": ({"drop": {"random": "10%"}}, {"drop": {"random": "20%"}}),
    "corrupt": ({"corrupt": {"every": 5, "offset": 8}}, {"corrupt": {"every": 4, "offset": 8}}),
    "duplicate": ({"duplicate": {"every": 10}}, {"duplicate": {"every": 11}}),
}


def interface(name: str, right: bool) -> dict[str, Any]:
    """A class for each fault."""
    classes = [
        {"name": quantity, "match": {"protocol": "udp", "port": 5001 + number}, **fault[not right]}
        for number, (quantity, fault) in enumerate(FAULTS.items())
    ]
    return {"name": name, "classes": classes}


@pytest.fixture(scope="module")
def judged(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What verify said about the two sides, and its rows."""
    folder = tmp_path_factory.mktemp("verify")
    asked, made, report = folder / "asked.json", folder / "made.json", folder / "rows.json"
    only_master = {"impairment_interfaces": "{{ on_master if inventory_hostname == 'master' else [] }}"}
    made.write_text(json.dumps({**only_master, "on_master": [interface(RIGHT, True), interface(WRONG, False)]}))
    how = {"measure_calibration": "ready", "measure_report": str(report)}
    asked.write_text(json.dumps({**only_master, **how, "on_master": [interface(RIGHT, True), interface(WRONG, True)]}))
    try:
        lab.playbook("site", "-e", f"@{made}")
        done = lab.playbook("verify", "-e", f"@{asked}", check=False)
        assert report.exists(), done.stdout + done.stderr
        yield done.stdout, json.loads(report.read_text())
    finally:
        lab.playbook("clear")


def verdicts(rows: list[dict[str, Any]], name: str) -> dict[tuple[str, str], bool]:
    return {(row["class"], row["quantity"]): row["ok"] for row in rows if row["interface"] == name}


def test_what_is_as_asked_passes(judged: tuple[str, list[dict[str, Any]]]) -> None:
    output, rows = judged
    found = verdicts(rows, RIGHT)
    assert {(quantity, quantity) for quantity in FAULTS} <= set(found), output
    assert [key for key, ok in found.items() if not ok] == [], output


def test_what_is_wrong_fails_and_nothing_else(judged: tuple[str, list[dict[str, Any]]]) -> None:
    output, rows = judged
    assert {key for key, ok in verdicts(rows, WRONG).items() if not ok} == {(one, one) for one in FAULTS}, output
