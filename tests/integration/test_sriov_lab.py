# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs that carry packets: Intel's 82576 as QEMU has it (igb), in a node of its own, and who pings its guests.

Judged by ip-link(8) and sysfs in the node, by ping, and by what tcpdump sees on the wire.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.labs import processes, wait_for
from tests.integration.places import CHECKOUT, Lab, run

pytestmark = [pytest.mark.lab, pytest.mark.sources, pytest.mark.timeout(1500)]
MACS = ("52:54:00:aa:01:00", "52:54:00:aa:01:01")
OTHER = "52:54:00:aa:01:77"
LONG = 1200  # seconds for a playbook on an emulated machine, beside others


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str, dict[str, Any]]]:
    """The lab after `rtt`, what that said, and what it measured."""
    run([str(CHECKOUT / "scripts/fetch-qemu")], timeout=300)
    report = tmp_path_factory.mktemp("rtt") / "rtt.json"
    made = Lab(f"sriovtest-{os.getpid()}", None, "inventories/sriov", ("lab_ready_within=600",))
    try:
        said = made.playbook("rtt", "-e", f"rtt_report={report}", timeout=LONG).stdout
        yield made, said, json.loads(report.read_text())
    finally:
        made.playbook("lab_down")


def vfs(lab: Lab) -> list[dict[str, Any]]:
    (link,) = json.loads(lab.run("server1", ["ip", "-j", "-d", "link", "show", "dev", "eth1"]).stdout)
    return list(link.get("vfinfo_list", []))


def driver(lab: Lab, number: int) -> str:
    path = f"/sys/class/net/eth1/device/virtfn{number}/driver"
    return Path(lab.run("server1", ["readlink", path], check=False).stdout.strip()).name


def guest(lab: Lab) -> dict[str, Any]:
    """The interface that the guest has."""
    (link,) = json.loads(lab.run("server1", ["ip", "-n", "vm1", "-j", "-s", "address", "show", "dev", "eth0"]).stdout)
    return dict(link)


def hold(lab: Lab, *asked: dict[str, Any], check: bool = False) -> list[str]:
    """The steps of a call of the module on the node."""
    arguments = {"interfaces": [{"name": "eth1", "vfs": list(asked)}]} if asked else {"state": "absent"}
    options = ["--check"] if check else []
    said = lab.module("server1", "impair.testbed.sriov", json.dumps(arguments), "-o", *options).stdout
    return list(json.loads(said[said.index("=> ") + 3 :])["steps"])


def test_the_table_has_what_was_measured_beside_the_sources_figures(
    measured: tuple[Lab, str, dict[str, Any]],
) -> None:
    _lab, said, found = measured
    assert found["host"].startswith("qemu, Linux ")
    for path in found["paths"]:
        assert not path["failed"] and path["sent"] == 20 and path["received"] >= 15, found
        assert 0 < path["min"] <= path["avg"] <= path["max"], found
        assert f"{path['min']:.3f}" in said and f"{path['avg']:.3f}" in said
    assert [path["name"] for path in found["paths"]] == ["guest, macvlan", "guest, VF", "no guest"]
    for figures in ("0.379  0.442  0.476  0.034", "0.116  0.133  0.192  0.031", "0.130  0.157  0.166  0.013"):
        assert figures in said, said


def test_the_guest_has_the_vf_and_the_address_that_stands_in_its_lease(
    measured: tuple[Lab, str, dict[str, Any]],
) -> None:
    lab = measured[0]
    shown = vfs(lab)
    assert [vf.get("address") or vf["mac"] for vf in shown] == list(MACS)
    assert [driver(lab, 0), driver(lab, 1)] == ["igbvf", "vfio-pci"]
    assert lab.run("server1", ["sh", "-c", "ls /dev/vfio | grep -c '^[0-9]'"]).stdout == "1\n"
    link = guest(lab)
    assert link["address"] == MACS[0]
    assert [one["local"] for one in link["addr_info"] if one["family"] == "inet"] == ["10.0.0.4"]
    assert link["stats64"]["rx"]["packets"] >= 20
    wire = lab.enter("server0", ["ip", "neighbour", "show", "10.0.0.4"]).stdout
    assert MACS[0] in wire


