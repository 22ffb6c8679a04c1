# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are namespaces, in the chain h1 — r1 — r2 — h2: judged by ip, ping and /proc."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.labs import entered, held, host, processes, recap, wait_for
from tests.integration.places import Lab, Netns, run

pytestmark = pytest.mark.minutes

NODES = ("h1", "r1", "r2", "h2")
NETNS = ("lab_node_kind=netns",)


@pytest.fixture(scope="module")
def chain() -> Iterator[Lab]:
    """A chain that these tests may break; whatever they leave, lab_down has to cope with."""
    made = Lab(f"chaintest-{os.getpid()}", base="inventories/chain", extra=NETNS)
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def pids(lab: Lab) -> dict[str, str]:
    return {node: (lab.run_dir / node / "nspid").read_text() for node in NODES}


def test_packets_pass_two_routers_by_computed_addresses(chain: Lab) -> None:
    for address in ("10.0.2.4", "fd00:10:0:2::4"):
        said = chain.enter("h1", ["ping", "-c", "3", "-i", "0.1", "-W", "5", address]).stdout
        assert "3 received, 0% packet loss" in said
        assert said.count("ttl=62") == 3
    shown = json.loads(chain.enter("r1", ["ip", "-j", "address"]).stdout)
    found = {link["ifname"]: {a["local"] for a in link["addr_info"] if a["scope"] == "global"} for link in shown}
    assert found == {"lo": set(), "eth0": {"10.0.0.2", "fd00:10::2"}, "eth1": {"10.0.1.2", "fd00:10:0:1::2"}}
    assert chain.enter("h1", ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "0\n"


def test_ansible_works_inside_and_what_it_writes_stays_there(chain: Lab, tmp_path: Path) -> None:
    here = f"impair-test-{os.getpid()}"
    own, source = Path("/etc", here), tmp_path / "big"
    source.write_bytes(os.urandom(300_000))
    chain.module("r1", "ansible.builtin.copy", json.dumps({"src": str(source), "dest": str(own)}))
    fetched = tmp_path / "fetched"
    chain.module("r1", "ansible.builtin.fetch", json.dumps({"src": str(own), "dest": str(fetched), "flat": True}))
    assert fetched.read_bytes() == source.read_bytes()
    assert not own.exists()
    assert chain.enter("r2", ["test", "-e", str(own)], check=False).returncode == 1
    assert chain.enter("r1", ["touch", f"/usr/{here}"], check=False).returncode == 1
    said = chain.module("all", "ansible.builtin.command", "hostname").stdout.split()
    assert set(NODES) <= set(said)
    failed = chain.module("r1", "ansible.builtin.raw", "echo out; echo err >&2; exit 7", check=False)
    assert "rc=7" in failed.stdout
    assert "out" in failed.stdout and "err" in failed.stdout


def test_what_outlives_its_task_ends_with_the_node_and_the_node_comes_back(chain: Lab) -> None:
    chain.module("r1", "ansible.builtin.shell", "setsid sleep 4711 >/dev/null 2>&1 </dev/null &")
    assert "sleep 4711" in chain.enter("r1", ["ps", "-e", "-o", "args"]).stdout
    before = pids(chain)
    os.kill(int(before["r1"]), signal.SIGKILL)
    wait_for(lambda: not Path("/proc", before["r1"].strip()).exists())
    wait_for(lambda: "4711" not in " ".join(running()))
    told = chain.playbook("lab_up", "--check", "-v").stdout
    assert "start r1" in told and "start r2" not in told
    assert recap(chain.playbook("lab_up").stdout)["changed"] == 1
    after = pids(chain)
    assert {node for node in NODES if before[node] != after[node]} == {"r1"}
    for address in ("10.0.2.4", "fd00:10:0:2::4"):
        chain.enter("h1", ["ping", "-c", "1", "-w", "10", address])  # fails where none is answered
    assert recap(chain.playbook("lab_up").stdout)["changed"] == 0


def running() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return [command for command in found if command.startswith("sleep ")]


def test_a_link_that_was_deleted_is_plugged_again(chain: Lab) -> None:
    before = pids(chain)
    chain.enter("r2", ["ip", "link", "delete", "eth1"])
    assert recap(chain.playbook("lab_up").stdout)["changed"] == 1
    assert pids(chain) == before
    assert " 0% packet loss" in chain.enter("h1", ["ping", "-c", "1", "-w", "10", "10.0.2.4"]).stdout


def test_site_drops_exactly_each_fifth_on_the_routers_link(chain: Lab, tmp_path: Path) -> None:
    """With what the host's kernel has: delay needs a netem, which it may lack."""
    asked = tmp_path / "asked.json"
    # Echoes alone: without a match, questions for neighbours count too.
    echo = {"name": "echo", "match": {"protocol": "icmp"}, "drop": {"every": 5}}
    asked.write_text(json.dumps({"impairment_interfaces": [{"name": "eth1", "classes": [echo]}]}))
    ping = ["ping", "-q", "-c", "100", "-i", "0.01", "-W", "2", "10.0.2.4"]
    host_state = Path("/run/impair.testbed/before")
    known = {entry.name for entry in host_state.iterdir()} if host_state.exists() else set()
    assert "failed=0" in chain.playbook("site", "-l", "r1", "-e", f"@{asked}").stdout
    assert "80 received" in chain.enter("h1", ping, check=False).stdout
    assert "changed=0" in chain.playbook("site", "-l", "r1", "-e", f"@{asked}", "--tags", "impairment").stdout
    assert chain.enter("r1", ["test", "-d", "/run/impair.testbed"], check=False).returncode == 0
    assert "failed=0" in chain.playbook("clear", "-l", "r1", "--tags", "impairment").stdout
    assert "100 received" in chain.enter("h1", ping).stdout
    now = {entry.name for entry in host_state.iterdir()} if host_state.exists() else set()
    assert "eth1" not in " ".join(now - known)


def test_two_labs_with_the_same_addresses_do_not_meet_and_nothing_is_left_of_the_second(chain: Lab) -> None:
    """Also of what was started inside and never ended."""
    before = host()
    other = Lab(f"{chain.name}b", base=chain.base, extra=NETNS)
    ping = ["ping", "-c", "2", "-i", "0.1", "-W", "1", "10.0.2.4"]
    with contextlib.ExitStack() as stack:
        try:
            other.playbook("lab_up")
            spaces = stack.enter_context(held(other))
            assert len([space for space in spaces if space.startswith("net:")]) == 1 + len(NODES)
            other.enter("h2", ["ip", "link", "set", "eth0", "down"])
            other.enter("h1", ["sh", "-c", "setsid sleep 4712 >/dev/null 2>&1 </dev/null &"])
            assert " 0 received" in other.enter("h1", ping, check=False).stdout
            assert " 0% packet loss" in chain.enter("h1", ping).stdout
            macs = {lab.name: lab.enter("h1", ["cat", "/sys/class/net/eth0/address"]).stdout for lab in (chain, other)}
            assert macs[chain.name] != macs[other.name]
        finally:
            assert recap(other.playbook("lab_down").stdout)["changed"] == 1
        wait_for(lambda: not processes(other))
        wait_for(lambda: spaces.isdisjoint(entered()))
    assert not other.run_dir.exists()
    assert "sleep 4712 " not in running()
    assert host() == before
    assert " 0% packet loss" in chain.enter("h1", ping).stdout


@pytest.fixture
def outside() -> Iterator[Netns]:
    """A machine outside, and the cable from it: `device` is this machine's port, `peer` is its interface."""
    made = Netns(f"far-{os.getpid()}", f"port{os.getpid()}", "eth0")
    run(["ip", "netns", "add", made.name])
    try:
        run(["ip", "link", "add", "name", made.device, "type", "veth", "peer", "name", made.peer, "netns", made.name])
        made.run(["ip", "address", "add", "198.51.100.9/24", "dev", made.peer])
        made.run(["ip", "link", "set", made.peer, "up"])
        yield made
    finally:
        run(["ip", "netns", "delete", made.name])


def test_given_addresses_routes_and_mtu_and_a_port_to_a_real_node(outside: Netns, tmp_path: Path) -> None:
    """Nothing computed: left — mid — right with a jumbo link, and at mid a port of this machine, which comes back."""
    links = [
        {"name": "a", "ends": [{"node": "left", "interface": "t0"}, {"node": "mid", "interface": "up"}]},
        {"name": "b", "mtu": 9000, "ends": [{"node": "mid", "interface": "b"}, {"node": "right", "interface": "x"}]},
        {
            "name": "cable",
            "ends": [
                {"node": "mid", "interface": "eth0"},
                {"node": "far", "interface": "eth0", "port": outside.device},
            ],
        },
    ]
    hosts = {
        "left": {"node_interfaces": [{"name": "t0", "address": "192.0.2.1/25", "gateway": "192.0.2.2"}]},
        "mid": {
            "node_interfaces": [
                {"name": "up", "address": "192.0.2.2/25"},
                {"name": "b", "address": "192.0.2.129/26", "addresses": ["2001:db8::1/64"]},
                {"name": "eth0", "address": "198.51.100.1/24"},
            ]
        },
        "right": {
            "node_interfaces": [{"name": "x", "address": "192.0.2.130/26", "addresses": ["2001:db8::2/64"]}],
            "node_routes": [{"to": "192.0.2.0/25", "via": "192.0.2.129"}],
        },
        "far": {"lab_node_kind": "real", "node_interfaces": [{"name": "eth0", "address": "198.51.100.9/24"}]},
    }
    common = {"lab_node_kind": "netns", "lab_links": links, "lab_routers": ["mid"]}
    inventory = tmp_path / "own.yml"
    inventory.write_text(json.dumps({"testbed": {"hosts": hosts, "vars": common}}))
    lab = Lab(f"giventest-{os.getpid()}", base=str(inventory))
    run(["ip", "address", "add", "203.0.113.1/32", "dev", outside.device])
    refused = lab.playbook("lab_up", check=False).stdout
    assert "lab_links[2].ends[1].port" in refused and "uses it, as 203.0.113.1" in refused
    run(["ip", "address", "flush", "dev", outside.device])
    try:
        lab.playbook("lab_up")
        one, big = ["ping", "-c", "1", "-w", "20"], ["ping", "-c", "1", "-w", "20", "-M", "do", "-s", "8972"]
        for node, argv in (
            ("left", [*one, "192.0.2.130"]),
            ("mid", [*big, "192.0.2.130"]),
            ("mid", [*one, "2001:db8::2"]),
            ("mid", [*one, "198.51.100.9"]),
        ):
            assert " 0% packet loss" in lab.enter(node, argv).stdout
        assert lab.enter("left", [*big, "192.0.2.2"], check=False).returncode != 0
        assert run(["ip", "link", "show", "dev", outside.device], check=False).returncode != 0
        assert recap(lab.playbook("lab_up").stdout)["changed"] == 0
    finally:
        lab.playbook("lab_down")
    back = json.loads(run(["ip", "-j", "-d", "link", "show", "dev", outside.device]).stdout)[0]
    assert "master" not in back and "UP" not in back["flags"]
