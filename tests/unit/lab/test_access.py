# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab's run directory keeps."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from plugins.module_utils.lab.access import locked, read_links, write_links
from plugins.module_utils.lab.model import End, Link


def test_links_come_back_as_written(tmp_path: Path) -> None:
    links = (Link("core", "tap", (End("r1", "eth1"), End("real", "", "enp3s0")), 9000),)
    assert read_links(tmp_path) == ()
    write_links(tmp_path, links)
    assert read_links(tmp_path) == links


def test_a_lab_of_an_earlier_version_can_be_ended(tmp_path: Path) -> None:
    (tmp_path / "links.json").write_text('[["network", "socket", [["laptop", "enp3s0"], ["master", "eth0"]]]]')
    assert read_links(tmp_path) == (Link("network", "socket", (End("laptop", "enp3s0"), End("master", "eth0"))),)


def busy(path: Path) -> bool:
    """Whether somebody has the lock, by flock(2)."""
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def test_a_lab_waits_for_itself_and_for_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "impair.testbed"
    one, other = folder / "one", folder / "other"
    with locked(one):
        assert busy(folder / ".one.lock")
        with locked(other):
            other.mkdir()
        assert (folder / ".other.lock").exists()
        assert not busy(folder / ".other.lock")
    assert sorted(path.name for path in folder.iterdir()) == [".other.lock", "other"]
    with locked(other):
        other.rmdir()
    assert not folder.exists()


def test_a_lock_that_went_with_its_lab_is_made_anew(tmp_path: Path) -> None:
    """Many at once, each of whom removes lock and folder at its end: never two inside."""
    lab = tmp_path / "impair.testbed" / "one"
    inside: list[int] = []
    seen: list[int] = []

    def work(number: int) -> None:
        for _round in range(20):
            with locked(lab):
                inside.append(number)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 120
    assert not lab.parent.exists()
