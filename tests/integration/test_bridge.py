# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bridge on a real node, managed over the very interface that becomes a port. Judged by ip and a counted stream."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.integration.places import CHECKOUT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.minutes]

MAIN = "/etc/network/interfaces"
PORTS = ["eth0", "enx8cae4cf5b7ae"]
BRIDGE: dict[str, Any] = {"name": "br0", "ports": PORTS, "address": "192.168.1.107/24", "confirm_within": 60}
GAP_SECONDS = 5.0
# an interface with an address, options behind it, a comment inside, a foreign interface, and no newline at the end
FOREIGN = """# by hand
auto lo eth0
iface eth0 inet static
\taddress 192.168.1.107
\t# the office
\tnetmask 255.255.255.0

auto dummy7
iface dummy7 inet manual
\tpre-up ip link add dummy7 type dummy || true
source-directory /etc/network/interfaces.d"""
# A bridge is up once a port forwards, and a route follows each address that nobody else turned out to have.
SETTLE = """while [ "$(cat /sys/class/net/br0/operstate 2>/dev/null)" = down ]; do sleep 0.1; done
while ip -6 address show tentative | grep -q .; do sleep 0.1; done
"""
SNAPSHOT = r"""ip -d address | sed 's/minmtu.*//; s/ qdisc [a-z_]*//; s/ tentative//; /valid_lft/d'
ip route show table all | sort
sort /run/network/ifstate; cat /etc/network/interfaces; stat -c '%n %a %u %g %s' /etc/network/interfaces
ls -R /etc/network /etc/systemd/network /etc/NetworkManager /var/lib/impair.testbed 2>&1
ls -R /run/impair.testbed/bridge 2>&1; true"""


def snapshot(lab: Lab, node: str = "master") -> str:
    """Interfaces, addresses, routes and files, without the times that pass by themselves."""
    return lab.run(node, ["sh", "-c", SETTLE + SNAPSHOT]).stdout


