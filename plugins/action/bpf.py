# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module bpf: compile the source, or read the object, and hand it over."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ..module_utils.errors import TestbedError
from ..plugin_utils import clang


class ActionModule(ActionBase):
    """One module call, with the object file in it."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            code = self._code()
        except (TestbedError, AnsibleError, OSError) as error:
            return {"failed": True, "msg": str(error)}
        arguments = {**self._task.args, **({"code": base64.b64encode(code).decode()} if code else {})}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result

    def _code(self) -> bytes:
        """The object file, nothing where the node has it or none is needed. Raises TestbedError, AnsibleError."""
        asked = self._task.args
        if asked.get("state", "present") == "absent" or (asked.get("source") and asked.get("object")):
            return b""  # what cannot be asked, the module tells
        if asked.get("source"):
            flags = asked.get("flags") or []
            more = [flags] if isinstance(flags, str) else map(str, flags)
            return clang.compile_program(Path(self._find_needle("files", asked["source"])), (*clang.FLAGS, "-g", *more))
        if asked.get("object") and not boolean(asked.get("remote_src", False)):
            return Path(self._find_needle("files", asked["object"])).read_bytes()
        return b""
