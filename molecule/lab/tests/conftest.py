# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes as testinfra sees them: by plain ssh through their sockets, without ansible."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

LAB = "molecule"


def node(name: str) -> Host:
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/impair.testbed-{os.getuid()}"
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(Path(runtime, "impair.testbed", LAB, "ssh_config")))


@pytest.fixture(scope="session")
def laptop() -> Host:
    return node("laptop")


@pytest.fixture(scope="session")
def master() -> Host:
    return node("master")


@pytest.fixture(scope="session")
def slave() -> Host:
    return node("slave")
