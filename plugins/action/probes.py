# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module probes: compile the programs, and hand them over."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils.errors import TestbedError
from ..plugin_utils import clang

SOURCE = Path(__file__).resolve().parents[2] / "files" / "bpf" / "observe.c"


class ActionModule(ActionBase):
    """One module call, with the object file in it."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            code = clang.compile_program(SOURCE, (*clang.FLAGS, "-g"))
        except (TestbedError, OSError) as error:
            return {"failed": True, "msg": str(error)}
        arguments = {**self._task.args, "code": base64.b64encode(code).decode()}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
