# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module bridge: confirm a change over a fresh connection.

The module starts the change detached on the node and returns. Here the connection is dropped and made anew until the
node says that the change stands; one bare command over one more connection confirms, and prints the node's last word.
No answer means no confirmation: the node then goes back by itself.
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
RETRY_SECONDS = 0.5
NOT_YET = 75
# Neither command waits for the change: one that is sent before it would be carried out after it, and confirm
# what nobody can reach. `mv` decides between confirming and giving up; then the node's last word is at hand.
LOOK = "cd {place} || exit 3; [ -e pending ] || cat status 2>/dev/null || exit {not_yet}"
CONFIRM = """cd {place} || exit 3
mv pending confirmed 2>/dev/null
n=0; while [ ! -e status ] && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done
cat status"""
TIDY = "cd {place} && cd .. && rm -r {place} && rmdir -p $PWD 2>/dev/null; true"  # as far up as nothing else is there


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
            if "after" in result:  # the last word has come
                self._low_level_execute_command(TIDY.format(place=shlex.quote(place)))
        return result

    def _confirm(self, place: str, end: float) -> dict[str, Any]:
        """Look over fresh connections until the change stands, then confirm over one more."""
        reason = "no answer in time"
        commands = [LOOK, CONFIRM]
        while time.monotonic() < end:
            try:
                answer = self._bare(commands[0].format(place=shlex.quote(place), not_yet=NOT_YET))
            except AnsibleConnectionFailure as error:
                reason = str(error)
                Display().vv(f"no answer yet, trying again: {reason}")
                time.sleep(RETRY_SECONDS)
                continue
            text = answer["stdout"].strip()
            if answer["rc"] == 0 and text.endswith("}"):
                # the last line: before it, sshd or a profile may say something on the same terminal
                return _outcome(json.loads(text.splitlines()[-1]))
            if answer["rc"] == 0 and len(commands) > 1:
                commands.pop(0)
            elif answer["rc"] == NOT_YET:
                time.sleep(RETRY_SECONDS)
            else:
                reason = answer.get("stderr") or text
                break
        return {
            "failed": True,
            "msg": f"the change was not confirmed ({reason}); without a confirmation the node goes back by itself",
        }

    def _bare(self, command: str) -> dict[str, Any]:
        """Run one command over a fresh connection."""
        self._fresh_connection()
        answer: dict[str, Any] = self._low_level_execute_command("/bin/sh -c " + shlex.quote(command))
        return answer

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
