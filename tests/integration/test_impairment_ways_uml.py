# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways from impairments to others under User-Mode-Linux, whose kernel has netem, flower and gact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import pytest_inside

pytestmark = pytest.mark.minutes

FILE = "tests/integration/test_impairment_ways.py"


def test_ways_under_uml(tmp_path: Path) -> None:
    """What fails in there is shown as it was printed in there."""
    outcome = pytest_inside(["-q", FILE], tmp_path)
    assert outcome.code == 0, outcome.output


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_thousands_of_ways_under_uml(tmp_path: Path) -> None:
    outcome = pytest_inside(["-q", "--long", FILE], tmp_path, seconds=1800)
    assert outcome.code == 0, outcome.output
