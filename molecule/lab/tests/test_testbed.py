# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The original testbed as site.yml leaves it, judged by the nodes' own programs and by packets."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

PORTS = ("eth0", "enx8cae4cf5b7ae")


def test_bridge_is_what_ifupdown_knows(master: Host) -> None:
    assert master.file("/etc/network/interfaces").exists
    assert "br0" in master.check_output("ifquery --state")
    ports = re.findall(r"^\d+: (\S+?)[@:]", master.check_output("ip -o link show master br0"), re.M)
    assert sorted(ports) == sorted(PORTS)
    assert "192.168.1.107" in master.interface("br0").addresses


@pytest.mark.parametrize("port", PORTS)
def test_each_port_is_shaped(master: Host, port: str) -> None:
    kinds = [line.split()[1] for line in master.check_output("tc qdisc show dev %s", port).splitlines()]
    assert kinds[0] == "htb"
    assert kinds.count("netem") == 3
    classes = master.check_output("tc class show dev %s", port)
    for words in ("rate 100Mbit", "rate 128Kbit ceil 128Kbit", "rate 1Mbit ceil 10Mbit"):
        assert words in classes


def test_every_20th_packet_of_the_device_is_missing(laptop: Host) -> None:
    """Pings pass two ports, each with a count of its own; with both at work two of 40 on each way are missing."""
    said = laptop.run("ping -q -n -c 40 -i 0.1 -s 32 -W 4 192.168.1.148").stdout
    found = re.search(r"40 packets transmitted, (\d+) received", said)
    assert found, said
    # 40 requests lose 2, the 38 replies lose 1 or 2, and ARP may take a place in either count.
    assert 34 <= int(found[1]) <= 38


def test_the_slow_lane_is_slow(laptop: Host) -> None:
    """60 frames of 1042 bytes are 3.9 s of 128 kbit/s; sent faster, the last ones wait for the first."""
    said = laptop.run("ping -q -n -c 60 -i 0.005 -s 1000 -W 10 192.168.1.148").stdout
    found = re.search(r"rtt min/avg/max/mdev = [\d.]+/[\d.]+/([\d.]+)/", said)
    assert found, said
    assert 300 < float(found[1]) < 4500


def test_the_way_in_is_not_impaired(master: Host) -> None:
    assert "mgmt0" in master.check_output("ip -o link show mgmt0")
    assert "htb" not in master.check_output("tc qdisc show dev mgmt0")


def test_the_other_nodes_carry_nothing_of_ours(laptop: Host, slave: Host) -> None:
    for host, interface in ((laptop, "enp3s0"), (slave, "eth0")):
        assert "htb" not in host.check_output("tc qdisc show dev %s", interface)
