# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace and a /run of this process alone, with a veth pair; all of it goes with the process."""

from __future__ import annotations

import ctypes
import os
import subprocess

from .trees import INTERFACE, OTHER_END

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000  # linux/sched.h


def enter() -> None:
    """Move this process there. Raises OSError where it may not (root only)."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace: {os.strerror(number)}")
    for command in (
        "mount --make-rprivate /",
        "mount -t tmpfs none /run",
        f"ip link add name {INTERFACE} type veth peer name {OTHER_END}",
        "ip link set dev lo up",
        f"ip link set dev {INTERFACE} up",
        f"ip link set dev {OTHER_END} up",
    ):
        subprocess.run(command.split(), check=True)
