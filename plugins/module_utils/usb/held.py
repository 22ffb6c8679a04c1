# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a character device of the node open (proc(5), fd)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import TestbedError

PROC = Path("/proc")
POLL = 0.05  # seconds


def wait_until_closed(number: str, seconds: float) -> None:
    """Until no process has the device open; `number` is its major:minor. Raises TestbedError with who has it."""
    device = os.makedev(*map(int, number.split(":")))
    end = time.monotonic() + seconds
    while holders := [f"{name} (pid {pid})" for pid, name in _holders(device)]:
        if time.monotonic() > end:
            raise TestbedError(f"{', '.join(holders)} did not close it within {seconds:g} s")
        time.sleep(POLL)


def _holders(device: int) -> Iterator[tuple[int, str]]:
    """A node that was removed from /dev is found as well. Processes end while they are looked at."""
    for process in PROC.iterdir():
        try:
            if process.name.isdigit() and any(_is(file, device) for file in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue


def _is(file: Path, device: int) -> bool:
    try:
        found = file.stat()
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == device
