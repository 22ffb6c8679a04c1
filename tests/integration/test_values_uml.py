# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What packets suffer under each key of the vocabulary, under User-Mode-Linux, whose kernel has netem."""

from __future__ import annotations

from pathlib import Path

from tests.integration.uml import pytest_inside


def test_values_under_uml(tmp_path: Path) -> None:
    """Everything of uml_values.py; what fails in there is shown as it was printed in there."""
    outcome = pytest_inside(["-q", "tests/integration/uml_values.py"], tmp_path, bound=False)
    assert outcome.code == 0, outcome.output
