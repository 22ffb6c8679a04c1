# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module bridge: confirm a change over a fresh connection.

The module starts the change detached on the node and returns. Here the connection is dropped and made anew; when the
node answers, one bare command confirms, waits for the node's last word, and prints it. No answer means no
confirmation: the node then goes back by itself.
"""

from __future__ import annotations

import json
import shlex
import time
import uuid
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

APPLY_SECONDS = 120  # the longest that ifup may take on the node, DHCP included
RETRY_SECONDS = 1
# `mv` decides between confirming and giving up; each loop waits for a file that the node writes, some time at most
CONFIRM = """cd {place} || exit 3
n=0; while [ ! -e pending ] && [ ! -e status ] && [ $n -lt {tenths} ]; do n=$((n+1)); sleep 0.1; done
mv pending confirmed 2>/dev/null
n=0; while [ ! -e status ] && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done
cat status"""


class ActionModule(ActionBase):
    """Run the module, then confirm what it started."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result, completed by what the node says at the end."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {**self._task.args, "token": uuid.uuid4().hex}
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        result.pop("invocation", None)
        place = result.pop("pending", None)
        if place:
            within = float(arguments.get("confirm_within", 30))
            result.update(self._confirm(place, time.monotonic() + APPLY_SECONDS + 2 * within))
        return result

    def _confirm(self, place: str, end: float) -> dict[str, Any]:
        """Try fresh connections until the node tells how the change ended."""
        command = "/bin/sh -c " + shlex.quote(CONFIRM.format(place=shlex.quote(place), tenths=APPLY_SECONDS * 10))
        reason = ""
        while time.monotonic() < end:
            try:
                self._fresh_connection()
                answer = self._low_level_execute_command(command)
            except AnsibleConnectionFailure as error:
                reason = str(error)
                Display().vv(f"no answer yet, trying again: {reason}")
                time.sleep(RETRY_SECONDS)
                continue
            if answer["rc"] == 0:
                # the last line: before it, sshd or a profile may say something on the same terminal
                return _outcome(json.loads(answer["stdout"].strip().splitlines()[-1]))
            reason = (answer.get("stderr") or answer["stdout"]).strip()
            break
        return {
            "failed": True,
            "msg": f"the change was not confirmed ({reason}); without a confirmation the node goes back by itself",
        }

    def _fresh_connection(self) -> None:
        """Drop the connection with its ControlMaster, so that the next command needs a new one."""
        if hasattr(self._connection, "reset"):
            self._connection.reset()


def _outcome(status: dict[str, Any]) -> dict[str, Any]:
    """The node's last word as part of the task's result."""
    if status["outcome"] == "committed":
        return {"after": status["after"]}
    outcome = "the node went back to what it had before" if status["outcome"] == "reverted" else "the change failed"
    return {"failed": True, "changed": False, "after": status["after"], "msg": f"{outcome}: {status['message']}"}
