# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module image_write: say how far it is, where the card is at this machine."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
EVERY = 5.0  # seconds between two lines on the screen


class ActionModule(ActionBase):
    """One module call, which tells a file how far it is."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if self._connection.transport != "local" or "progress" in arguments:
            result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
            return result
        with tempfile.TemporaryDirectory(prefix="impair-progress-") as folder:
            path = Path(folder, "progress")
            with _shown(path, str(arguments.get("hostname", ""))):
                arguments["progress"] = str(path)
                result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        return result


@contextlib.contextmanager
def _shown(path: Path, board: str) -> Iterator[None]:
    """Show the file's line every few seconds, where it has become another one."""
    end = threading.Event()

    def show() -> None:
        last = ""
        while not end.wait(EVERY):
            line = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            if line != last:
                display.display(f"  {board}: {line}")
                last = line

    watching = threading.Thread(target=show, daemon=True)
    watching.start()
    try:
        yield
    finally:
        end.set()
        watching.join()
