# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done from which state of a lab, and what a node's files and command line say."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.lab import access, control, links, seed
from plugins.module_utils.lab.domain import ABSENT, LabDomain, LabState, NodeState
from plugins.module_utils.lab.kinds.base import Place
from plugins.module_utils.lab.kinds.uml import Uml
from plugins.module_utils.lab.model import End, Interface, Link, Node

CABLE = Link("cable", "socket", (End("left", "eth0"), End("right", "eth0")))
LEFT, RIGHT = NodeState("left", "aa", True), NodeState("right", "bb", True)
UP = LabState(True, True, True, (CABLE,), (LEFT, RIGHT))
NODE = Node(
    "left",
    "uml",
    256,
    1,
    (
        Interface("enp3s0", "52:54:00:00:00:01", "cable", "192.168.1.147/24", "192.168.1.1"),
        Interface("enx8cae4cf5b7ae", "8c:ae:4c:f5:b7:ae", "other", "", ""),
    ),
)


def verbs(current: LabState, desired: LabState) -> list[str]:
    domain = LabDomain(Path("/nowhere"), Path("/nowhere"), None)
    return [
        " ".join(str(getattr(word, "name", word)) for word in step.payload) for step in domain.plan(current, desired)
    ]


def test_nothing_to_do() -> None:
    assert verbs(UP, UP) == []
    assert verbs(ABSENT, ABSENT) == []


def test_from_nothing() -> None:
    created = ["create left", "boot left", "create right", "boot right"]
    assert verbs(ABSENT, UP) == ["make", "start", "link cable", *created]


def test_to_nothing_is_one_step_whatever_is_left() -> None:
    assert verbs(UP, ABSENT) == ["remove"]
    assert verbs(LabState(True, False, False, (), ()), ABSENT) == ["remove"]


def test_a_dead_node_starts_again_with_its_own_disk() -> None:
    assert verbs(UP._replace(nodes=(LEFT._replace(alive=False), RIGHT)), UP) == ["boot left"]


def test_a_changed_node_is_made_anew_and_the_other_stays() -> None:
    assert verbs(UP._replace(nodes=(LEFT._replace(tag="old"), RIGHT)), UP) == [
        "delete left",
        "create left",
        "boot left",
    ]


def test_a_dead_link_is_plugged_before_its_nodes_start_again() -> None:
    assert verbs(UP._replace(links=()), UP) == ["link cable", "boot left", "boot right"]


def test_a_node_and_its_link_go() -> None:
    assert verbs(UP, UP._replace(links=(), nodes=(LEFT,))) == ["delete right", "unlink cable"]


def test_without_its_keeper_everything_starts_again() -> None:
    dead = LabState(True, True, False, (), (LEFT._replace(alive=False), RIGHT._replace(alive=False)))
    assert verbs(dead, UP) == ["start", "link cable", "boot left", "boot right"]


def test_going_back_to_a_lab_with_a_dead_node_stops_it() -> None:
    assert verbs(UP, UP._replace(nodes=(LEFT._replace(alive=False), RIGHT))) == ["stop left"]


def test_interfaces_file() -> None:
    assert seed.interfaces_file(NODE).splitlines() == [
        "source /etc/network/interfaces.d/*",
        "",
        "auto lo",
        "iface lo inet loopback",
        "",
        "auto enp3s0",
        "iface enp3s0 inet static",
        "    address 192.168.1.147/24",
        "    gateway 192.168.1.1",
        "",
        "iface enx8cae4cf5b7ae inet manual",
    ]


def test_seed_is_a_whole_disk_and_its_secrets_are_private(tmp_path: Path) -> None:
    for name in ("host_key", "host_key.pub"):
        (tmp_path / name).write_text(name)
    target = tmp_path / "seed.tar"
    seed.write(target, NODE, {"vec0": "mgmt0", "vec1": "enp3s0"}, tmp_path / "host_key", "ssh-ed25519 AAAA lab\n")
    content = target.read_bytes()
    assert len(content) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        modes = {entry.name: entry.mode for entry in archive}
        network = archive.extractfile("etc/impair.testbed-lab/network")
        assert network is not None
        batch = network.read().decode().splitlines()
    assert modes["etc/ssh/ssh_host_ed25519_key"] == 0o600
    assert modes["root/.ssh"] == 0o700
    assert batch[1:] == [
        "link set vec0 name mgmt0",
        "link set vec1 name enp3s0",
        "address add 169.254.1.2/30 dev mgmt0",
        "link set mgmt0 up",
    ]


def test_uml_gets_each_interface_with_its_address_and_never_merges_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.module_utils.lab.image.image_path", lambda *recipe: Path("/cache/image"))
    data = {"enp3s0": links.Attachment("socket", "w.sock"), "enx8cae4cf5b7ae": links.Attachment("tap", "tap1")}
    process = Uml().process(NODE, Place(tmp_path, tmp_path, "key"), links.management(NODE), data)
    devices = [word for word in process.argv if word.startswith("vec")]
    assert devices[0].startswith("vec0:transport=fd,fd={fd:mgmt1},mac=")
    assert devices[1:] == [
        "vec1:transport=bess,dst=w.sock,mac=52:54:00:00:00:01,depth=256",
        "vec2:transport=tap,ifname=tap1,mac=8c:ae:4c:f5:b7:ae",
    ]
    assert process.ends == ("mgmt1",)
    assert process.sshd == "169.254.1.2:22"
    assert not any("gro=" in word for word in process.argv)


def test_a_run_directory_too_long_for_its_sockets_is_refused() -> None:
    access.check_directory(Path("/run/user/1000/impair.testbed/virtual"), ["master"])
    with pytest.raises(InvalidInput, match="lab_run_dir"):
        access.check_directory(Path("/tmp/" + "x" * 80), ["master"])
    with pytest.raises(InvalidInput, match="lab_run_dir"):
        access.check_directory(Path("relative"), [])


def test_a_recorded_pid_counts_only_with_its_start_time(tmp_path: Path) -> None:
    mine = control.keeper.start_time(os.getpid())
    record = tmp_path / control.PID_FILE
    record.write_text(f'{{"pid": {os.getpid()}, "start": {mine}}}')
    assert control.recorded(tmp_path) == os.getpid()
    record.write_text(f'{{"pid": {os.getpid()}, "start": {mine - 1}}}')
    assert control.recorded(tmp_path) is None
    record.write_text("")
    assert control.recorded(tmp_path) is None
