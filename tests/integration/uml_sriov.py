# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs of netdevsim on this kernel; test_sriov.py runs this under User-Mode Linux, not collected here.

Judged by ip-link(8) and sysfs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.converge import Report
from plugins.module_utils.errors import InvalidInput, MissingCapability, RolledBack
from plugins.module_utils.sriov import service
from tests.integration.labs import wait_for
from tests.integration.wire import sh

OURS = "-impair" in os.uname().release  # the kernel of `make kernel`, which has to have netdevsim; Debian's has none
MAC = "52:54:00:aa:01:%02x"
WHOLE = {
    "mac": MAC % 0,
    "vlan": 100,
    "qos": 3,
    "rate": "20mbit",
    "spoofchk": True,
    "trust": True,
    "state": "enable",
}
SHOWN = {
    "mac": MAC % 0,
    "vlan_list": [{"vlan": 100, "qos": 3}],
    "rate": {"max_tx": 20, "min_tx": 0},
    "spoofchk": True,
    "trust": True,
    "link_state": "enable",
}
NONE_SHOWN = {
    "mac": "00:00:00:00:00:00",
    "vlan_list": [{}],
    "rate": {"max_tx": 0, "min_tx": 0},
    "spoofchk": False,
    "trust": False,
    "link_state": "auto",
}


@pytest.fixture(scope="module", autouse=True)
def folders() -> None:
    """Places for files of the node's own: the machine's are read-only here."""
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text(), "these tests change the kernel they run on"
    if OURS:
        layers = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work"
        sh("mkdir -p /run/etc/upper /run/etc/work", f"mount -t overlay -o {layers} overlay /etc")
        sh("mkdir -p /etc/network/if-up.d", "mount -t tmpfs none /usr/local/lib")


@pytest.fixture
def device() -> Iterator[str]:
    """An interface whose device may have VFs."""
    Path("/sys/bus/netdevsim/new_device").write_text("7 1")
    (name,) = os.listdir("/sys/bus/netdevsim/devices/netdevsim7/net")
    yield name
    hold()
    assert Path("/sys/bus/netdevsim/devices/netdevsim7/sriov_numvfs").read_text() == "0\n"
    Path("/sys/bus/netdevsim/del_device").write_text("7")


def hold(name: str = "", *vfs: dict[str, Any], check: bool = False, **more: Any) -> Report:
    return service.hold([{"name": name, "vfs": list(vfs), **more}] if name else [], check=check)


def shown(name: str) -> list[dict[str, Any]]:
    """The VFs as ip-link(8) shows them, without what differs between its versions."""
    (link,) = json.loads(sh(f"ip -j -d link show dev {name}"))
    vfs = link.get("vfinfo_list", [])
    assert [vf["vf"] for vf in vfs] == list(range(len(vfs)))
    found = []
    for vf in vfs:
        mac = vf.get("address") or vf["mac"]
        tags = [{key: tag[key] for key in ("vlan", "qos") if tag.get(key)} for tag in vf["vlan_list"]]
        rate = {"max_tx": vf["rate"]["max_tx"], "min_tx": vf["rate"]["min_tx"]}
        flags = {key: vf[key] for key in ("spoofchk", "trust", "link_state")}
        found.append({"mac": mac, "vlan_list": tags, "rate": rate, **flags})
    return found