def over_the_port(lab: Lab) -> list[str]:
    """Options that make Ansible reach the master through the laptop: its TCP connection crosses the link under test."""
    config = lab.run_dir / "ssh_config"
    arguments = (
        f'-o ProxyCommand="ssh -F {config} -W 192.168.1.107:22 laptop" -o ServerAliveInterval=0 '
        f"-o UserKnownHostsFile={lab.run_dir}/known_hosts -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    )
    options = {"ansible_ssh_common_args": arguments, "ansible_control_path_dir": str(lab.run_dir / "cp-port")}
    return ["-e", json.dumps(options)]


def bridge(lab: Lab, asked: dict[str, Any], *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One call of the module on the master."""
    return lab.module("master", "impair.testbed.bridge", json.dumps(asked), *options, check=check)


def values(output: str) -> dict[str, Any]:
    """The result in what `ansible` printed for one host."""
    found: dict[str, Any] = yaml.safe_load(output.partition("=>")[2])
    return found


@pytest.fixture
def master(lab: Lab) -> Iterator[Lab]:
    """The master as a plain host at 192.168.1.107 on eth0, configured by hand."""
    first = lab.run("master", ["cat", MAIN]).stdout
    lab.run("master", ["sh", "-c", f"cat > {MAIN}"], stdin=FOREIGN)
    lab.run("master", ["sh", "-c", f"chmod 640 {MAIN}; ifup eth0 dummy7"])
    lab.run("laptop", ["sh", "-c", "ip addr replace 192.168.1.147/24 dev enp3s0; ip link set enp3s0 up"])
    lab.run("laptop", ["ping", "-c", "1", "-W", "5", "192.168.1.107"])
    yield lab
    bridge(lab, {"state": "absent"})
    lab.run("master", ["sh", "-c", "ifdown eth0 dummy7; ip link delete dummy7; ip address flush dev eth0"])
    lab.run("master", ["sh", "-c", f"cat > {MAIN}; chmod 644 {MAIN}"], stdin=first)


class Stream:
    """A counter that the master prints twenty times a second, read over one ssh connection across the port."""

    def __init__(self, lab: Lab) -> None:
        proxy = f"ProxyCommand=ssh -F {lab.run_dir}/ssh_config -W 192.168.1.107:22 laptop"
        count = "i=0; while sleep 0.05; do i=$((i+1)); echo $i; done"
        argv = ["ssh", "-F", str(lab.run_dir / "ssh_config"), "-o", "ControlPath=none", "-o", proxy, "master", count]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def until(self, number: int) -> float:
        """Read on to this number; all numbers must come. Returns the longest silence in seconds."""
        longest, last = 0.0, time.monotonic()
        assert self._process.stdout
        for line in self._process.stdout:
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            self.seen = int(line)
            if self.seen >= number:
                return longest
        pytest.fail(f"the connection ended after {self.seen}")

    seen = 0

    def close(self) -> None:
        """End the connection."""
        self._process.kill()
        self._process.wait()


@pytest.mark.alone
def test_the_connection_over_the_port_survives(master: Lab) -> None:
    before = snapshot(master)
    stream = Stream(master)
    try:
        stream.until(5)
        change = subprocess.Popen(
            ["ansible", "master", "-i", "inventories/virtual", "-e", f"lab_name={master.name}",
             "-m", "impair.testbed.bridge", "-a", json.dumps(BRIDGE), *over_the_port(master)],
            cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        gap = stream.until(300)
        output = change.communicate(timeout=300)[0]
    finally:
        stream.close()
    assert change.returncode == 0, output
    assert gap < GAP_SECONDS
    print(f"gap {gap:.2f} s")
    brief = master.run("master", ["ip", "-br", "address"]).stdout
    assert "192.168.1.107/24" in next(line for line in brief.splitlines() if line.startswith("br0 "))
    macs = master.run("master", ["sh", "-c", "cat /sys/class/net/eth0/address /sys/class/net/br0/address"]).stdout
    assert len(set(macs.split())) == 1
    assert set(master.run("master", ["ls", "/sys/class/net/br0/brif"]).stdout.split()) == set(PORTS)
    text = master.run("master", ["cat", MAIN]).stdout
    assert "iface dummy7 inet manual\n\tpre-up ip link add dummy7 type dummy || true\n" in text
    assert bridge(master, BRIDGE).stdout.startswith("master | SUCCESS")
    bridge(master, {"state": "absent"}, *over_the_port(master))
    assert snapshot(master) == before


def test_without_a_confirmation_the_node_goes_back(master: Lab) -> None:
    before = snapshot(master)
    away = {**BRIDGE, "address": "192.168.1.200/24", "confirm_within": 8}
    done = bridge(master, away, *over_the_port(master), check=False)
    assert done.returncode != 0
    assert "went back" in done.stdout + done.stderr
    assert snapshot(master) == before


def test_check_mode_says_what_the_run_then_does(master: Lab) -> None:
    before = snapshot(master)
    said = bridge(master, BRIDGE, "--check").stdout
    assert snapshot(master) == before
    made = bridge(master, BRIDGE).stdout
    steps = [values(text)["steps"] for text in (said, made)]
    assert steps[0] == steps[1]
    assert steps[0]


def test_a_port_that_was_taken_out_goes_back_without_touching_the_bridge(master: Lab) -> None:
    bridge(master, BRIDGE)
    index = master.run("master", ["cat", "/sys/class/net/br0/ifindex"]).stdout
    master.run("master", ["ip", "link", "set", "enx8cae4cf5b7ae", "nomaster"])
    again = bridge(master, BRIDGE).stdout
    assert values(again)["steps"] == ["ip link set dev enx8cae4cf5b7ae master br0"]
    assert master.run("master", ["cat", "/sys/class/net/br0/ifindex"]).stdout == index


def test_what_is_live_is_what_boots(master: Lab) -> None:
    bridge(master, BRIDGE)
    live = "ip -d address | sed 's/minmtu.*//; s/^[0-9]*: //; s/ tentative//; /valid_lft/d; /id 8000/d'; ip route"
    before = master.run("master", ["sh", "-c", SETTLE + live]).stdout
    master.run("master", ["sh", "-c", "ifdown br0 && ifup br0"])
    assert master.run("master", ["sh", "-c", SETTLE + live]).stdout == before
    assert bridge(master, BRIDGE).stdout.startswith("master | SUCCESS")


REFUSED: list[tuple[dict[str, Any], str]] = [  # what only the node can know, and one that anybody can
    ({"ports": ["eth0", "eth9"]}, "bridge_ports[1]"),
    ({"name": "mgmt0"}, "bridge_name"),
    ({"gateway": "10.0.0.1"}, "bridge_gateway"),
]


def test_bad_input_is_refused_with_its_path(master: Lab) -> None:
    before = snapshot(master)
    for wrong, path in REFUSED:
        done = bridge(master, {**BRIDGE, **wrong}, check=False)
        assert done.returncode != 0, wrong
        message = values(done.stdout)["msg"]
        assert f"{path}: " in message, (wrong, message)
        assert "allowed" in message or "the node" in message or "cannot" in message or "once" in message, message
    assert snapshot(master) == before
