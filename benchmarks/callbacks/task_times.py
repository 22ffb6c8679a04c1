# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what every task took, by its name, to the file that TASK_TIMES names."""

from __future__ import annotations

DOCUMENTATION = """
name: task_times
type: aggregate
short_description: seconds of every task, as JSON
description: For the benchmarks of this collection.
"""

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._taken: dict[str, list[float]] = {}
        self._started = 0.0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._started = time.perf_counter()

    def v2_runner_on_ok(self, result: Any) -> None:
        name = result.task.get_name().split(" : ")[-1]
        self._taken.setdefault(name, []).append(time.perf_counter() - self._started)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        with open(os.environ["TASK_TIMES"], "w", encoding="utf-8") as file:
            json.dump(self._taken, file)
