# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BPF program of the impairments, as the controller hands it to a node."""

from __future__ import annotations

import os
from pathlib import Path

from plugins.module_utils.impairment.engine import Program
from plugins.plugin_utils import clang
from plugins.plugin_utils.programs import SOURCE

GIVEN = "IMPAIR_PROGRAM"  # the file, for tests that run where there is no compiler


def compiled() -> Program:
    """Made on this machine, or the file that the environment names."""
    given = os.environ.get(GIVEN)
    return Program(Path(given).read_bytes() if given else clang.compile_program(SOURCE), "")
