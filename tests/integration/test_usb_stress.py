# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/usb_stress.yml in the virtual lab: every way, its table and files, and the lane that bytes took."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.integration.places import CHECKOUT, Lab
from tests.integration.usb import PATIENT

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(2400)]
WAYS = ("native", "direct", "lane", "impaired")
DEVICE = "enx8cae4cf5b7ae"


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    made = Lab(f"stresstest-{os.getpid()}", CHECKOUT / "inventories/usb_stress", extra=[PATIENT])
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def test_every_way_is_measured_printed_and_written(own: Lab, tmp_path: Path) -> None:
    own.playbook("site", timeout=900)
    written = {"usb_stress_report": str(tmp_path / "found.json"), "usb_stress_plot": str(tmp_path / "plot.svg")}
    loops = {"usb_stress_remounts": 2, "usb_stress_messages": 21}
    said = own.playbook("usb_stress", "-e", json.dumps({**written, **loops}), timeout=1800).stdout
    table = re.findall(r"^ +(native|direct|lane|impaired) +(remount|cdc|hid) +(\d+) +(\d+) ", said, re.MULTILINE)
    assert [line[:2] for line in table] == [(way, test) for way in WAYS for test in ("remount", "cdc", "hid")], said
    assert [line[3] for line in table if line[0] == "native"] == ["0", "0", "0"], said

    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {(row["way"], row["first_connect"] is None) for row in rows} == {(way, way == "native") for way in WAYS}
    remounts = [row["median"] for row in rows if row["test"] == "remount" and row["median"]]
    assert remounts and min(remounts) >= 3.0  # the probe itself takes that long
    lines = [element for element in ElementTree.parse(tmp_path / "plot.svg").iter() if element.tag.endswith("polyline")]
    assert len(lines) == 12

    # The lane of all other traffic has carried what the way `impaired` sent; nothing else crosses this bridge.
    shown = own.run("master", ["tc", "-s", "class", "show", "dev", DEVICE]).stdout
    slow = re.findall(r"rate 128Kbit .*?\n Sent (\d+) bytes", shown)
    assert slow and int(slow[0]) > 10_000, shown
    assert "100Mbit" in shown  # afterwards all is as the inventory has it
    assert own.run("laptop", ["ls", "/dev/ttyACM0"], check=False).returncode != 0
