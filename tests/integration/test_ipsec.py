# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IPsec tunnels under User-Mode-Linux: Debian's kernel has ESP, that of `make kernel` IP-TFS as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.uml import PACKAGED, Kernel, built, pytest_inside

pytestmark = pytest.mark.testbed
TESTS = "tests/integration/uml_ipsec.py"


def test_ipsec_under_uml(tmp_path: Path) -> None:
    """On the kernel with IPTFS where it is in the cache; Debian's has to say what it lacks."""
    judge(Kernel(built()), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["packaged", "built"])
def test_ipsec_on_each_kernel(tmp_path: Path, name: str) -> None:
    program = built()
    assert program, "`make kernel` builds it"
    judge({"packaged": PACKAGED, "built": Kernel(program)}[name], tmp_path)


def judge(kernel: Kernel, folder: Path) -> None:
    outcome = pytest_inside(["-q", "-rP", TESTS], folder, kernel=kernel)
    print(outcome.output)
    assert outcome.code == 0, outcome.output
