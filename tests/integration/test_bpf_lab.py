# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BPF programs over ssh on a node of the virtual lab, which has neither a compiler nor bpftool."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.integration.own_programs import EVERY_NTH
from tests.integration.places import Lab

NODE, DEVICE = "master", "eth0"
COUNT = 40
SETUP = f"""
ip link set {DEVICE} up
sysctl -qw net.ipv6.conf.{DEVICE}.disable_ipv6=1
ip address add 10.99.0.1/24 dev {DEVICE}
ip neighbour add 10.99.0.2 lladdr 02:00:00:00:99:02 dev {DEVICE} nud permanent
"""
SEND = f"""
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({COUNT}):
    sender.sendto(bytes(20), ("10.99.0.2", 5000))
"""
CLEANUP = f"""
ip neighbour del 10.99.0.2 dev {DEVICE}
ip address del 10.99.0.1/24 dev {DEVICE}
sysctl -qw net.ipv6.conf.{DEVICE}.disable_ipv6=0
"""


def shell(lab: Lab, text: str) -> str:
    return lab.run(NODE, ["sh", "-e"], stdin=text).stdout


def module(lab: Lab, which: str, **arguments: Any) -> dict[str, Any]:
    said = lab.module(NODE, f"impair.testbed.{which}", json.dumps(arguments)).stdout
    found: dict[str, Any] = yaml.safe_load(re.split(r"=> *\n", said)[-1])
    return found


def sent(lab: Lab) -> int:
    """Of 40 datagrams, which nobody takes, those that left the interface. (ping hears of its loss, and sends again.)"""
    count = f"cat /sys/class/net/{DEVICE}/statistics/tx_packets"
    before, after = shell(lab, f"{count}; python3 -c '{SEND}'; {count}").split()
    return int(after) - int(before)


@pytest.mark.lab
def test_programs_on_a_node_without_a_compiler(lab: Lab) -> None:
    assert not shell(lab, "command -v clang bpftool || true")
    tc = f"tc qdisc show dev {DEVICE}; tc filter show dev {DEVICE} egress 2>/dev/null || true"
    shell(lab, SETUP)
    before = shell(lab, tc)
    try:
        pattern = {"name": DEVICE, "match": {"protocol": "udp"}, "drop": {"pattern": "0001"}}
        interfaces = [{"name": DEVICE, "classes": [pattern]}]
        module(lab, "impairment", interfaces=interfaces)
        assert sent(lab) == COUNT * 3 // 4
        assert not module(lab, "impairment", interfaces=interfaces)["changed"]
        own = {"name": "nth", "interface": DEVICE, "attach": "egress", "source": str(EVERY_NTH)}
        made = module(lab, "bpf", **own, maps={"every": {0: 5}})
        assert sorted(made["maps"]) == ["every", "seen"]
        assert not module(lab, "bpf", **own, maps={"every": {0: 5}})["changed"]
        # What it accepts (0) the impairment does not see: of the 8 that it passes on (-1), that loses 2.
        assert sent(lab) == COUNT - 2
        assert module(lab, "bpf", name="nth", interface=DEVICE, state="absent")["changed"]
        assert sent(lab) == COUNT * 3 // 4
    finally:
        module(lab, "impairment", state="absent")
        left = shell(lab, tc)
        shell(lab, CLEANUP)
    assert left == before
