# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of the impairment engine under User-Mode-Linux, whose kernel has netem."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import pytest_inside

pytestmark = pytest.mark.minutes


def test_impairment_under_uml(tmp_path: Path) -> None:
    """Everything of uml_impairment.py; what fails in there is shown as it was printed in there."""
    outcome = pytest_inside(["-q", "tests/integration/uml_impairment.py"], tmp_path)
    assert outcome.code == 0, outcome.output
