# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab's run directory keeps."""

from __future__ import annotations

from pathlib import Path

from plugins.module_utils.lab.access import read_links, write_links
from plugins.module_utils.lab.model import End, Link


def test_links_come_back_as_written(tmp_path: Path) -> None:
    links = (Link("core", "tap", (End("r1", "eth1"), End("real", "", "enp3s0")), 9000),)
    assert read_links(tmp_path) == ()
    write_links(tmp_path, links)
    assert read_links(tmp_path) == links


def test_a_lab_of_an_earlier_version_can_be_ended(tmp_path: Path) -> None:
    (tmp_path / "links.json").write_text('[["network", "socket", [["laptop", "enp3s0"], ["master", "eth0"]]]]')
    assert read_links(tmp_path) == (Link("network", "socket", (End("laptop", "enp3s0"), End("master", "eth0"))),)
