# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual lab as a user has it: up, unchanged, repaired, gone. The host is judged by /proc and ip."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.labs import host, keeper_of, processes, recap, started, wait_for, workers
from tests.integration.places import CHECKOUT, Lab, run

pytestmark = [pytest.mark.lab, pytest.mark.minutes]
NODES = ("laptop", "master", "slave")


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab that these tests may break; whatever they leave, lab_down has to cope with."""
    made = Lab(f"labtest-{os.getpid()}")
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def pid_of(lab: Lab, node: str) -> int:
    """The process that is a node's kernel: the oldest of linux.uml's (pids start again at their end)."""
    found = [pid for pid, command in processes(lab).items() if re.match(rf"\S*linux\.uml umid={node} ", command)]
    return min(found, key=started)


def test_the_nodes_are_the_asked_ones(own: Lab) -> None:
    asked = {"laptop": {"enp3s0"}, "master": {"eth0", "enx8cae4cf5b7ae"}, "slave": {"eth0"}}
    for node in NODES:
        links = json.loads(own.run(node, ["ip", "-j", "address"]).stdout)
        assert {link["ifname"] for link in links} == asked[node] | {"lo", "mgmt0"}
        assert own.run(node, ["hostname"]).stdout.strip() == node
        assert abs(int(own.run(node, ["date", "+%s"]).stdout) - time.time()) < 5
    mac = own.run("master", ["cat", "/sys/class/net/enx8cae4cf5b7ae/address"]).stdout.strip()
    assert mac == "8c:ae:4c:f5:b7:ae"
    assert "192.168.1.148/24" in own.run("slave", ["ip", "address", "show", "eth0"]).stdout


def test_a_second_lab_up_changes_nothing(own: Lab) -> None:
    before = {node: pid_of(own, node) for node in NODES}, keeper_of(own)
    assert recap(own.playbook("lab_up").stdout)["changed"] == 0
    assert ({node: pid_of(own, node) for node in NODES}, keeper_of(own)) == before


def test_check_mode_tells_what_a_dead_node_needs_and_lab_up_does_it(own: Lab) -> None:
    own.run("slave", ["sh", "-c", "echo mine > /root/kept && sync"])
    pid = pid_of(own, "slave")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not [c for c in processes(own).values() if "umid=slave " in c])
    told = own.playbook("lab_up", "--check", "-v").stdout
    assert recap(told)["changed"] == 1
    assert "start slave" in told
    assert not [c for c in processes(own).values() if "umid=slave " in c]
    other = pid_of(own, "master")
    assert recap(own.playbook("lab_up").stdout)["changed"] == 1
    assert own.run("slave", ["cat", "/root/kept"]).stdout == "mine\n"
    assert pid_of(own, "master") == other


def test_links_carry_every_packet_before_and_after_ifdown_and_a_restart(own: Lab) -> None:
    """Also what a bridge would see: no interface merges packets, even after it was down."""
    ports = ("eth0", "enx8cae4cf5b7ae")
    own.run("master", ["ip", "link", "add", "br0", "type", "bridge"])
    for port in ports:
        own.run("master", ["ip", "link", "set", port, "master", "br0", "up"])
    own.run("master", ["ip", "link", "set", "br0", "up"])
    own.run("slave", ["ifdown", "eth0"])
    own.run("slave", ["ifup", "eth0"])
    own.run("master", ["ip", "link", "set", "eth0", "down"])
    own.run("master", ["ip", "link", "set", "eth0", "up"])
    ping = ["ping", "-q", "-c", "300", "-i", "0.005", "-W", "2", "192.168.1.148"]
    own.run("laptop", ["ping", "-q", "-c", "1", "-w", "10", "192.168.1.148"])  # until the bridge forwards
    assert "300 received, 0% packet loss" in own.run("laptop", ping).stdout
    features = own.run("master", ["ethtool", "-k", "eth0"]).stdout
    for feature in ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload"):
        assert f"{feature}: off" in features
    own.run("master", ["ip", "link", "delete", "br0"])


def test_a_node_that_panicked_is_started_again(own: Lab) -> None:
    own.run("laptop", ["sh", "-c", "(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &"])
    console = own.run_dir / "laptop" / "console.log"
    wait_for(lambda: "Kernel panic" in console.read_text(errors="replace"))
    assert recap(own.playbook("lab_up").stdout)["changed"] == 1
    assert own.run("laptop", ["hostname"]).stdout == "laptop\n"


SHELL = """set -e
tc qdisc add dev eth0 root handle 1: htb default 10
tc class add dev eth0 parent 1: classid 1:10 htb rate 100mbit
tc qdisc add dev eth0 parent 1:10 handle 10: netem delay 50ms loss 1%
tc filter add dev eth0 parent 1: protocol ip prio 1 handle 5 fw flowid 1:10 action gact ok random determ drop 20
tc filter add dev eth0 parent 1: protocol all prio 2 u32 match u32 0 0 flowid 1:10
ip link add br9 type bridge
modprobe br_netfilter
iptables-legacy -t mangle -A FORWARD -m statistic --mode nth --every 20 --packet 0 -j MARK --set-mark 5
ebtables-nft -A FORWARD -j mark --mark-or 0x20000
strace -o /dev/null true
tcpdump --version >/dev/null 2>&1
tc qdisc show dev eth0; tc filter show dev eth0; iptables-legacy-save -t mangle; ebtables-nft-save
"""
UNDO = """tc qdisc del dev eth0 root; ip link del br9; iptables-legacy -t mangle -F; ebtables-nft -F"""


def test_the_kernel_has_what_a_testbed_needs(own: Lab) -> None:
    said = own.run("master", ["sh", "-c", SHELL]).stdout
    own.run("master", ["sh", "-c", UNDO])
    for part in ("netem 10:", "htb 1:", "random type determ drop val 20", "u32", "--every 20", "--mark-or 0x20000"):
        assert part in re.sub(r"\s+", " ", said), part


def test_two_labs_live_side_by_side(own: Lab) -> None:
    other = Lab(f"{own.name}b")
    try:
        other.playbook("lab_up")
        assert other.run("slave", ["hostname"]).stdout == "slave\n"
        own.run("slave", ["touch", "/root/first"])
        assert other.run("slave", ["test", "-e", "/root/first"], check=False).returncode == 1
        reply = other.module("all", "ansible.builtin.ping").stdout
        assert reply.count("pong") == 3
    finally:
        other.playbook("lab_down")
    assert own.module("all", "ansible.builtin.ping").stdout.count("pong") == 3


def test_a_dead_link_process_is_replaced(own: Lab) -> None:
    wires = [pid for pid, command in processes(own).items() if "wire.py" in command]
    assert len(wires) == 2
    os.kill(wires[0], signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{wires[0]}").exists())
    assert recap(own.playbook("lab_up").stdout)["changed"] == 1
    assert recap(own.playbook("lab_up").stdout)["changed"] == 0


def test_a_killed_keeper_takes_everything_with_it_and_lab_up_brings_it_back(own: Lab) -> None:
    own.run("laptop", ["sh", "-c", "echo mine > /root/kept && sync"])
    os.kill(keeper_of(own), signal.SIGKILL)
    wait_for(lambda: not processes(own))
    own.playbook("lab_up")
    assert own.run("laptop", ["cat", "/root/kept"]).stdout == "mine\n"


def test_a_recycled_pid_is_never_killed(own: Lab) -> None:
    """The record names a process that is not ours any more: lab_down leaves it alone, and still clears up."""
    other = Lab(f"{own.name}c")
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        other.run_dir.mkdir(parents=True)
        (other.run_dir / "keeper.pid").write_text(json.dumps({"pid": bystander.pid, "start": 1}))
        other.playbook("lab_down")
        assert bystander.poll() is None
        assert not other.run_dir.exists()
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("stage", ["keeper.pid", "wires.log", "slave/ssh"])
def test_nothing_is_left_after_a_crash_at_any_stage(own: Lab, stage: str) -> None:
    """lab_up is killed hard as soon as a stage's first trace is there, and lab_down follows."""
    crashed = Lab(f"{own.name}d")
    before = host()
    argv = ["ansible-playbook", "playbooks/lab_up.yml", "-i", "inventories/virtual", "-e", f"lab_name={crashed.name}"]
    playbook = subprocess.Popen(
        argv, cwd=CHECKOUT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for((crashed.run_dir / stage).exists, 60)
    finally:
        for pid in [playbook.pid, *workers(crashed)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        playbook.wait()
    crashed.playbook("lab_down")
    wait_for(lambda: not processes(crashed))
    assert not crashed.run_dir.exists()
    assert host() == before


def test_lab_down_leaves_nothing_and_can_be_repeated(own: Lab) -> None:
    before = host()
    once = Lab(f"{own.name}e")
    try:
        once.playbook("lab_up")
        spaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in processes(once) for kind in ("net", "pid")}
        spaces -= {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid")}
        assert len(spaces) == 2 + len(NODES)  # the lab's network and its processes, and each node's processes
        assert recap(once.playbook("lab_down", "--check").stdout)["changed"] == 1
        assert processes(once)
    finally:
        down = once.playbook("lab_down")
    assert recap(down.stdout)["changed"] == 1
    wait_for(lambda: not processes(once))
    assert not once.run_dir.exists()
    assert host() == before
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert {os.readlink(entry / "ns" / "net"), os.readlink(entry / "ns" / "pid")}.isdisjoint(spaces)
            except OSError:
                continue
    assert recap(once.playbook("lab_down").stdout)["changed"] == 0


def test_a_bad_topology_is_refused_before_anything_is_touched(own: Lab) -> None:
    bad = Lab(f"{own.name}f")
    links = [
        {"name": "x", "ends": [{"node": "laptop", "interface": "enp3s0"}, {"node": "nobody", "interface": "eth0"}]}
    ]
    done = bad.playbook("lab_up", "-e", json.dumps({"lab_links": links}), check=False)
    assert done.returncode != 0
    assert "lab_links[0].ends[1].node: 'nobody' is refused" in done.stdout + done.stderr
    assert not bad.run_dir.exists()


@pytest.mark.alone
def test_three_nodes_answer_ssh_in_time_on_two_processors(own: Lab) -> None:
    """The bound is the promise of 15 s, a multiple of what it takes."""
    timed = Lab(f"{own.name}g")
    argv = ["ansible-playbook", "playbooks/lab_up.yml", "-i", "inventories/virtual", "-e", f"lab_name={timed.name}"]
    try:
        started = time.monotonic()
        run(["env", "-C", str(CHECKOUT), "taskset", "-c", "0,1", *argv])
        took = time.monotonic() - started
        for node in NODES:
            timed.run(node, ["true"])
        print(f"three nodes: {took:.1f} s")
        assert took < 15
    finally:
        timed.playbook("lab_down")
