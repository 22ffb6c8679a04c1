# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs of the node: arguments as lists, never through a shell, in the C locale."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from .errors import MissingCapability

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> str | None:
    """Absolute path of a program; sbin is searched even where the user's PATH leaves it out."""
    return shutil.which(program, path=SEARCH_PATH)


def run(argv: Sequence[str], stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `argv` and return what it said; the caller judges the return code.

    Raises MissingCapability where the program is not installed. `timeout` is in seconds.
    """
    path = find(argv[0])
    if path is None:
        raise MissingCapability(f"`{' '.join(argv)}`", f"the program {argv[0]}", f"install {argv[0]} on the node")
    return subprocess.run(
        [path, *argv[1:]],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",  # what others wrote goes back as it came
        check=False,
        timeout=timeout,
        env={**os.environ, "LC_ALL": "C", "PATH": SEARCH_PATH},
    )
