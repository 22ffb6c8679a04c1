# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a long step is: a line in a file that somebody may watch, and nowhere else.

A module has no other way to speak before its end; the controller's part of the module shows the file's last line.
"""

from __future__ import annotations

import os
import time

EVERY = 1.0  # seconds between two lines


class Progress:
    """Writes `writing 45 %, 0.9 of 2.0 GB` to a file, at most once a second; without a path nothing."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._next = 0.0
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int = 0) -> None:
        """`total` 0: nobody knows. Both in bytes."""
        now = time.monotonic()
        if not self._path or (stage == self._stage and now < self._next):
            return
        self._stage, self._next = stage, now + EVERY
        shown = f"{stage}: {done * 100 // total} % of {size_text(total)}" if total else f"{stage}: {size_text(done)}"
        draft = f"{self._path}.draft"
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write(shown + "\n")
            os.replace(draft, self._path)
        except OSError:  # nobody can watch; the work goes on
            self._path = ""


def size_text(size: int) -> str:
    """As a card's label says it: powers of 1000."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