if OURS:

    def test_vfs_have_what_is_asked_and_a_second_run_writes_nothing(device: str) -> None:
        told = hold(device, WHOLE, count=3, check=True)
        assert told.changed and not shown(device) and not Path(service.CONFIG).exists()
        done = hold(device, WHOLE, count=3)
        assert done.steps == told.steps
        assert shown(device) == [SHOWN, NONE_SHOWN, NONE_SHOWN]
        again = hold(device, WHOLE, count=3)
        assert not again.changed and not again.steps and again.before == done.after

    def test_each_setting_changes_alone_and_comes_back(device: str) -> None:
        hold(device, WHOLE)
        for key, value, place, want in (
            ("mac", MAC % 9, "mac", MAC % 9),
            ("vlan", 7, "vlan_list", [{"vlan": 7, "qos": 3}]),
            ("qos", 1, "vlan_list", [{"vlan": 100, "qos": 1}]),
            ("rate", "1gbit", "rate", {"max_tx": 1000, "min_tx": 0}),
            ("min_rate", "5mbit", "rate", {"max_tx": 20, "min_tx": 5}),
            ("rate", "0", "rate", {"max_tx": 0, "min_tx": 0}),
            ("spoofchk", False, "spoofchk", False),
            ("trust", False, "trust", False),
            ("state", "disable", "link_state", "disable"),
        ):
            changed = hold(device, {**WHOLE, "min_rate": "0", key: value})
            assert len([step for step in changed.steps if step.startswith("ip link")]) == 1, changed.steps
            assert not any(step.startswith("echo") for step in changed.steps), changed.steps
            assert shown(device) == [{**SHOWN, place: want}]
            hold(device, {**WHOLE, "min_rate": "0"})
            assert shown(device) == [SHOWN]

    def test_what_is_not_asked_stays(device: str) -> None:
        hold(device, WHOLE)
        assert not [step for step in hold(device, {"trust": True}).steps if "ip link" in step]
        assert shown(device) == [SHOWN]
        sh(f"ip link set dev {device} vf 0 trust off spoofchk off")
        hold(device, {"trust": True})
        assert shown(device) == [{**SHOWN, "spoofchk": False}]

    def test_another_number_takes_all_away_first_and_says_so(device: str) -> None:
        plain = {"mac": MAC % 5, "vlan": 0, "rate": "0", "spoofchk": False, "trust": False, "state": "auto"}
        hold(device, WHOLE, {})
        steps = hold(device, plain, WHOLE, {}, check=True).steps
        assert "disruptive" in steps[0] and steps[0].startswith("echo 0 ") and steps[1].startswith("echo 3 ")
        assert shown(device) == [SHOWN, NONE_SHOWN]
        hold(device, plain, WHOLE, {})
        assert shown(device) == [NONE_SHOWN | {"mac": MAC % 5}, SHOWN, NONE_SHOWN]

    def test_what_stood_before_comes_back(device: str) -> None:
        sh(f"echo 2 >/sys/class/net/{device}/device/sriov_numvfs", f"ip link set dev {device} vf 1 vlan 5")
        before = shown(device)
        hold(device, WHOLE)
        hold(device, WHOLE, WHOLE | {"mac": MAC % 1})
        hold()
        assert shown(device) == before and before[1]["vlan_list"] == [{"vlan": 5}]
        sh(f"echo 0 >/sys/class/net/{device}/device/sriov_numvfs")

    def test_what_the_kernel_refuses_leaves_everything_as_it_was(device: str) -> None:
        """More VFs than netdevsim takes (max_vfs of its debugfs)."""
        sh("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
        Path("/sys/kernel/debug/netdevsim/netdevsim7/max_vfs").write_text("4")
        hold(device, WHOLE, count=4)
        with pytest.raises(RolledBack, match="the state before was restored"):
            hold(device, WHOLE, count=5)
        assert shown(device) == [SHOWN, *[NONE_SHOWN] * 3]

    def test_after_a_reboot_all_comes_back_by_the_files_alone(device: str) -> None:
        """The hook of ifupdown, as a boot calls it; a reboot leaves no VFs, and nothing below /run."""
        hold(device, WHOLE, {"spoofchk": True})
        hook = Path("/etc/network/if-up.d/impair-sriov")
        assert os.access(hook, os.X_OK)
        sh(f"echo 0 >/sys/class/net/{device}/device/sriov_numvfs", "rm -rf /run/impair.testbed")
        subprocess.run([hook], check=True, env={"PATH": os.environ["PATH"]}, cwd="/")
        wait_for(lambda: Path("/run/impair-sriov.log").read_text() != "", 60)
        said = Path("/run/impair-sriov.log").read_text()
        assert shown(device) == [SHOWN, NONE_SHOWN | {"spoofchk": True}], said
        subprocess.run([hook], check=True, env={"PATH": os.environ["PATH"]}, cwd="/")
        assert Path("/run/impair-sriov.log").read_text() == said
        assert not hold(device, WHOLE, {"spoofchk": True}).changed
        hold(device, WHOLE)
        hold()
        assert not shown(device), "what the boot brought back is not what stood before us"
        assert not hook.exists() and not os.listdir("/usr/local/lib"), sys.path
        Path("/run/impair-sriov.log").unlink()

    def test_a_driver_for_vfs_that_are_no_devices_is_refused(device: str) -> None:
        for asked in ({"driver": "vfio-pci"}, {"netns": "guest0"}):
            with pytest.raises(InvalidInput, match=r"interfaces\[0\]\.vfs\[1\]\.(driver|netns)"):
                hold(device, WHOLE, asked)
        assert not shown(device)


def test_what_has_no_vfs_is_named_and_nothing_touched() -> None:
    sh("ip link add plain type veth peer name other")
    for check in (True, False):
        with pytest.raises(MissingCapability, match=r"interfaces\[0\]\.name: plain needs a device with SR-IOV"):
            hold("plain", WHOLE, check=check)
        with pytest.raises(InvalidInput, match=r"interfaces\[0\]\.name: 'absent' is refused"):
            hold("absent", WHOLE, check=check)
    assert not Path(service.CONFIG).exists()
    sh("ip link delete plain")
