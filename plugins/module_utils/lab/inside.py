# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a program is run inside a node that is namespaces of the host."""

from __future__ import annotations

import os

from .. import programs

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = ("LANG", "TERM", "HOME")  # of the caller's environment


def command(pid: int) -> list[str]:
    """What stands before a program's own words; `pid` of the node's first process, as the host sees it.

    An ordinary user's lab lies in a user namespace of that user, who has every right there.
    """
    own = ["--user", "--preserve-credentials"] if os.geteuid() != 0 else []
    spaces = ("--net", "--mount", "--uts", "--pid")
    return [programs.find("nsenter") or "nsenter", "--target", str(pid), *own, *spaces, "--"]


def environment() -> dict[str, str]:
    """A fresh one, as a new login has: what the caller's says about connections and displays is not the node's."""
    return {
        "PATH": PATH,
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "USER": "root",
        "LOGNAME": "root",
    }
