# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of the tc engine under a second kernel, User-Mode-Linux, which has netem and fw as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import exact, pytest_inside

pytestmark = pytest.mark.minutes

CHOSEN = ["-q", "--deselect", "tests/integration/test_tc.py::test_nothing_of_the_first_is_left_after_the_second"]
FILES = [
    ["test_tc.py", "uml_tc_netem.py"],
    ["uml_tc_queues.py", "uml_tc_filters.py"],
    ["uml_tc_actions.py", "test_tc_bpf.py"],
    ["uml_tc_ways.py"],
    ["uml_tc_mixed.py"],
]


@pytest.mark.parametrize("files", FILES, ids=" ".join)
def test_tc_under_uml(tmp_path: Path, files: list[str]) -> None:
    """What fails in there is shown as it was printed in there."""
    outcome = pytest_inside([*CHOSEN, *(f"tests/integration/{file}" for file in files)], tmp_path)
    assert outcome.code == 0, outcome.output


@pytest.mark.alone
def test_distributions_under_uml(tmp_path: Path) -> None:
    """Delays, by packets; where time travels no busy machine adds to them."""
    outcome = pytest_inside([*CHOSEN, "tests/integration/uml_tc_distribution.py"], tmp_path, kernel=exact())
    assert outcome.code == 0, outcome.output
