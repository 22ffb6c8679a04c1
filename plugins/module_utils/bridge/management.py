# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which address of this node the controller talks to."""

from __future__ import annotations

import os


def node_address() -> str:
    """The address at this end of the ssh connection that asked for the change; empty where there is none.

    sudo takes SSH_CONNECTION (client address and port, server address and port; ssh(1)) out of the environment,
    so the environments of the parent processes are read as well.
    """
    process = os.getpid()
    while process > 1:
        words = _variable(process, "SSH_CONNECTION").split()
        if len(words) == 4:
            return words[2]
        process = _parent(process)
    return ""


def _variable(process: int, name: str) -> str:
    try:
        with open(f"/proc/{process}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return ""
    key = name.encode() + b"="
    return next((entry[len(key) :].decode("utf-8", "replace") for entry in entries if entry.startswith(key)), "")


def _parent(process: int) -> int:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            # the command's name stands in parentheses and may hold anything
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
