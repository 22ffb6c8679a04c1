# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Matches under User-Mode-Linux, whose kernel has flower and looks at marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import pytest_inside

pytestmark = pytest.mark.minutes


@pytest.mark.parametrize("file", ["uml_match.py", "test_match.py", "test_match_program.py"])
def test_matches_under_uml(tmp_path: Path, file: str) -> None:
    """Everything of the file; what fails in there is shown as it was printed in there."""
    outcome = pytest_inside(["-q", f"tests/integration/{file}"], tmp_path)
    assert outcome.code == 0, outcome.output