def test_a_vlan_of_the_vf_is_on_the_wire_and_not_in_the_guest(measured: tuple[Lab, str, dict[str, Any]]) -> None:
    lab = measured[0]
    own = {"mac": MACS[0], "netns": "vm1", "name": "eth0"}
    machine = {"mac": MACS[1], "driver": "vfio-pci"}
    steps = hold(lab, {**own, "vlan": 7}, machine)
    assert [step for step in steps if "eth1" in step] == ["ip link set dev eth1 vf 0 vlan 7 qos 0"]
    pid = (lab.run_dir / "server0" / "nspid").read_text().strip()
    argv = ["nsenter", "--target", pid, "--net", "timeout", "120", "tcpdump", "-lnne", "-i", "eth0", "-c", "2", "vlan"]
    watch = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert watch.stderr is not None and any("listening" in line for line in watch.stderr)
        lab.run("server1", ["ip", "netns", "exec", "vm1", "ping", "-c", "4", "-W", "1", "10.0.0.1"], check=False)
        seen = watch.communicate(timeout=150)[0]
    finally:
        watch.kill()
        watch.wait()
    assert seen.count("vlan 7") == 2 and seen.count(MACS[0]) >= 2, seen
    assert lab.enter("server0", ["ping", "-c", "2", "-W", "2", "10.0.0.4"], check=False).returncode != 0
    hold(lab, {**own, "vlan": 0}, machine)
    lab.enter("server0", ["ping", "-c", "1", "-w", "60", "10.0.0.4"])


def test_another_address_and_another_number_say_what_they_disturb(
    measured: tuple[Lab, str, dict[str, Any]],
) -> None:
    lab = measured[0]
    own = {"mac": OTHER, "netns": "vm1", "name": "eth0"}
    machine = {"mac": MACS[1], "driver": "vfio-pci"}
    told = hold(lab, own, machine, check=True)
    assert guest(lab)["address"] == MACS[0]
    assert hold(lab, own, machine) == told and sum("disruptive" in step for step in told) == 1
    assert guest(lab)["address"] == OTHER
    steps = hold(lab, own, machine, {})
    assert "disruptive" in steps[0] and steps[0].startswith("echo 0 ")
    assert len(vfs(lab)) == 3 and guest(lab)["address"] == OTHER
    assert [driver(lab, number) for number in range(3)] == ["igbvf", "vfio-pci", "igbvf"]
    assert not hold(lab, own, machine, {})


def test_vfs_come_back_when_the_node_starts_again_and_go_when_nobody_wants_them(
    measured: tuple[Lab, str, dict[str, Any]],
) -> None:
    lab = measured[0]
    hold(lab, {"mac": OTHER, "netns": "vm1", "name": "eth0"}, {"mac": MACS[1], "driver": "vfio-pci"}, {})
    (pid,) = [pid for pid, command in processes(lab).items() if "qemu-system-x86_64 " in command]
    lab.run("server1", ["sync"])
    before = vfs(lab)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in processes(lab))
    lab.playbook("lab_up", timeout=LONG)
    until = time.monotonic() + 120
    while len(vfs(lab)) < len(before) or driver(lab, 2) != "igbvf":
        said = lab.run("server1", ["cat", "/run/impair-sriov.log"], check=False).stdout
        assert time.monotonic() < until, said
        time.sleep(1)
    assert vfs(lab)[0].get("address", vfs(lab)[0].get("mac")) == OTHER and driver(lab, 1) == "vfio-pci"
    assert guest(lab)["address"] == OTHER, lab.run("server1", ["dmesg"]).stdout[-2000:]
    hold(lab)
    assert not vfs(lab)
    assert lab.run("server1", ["cat", "/sys/class/net/eth1/device/sriov_numvfs"]).stdout == "0\n"
