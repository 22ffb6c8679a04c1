# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes under QEMU, beside one under User-Mode-Linux in the same lab: one link joins two of them, one both kinds."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.labs import host, keeper_of, processes, recap, wait_for
from tests.integration.places import Lab

pytestmark = [pytest.mark.lab, pytest.mark.minutes]
KINDS = {"laptop": "uml", "master": "qemu", "slave": "qemu"}
DEVICE = "enx8cae4cf5b7ae"
ECHO = {"name": "echo", "match": {"protocol": "icmp"}, "delay": "50ms", "drop": {"every": 20, "backend": "bpf"}}
ASKED = {"impairment_interfaces": [{"name": DEVICE, "classes": [ECHO]}]}
PING = ["ping", "-c", "100", "-i", "0.01", "-W", "5", "192.168.1.148"]


@pytest.fixture(scope="module")
def before() -> dict[str, object]:
    return host()


@pytest.fixture(scope="module")
def own(before: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    inventory = tmp_path_factory.mktemp("inventory") / "kinds.yml"
    hosts = {name: {"lab_node_kind": kind} for name, kind in KINDS.items()}
    inventory.write_text(json.dumps({"testbed": {"hosts": hosts}}))
    made = Lab(f"qemutest-{os.getpid()}", inventory)
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def machine(lab: Lab, node: str) -> list[int]:
    return [pid for pid, said in processes(lab).items() if re.match(rf"\S*qemu-system-x86_64 -name {node} ", said)]


def replies(said: str) -> dict[int, float]:
    """Number of each echo that came back → milliseconds."""
    return {int(number): float(late) for number, late in re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", said)}


def test_the_nodes_are_the_asked_ones(own: Lab) -> None:
    for node, kind in KINDS.items():
        said = own.run(node, ["sh", "-c", "hostname; uname -r; date +%s"]).stdout.split()
        assert said[0] == node
        assert said[1].endswith("-amd64") == (kind == "qemu")
        assert abs(int(said[2]) - time.time()) < 5
        assert machine(own, node) == [] if kind == "uml" else len(machine(own, node)) == 1
    links = json.loads(own.run("master", ["ip", "-j", "link"]).stdout)
    assert {link["ifname"] for link in links} == {"lo", "mgmt0", "eth0", DEVICE}
    assert {link["ifname"]: link["address"] for link in links}[DEVICE] == "8c:ae:4c:f5:b7:ae"
    assert "192.168.1.148/24" in own.run("slave", ["ip", "address", "show", "eth0"]).stdout
    assert recap(own.playbook("lab_up").stdout)["changed"] == 0


def test_the_kernel_has_what_user_mode_linux_lacks(own: Lab) -> None:
    """USB without hardware, a port of which is given to another node; types of the kernel; BPF made machine code."""
    own.run("slave", ["modprobe", "-a", "dummy_hcd", "usbip-host", "vhci-hcd", "usb_f_mass_storage"])
    assert own.run("slave", ["sh", "-c", "ls /sys/bus/usb/devices/usb*/busnum | wc -l"]).stdout.strip() != "0"
    assert "Imported USB devices" in own.run("slave", ["usbip", "port"]).stdout
    own.run("slave", ["test", "-s", "/sys/kernel/btf/vmlinux"])
    assert own.run("slave", ["cat", "/proc/sys/net/core/bpf_jit_enable"]).stdout == "1\n"


def test_the_serial_port_has_a_shell(own: Lab) -> None:
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(30)
        port.connect(str(own.run_dir / "slave" / "tty"))
        port.sendall(b"echo $((6 * 7)) $(hostname) $(tty)\n")
        said = b""
        while b"42 slave /dev/ttyS0" not in said:
            came = port.recv(4096)
            assert came, said
            said += came


def test_gdb_reaches_the_machine_and_leaves_it_running(own: Lab) -> None:
    """The protocol's own words (gdb's manual, Remote Protocol): what it can do, and away again."""
    folder = own.run_dir / "slave" / "s"
    assert (folder / "console").resolve() == own.run_dir / "slave" / "tty"
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(60)
        port.connect(str(folder / "gdbserver"))
        said = b""
        for packet, answer in ((b"$qSupported#37", b"PacketSize="), (b"$D#44", b"$OK#9a")):
            port.sendall(packet)
            while answer not in said:
                came = port.recv(4096)
                assert came, said
                said += came
            port.sendall(b"+")
    assert own.run("slave", ["hostname"]).stdout == "slave\n"


def test_site_delays_and_drops_on_a_bridge_under_qemu_and_clear_takes_it_back(own: Lab, tmp_path: Path) -> None:
    """From UML through a bridge under QEMU to another under QEMU: exactly each 20th is missing, each other is late."""
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps(ASKED))
    arguments = ("-l", "master", "-e", f"@{asked}")
    assert "failed=0" in own.playbook("site", *arguments).stdout
    own.run("laptop", ["ping", "-q", "-c", "1", "-w", "20", "192.168.1.148"])  # until the bridge forwards
    shown = own.run("master", ["tc", "filter", "show", "dev", DEVICE, "egress"]).stdout
    assert "jited" in shown and "direct-action" in shown
    again = own.playbook("site", *arguments, "--tags", "impairment").stdout
    assert re.search(r"^master .*changed=0 .*failed=0", again, re.MULTILINE), again

    first = replies(own.run("laptop", PING, check=False).stdout)
    missing = sorted(set(range(1, 101)) - first.keys())
    assert len(missing) == 5 and {b - a for a, b in pairwise(missing)} == {20}, missing
    assert 50 <= min(first.values()) < 100, first

    assert "failed=0" in own.playbook("clear", "-l", "master", "--tags", "impairment").stdout
    second = replies(own.run("laptop", PING).stdout)
    assert len(second) == 100
    assert min(second.values()) < 50
    assert "7e57:" not in own.run("master", ["tc", "qdisc", "show"]).stdout


def test_a_killed_node_comes_back_with_its_disk(own: Lab) -> None:
    own.run("slave", ["sh", "-c", "echo mine > /root/kept && sync"])
    (pid,) = machine(own, "slave")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not machine(own, "slave"))
    other = machine(own, "master")
    assert recap(own.playbook("lab_up").stdout)["changed"] == 1
    assert own.run("slave", ["cat", "/root/kept"]).stdout == "mine\n"
    assert machine(own, "master") == other
    # The wire takes the new machine as it took the old one.
    assert " 0% packet loss" in own.run("laptop", ["ping", "-c", "20", "-i", "0.05", "192.168.1.148"]).stdout


def test_nothing_is_left_after_a_killed_keeper_and_lab_down(own: Lab, before: dict[str, object]) -> None:
    assert len(processes(own)) > 5
    os.kill(keeper_of(own), signal.SIGKILL)
    wait_for(lambda: not processes(own))
    assert recap(own.playbook("lab_down").stdout)["changed"] == 1
    assert not own.run_dir.exists()
    after = host()
    assert not [mount for mount in after["mounts"] if str(own.run_dir) in mount]
    for kind in ("links", "routes", "forward"):  # other tests' mounts come and go meanwhile
        assert after[kind] == before[kind]
