# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes under User-Mode-Linux, whose kernel has netem, no TCX and no types of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.plugin_utils import clang
from tests.integration.places import CHECKOUT
from tests.integration.uml import pytest_inside


@pytest.mark.sources
def test_probes_under_uml(tmp_path: Path) -> None:
    """Everything of uml_probes.py; what fails in there is shown as it was printed in there."""
    object_file = clang.compile_program(CHECKOUT / "files/bpf/observe.c", (*clang.FLAGS, "-g"))
    (tmp_path / "observe.o").write_bytes(object_file)
    outcome = pytest_inside(["-q", "-s", "tests/integration/uml_probes.py"], tmp_path)
    print(outcome.output)
    assert outcome.code == 0, outcome.output
