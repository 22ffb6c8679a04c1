# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merge sets of addresses, compile the BPF program, apply an impairment, reconnect, confirm.

A node that cannot be reached any more takes the change back by itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ..module_utils.errors import TestbedError
from ..plugin_utils.addresses import in_interfaces, in_matches
from ..plugin_utils.programs import for_interfaces

PAUSE = 1.0  # seconds between two tries to reach the node


class ActionModule(ActionBase):
    """One module call, and one bare command over a new connection when the module changed something."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            arguments = _merged(self._task.args)
        except TestbedError as error:
            return {"failed": True, "msg": str(error)}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        command = result.get("confirm")
        if command and not result.get("failed"):
            result.update(self._confirm(command, self._task.args.get("confirm_within", 60)))
        return result

    def _confirm(self, command: str, within: Any) -> dict[str, Any]:
        """Confirm over a new connection, trying until the node has surely taken the change back."""
        deadline = time.monotonic() + float(within)
        reason = ""
        while time.monotonic() < deadline:
            try:
                self._connection.reset()
                answer = self._low_level_execute_command(command)
            except AnsibleConnectionFailure as error:
                reason = str(error)
                time.sleep(PAUSE)
                continue
            if answer["rc"] == 0:
                return {"confirm": ""}
            reason = answer["stderr"].strip() or answer["stdout"].strip()
            break
        return {
            "failed": True,
            "msg": "the change could not be confirmed over a new connection, so the node has taken it back or does so "
            f"within {within} s; is the controller's connection covered by impairment_management? "
            f"(last error: {reason})",
        }


def _merged(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The module's arguments with sets of addresses as networks, and the program. Raises InvalidInput."""
    found = dict(arguments)
    found["program"] = for_interfaces(found.get("interfaces"))
    if "interfaces" in found:
        found["interfaces"] = in_interfaces(found["interfaces"], "impairment_interfaces")
    for key in ("management", "calibration"):
        if key in found:
            found[key] = in_matches(found[key], f"impairment_{key}")
    return found
