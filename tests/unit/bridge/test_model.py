# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bridge may be asked to be."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.bridge.model import parse
from plugins.module_utils.errors import InvalidInput

GOOD: dict[str, Any] = {"name": "br0", "ports": ["eth0", "eth1"], "address": "192.168.1.107/24"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "bridge_name"),
    ({"name": ""}, "bridge_name"),
    ({"name": "br0123456789abcd"}, "bridge_name"),
    ({"name": "br 0"}, "bridge_name"),
    ({"name": "br/0"}, "bridge_name"),
    ({"name": "br0:1"}, "bridge_name"),
    ({"name": ".."}, "bridge_name"),
    ({"name": "lo"}, "bridge_name"),
    ({"name": "eth1"}, "bridge_ports[1]"),
    ({"ports": None}, "bridge_ports"),
    ({"ports": []}, "bridge_ports"),
    ({"ports": "eth0"}, "bridge_ports"),
    ({"ports": ["eth0", "eth0"]}, "bridge_ports[1]"),
    ({"ports": ["eth0", "eth1", "lo"]}, "bridge_ports[2]"),
    ({"ports": ["eth0\nup reboot"]}, "bridge_ports[0]"),
    ({"address": "192.168.1.107"}, "bridge_address"),
    ({"address": "192.168.1.107/33"}, "bridge_address"),
    ({"address": "192.168.1.107/255.255.255.0"}, "bridge_address"),
    ({"address": "192.168.1.0/24"}, "bridge_address"),
    ({"address": "192.168.1.255/24"}, "bridge_address"),
    ({"address": "127.0.0.1/8"}, "bridge_address"),
    ({"address": "224.0.0.1/24"}, "bridge_address"),
    ({"address": "0.0.0.0/0"}, "bridge_address"),
    ({"address": "dhcp/24"}, "bridge_address"),
    ({"gateway": "10.0.0.1"}, "bridge_gateway"),
    ({"gateway": "192.168.1.107"}, "bridge_gateway"),
    ({"gateway": "router"}, "bridge_gateway"),
    ({"gateway": "192.168.1.1", "address": ""}, "bridge_gateway"),
    ({"hw": "eth7"}, "bridge_hw"),
    ({"hw": "01:00:5e:00:00:01"}, "bridge_hw"),
    ({"hw": "00:00:00:00:00:00"}, "bridge_hw"),
    ({"fd": 1}, "bridge_fd"),
    ({"fd": 31}, "bridge_fd"),
    ({"fd": -2}, "bridge_fd"),
    ({"fd": 0, "stp": True}, "bridge_fd"),
]


@pytest.mark.parametrize(("wrong", "path"), BAD, ids=[f"{path}-{index}" for index, (_wrong, path) in enumerate(BAD)])
def test_refused_with_its_path(wrong: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse({**GOOD, **wrong})
    assert refused.value.path == path
    assert refused.value.allowed


def test_accepted() -> None:
    asked = parse({**GOOD, "hw": "02-00-00-00-00-0A", "gateway": "192.168.1.1"})
    assert (asked.hw, asked.gateway, asked.family) == ("02:00:00:00:00:0a", "192.168.1.1", "inet")
    assert parse({**GOOD, "address": "2001:db8::7/64", "gateway": "fe80::1"}).family == "inet6"
    assert parse({**GOOD, "address": "10.0.0.0/31"}).address == "10.0.0.0/31"
    assert parse({**GOOD, "address": None}).address == ""
