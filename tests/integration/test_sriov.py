# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs (SR-IOV): of netdevsim under the kernel of `make kernel`; where there is none of it, an interface without VFs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plugins.module_utils.errors import TestbedError
from plugins.module_utils.namespace import entered
from plugins.module_utils.sriov.service import hold
from tests.integration.places import Call, Netns
from tests.integration.uml import PACKAGED, Kernel, built, pytest_inside

pytestmark = pytest.mark.testbed
TESTS = "tests/integration/uml_sriov.py"


def test_vfs_under_uml(tmp_path: Path) -> None:
    """On the kernel with netdevsim where it is in the cache; on Debian's, what has no VFs is to be named."""
    judge(Kernel(built()), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["packaged", "built"])
def test_vfs_on_each_kernel(tmp_path: Path, name: str) -> None:
    program = built()
    assert program, "`make kernel` builds it"
    judge({"packaged": PACKAGED, "built": Kernel(program)}[name], tmp_path)


def judge(kernel: Kernel, folder: Path) -> None:
    outcome = pytest_inside(["-q", TESTS], folder, kernel=kernel)
    print(outcome.output)
    assert outcome.code == 0, outcome.output


def test_the_module_refuses_what_cannot_be_and_touches_nothing(netns: Netns, call: Call) -> None:
    before = netns.run(["ip", "-d", "link"]).stdout
    result = call(
        "sriov", {"interfaces": [{"name": netns.device, "count": 2, "vfs": [{"vlan": 100, "rate": "20mbit"}]}]}
    )
    assert result["failed"], result
    assert result["msg"].startswith(f"interfaces[0].name: {netns.device} needs a device with SR-IOV"), result
    with entered(f"/run/netns/{netns.name}"):
        for asked, said in (
            ({"name": "absent"}, "interfaces[0].name: 'absent' is refused; this node has no such interface"),
            ({"name": netns.device, "vfs": [{"vlan": 4095}]}, "interfaces[0].vfs[0].vlan: 4095 is refused"),
            ({"name": netns.device, "vfs": [{"rate": "1500kbit"}]}, "whole Mbit/s"),
        ):
            with pytest.raises(TestbedError, match=re.escape(said)):
                hold([asked])
    assert netns.run(["ip", "-d", "link"]).stdout == before
    assert not Path("/etc/impair.testbed/sriov.json").exists()
