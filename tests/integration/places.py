# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places where a test can run a command against a real kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import pytest

Done = subprocess.CompletedProcess[str]


def run(argv: Sequence[str], stdin: str | None = None, check: bool = True, timeout: float = 120) -> Done:
    """Run a program; where it fails and check is set, the test fails with what it said. Timeout in seconds."""
    done = subprocess.run(list(argv), input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Netns(NamedTuple):
    """A network namespace with a veth pair in it: `device` is the one under test, `peer` its other end."""

    name: str
    device: str = "veth0"
    peer: str = "veth1"

    def run(self, argv: Sequence[str], stdin: str | None = None, check: bool = True) -> Done:
        """Run a program inside the namespace."""
        return run(["ip", "netns", "exec", self.name, *argv], stdin, check)
