# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stood before us, remembered on the node until clear gives it back.

Kernel state is kept below /run, which forgets at a reboot as the kernel does; files are kept below /var/lib.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .namespace import number

KERNEL = Path("/run/impair.testbed/before")
FILES = Path("/var/lib/impair.testbed/before")


class Memory:
    """A folder of small JSON records, each written whole or not at all."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: else that of the network namespace that we are in, as nodes may share a kernel and its /run."""
        self._folder = folder or KERNEL / f"{number():x}"

    def recall(self, key: str) -> Any:
        """The record, or None."""
        try:
            return json.loads(self._path(key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def remember(self, key: str, record: Any, renew: bool = False) -> None:
        """Keep the record unless one is kept already: the first is what stood before us. `renew` replaces that."""
        path = self._path(key)
        if path.exists() and not renew:
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def forget(self, key: str) -> None:
        """Drop the record, and the folders that it leaves empty."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:3]:
            try:
                folder.rmdir()
            except OSError:
                return

    def keys(self, prefix: str) -> list[str]:
        """Keys that are kept, in order."""
        return sorted(path.stem for path in self._folder.glob(f"{prefix}*.json"))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
