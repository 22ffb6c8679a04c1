# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tc engine by thousands of random trees, and on further kernels: `make test-long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.chroot import pytest_under
from tests.integration.uml import pytest_inside

FILES = ["test_tc", "test_tc_before", "uml_tc_netem", "uml_tc_queues", "uml_tc_distribution", "uml_tc_ways"]
FILES += ["uml_tc_filters", "uml_tc_actions", "uml_tc_mixed", "test_tc_bpf"]


@pytest.mark.long
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_tc_under_the_kernel_of_another_release(suite: str) -> None:
    """Linux 6.12 or newer, with the tc of its time to judge."""
    outcome = pytest_under(suite, ["-q", *(f"tests/integration/{file}.py" for file in FILES)])
    assert outcome.code == 0, outcome.output


@pytest.mark.long
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("file", ["uml_tc_ways", "uml_tc_mixed"])
def test_thousands_of_ways_under_uml(tmp_path: Path, file: str) -> None:
    outcome = pytest_inside(["-q", "--long", f"tests/integration/{file}.py"], tmp_path, seconds=900)
    assert outcome.code == 0, outcome.output
