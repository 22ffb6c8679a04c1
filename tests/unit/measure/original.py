# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The original testbed as the tests of measuring use it."""

from __future__ import annotations

from typing import Any

from plugins.module_utils.measure.topology import Lab, parse_lab

DEVICE = "enx8cae4cf5b7ae"
ORIGINAL: list[dict[str, Any]] = [
    {"name": "usbip", "match": {"protocol": "tcp", "port": 7575}, "rate": "100mbit"},
    {"name": "device", "match": {"bridged": True}, "rate": "128kbit", "drop": {"every": 20}},
    {"name": "other", "rate": "1mbit", "ceil": "10mbit"},
]
LINKS = [
    {"name": "network", "ends": [{"node": "laptop", "interface": "enp3s0"}, {"node": "master", "interface": "eth0"}]},
    {"name": "device", "ends": [{"node": "master", "interface": DEVICE}, {"node": "slave", "interface": "eth0"}]},
]


def lab_with(classes: list[dict[str, Any]], *interfaces: str) -> Lab:
    """The original testbed with these classes on master's interfaces."""
    impaired = [{"name": name, "classes": classes} for name in interfaces or (DEVICE,)]
    master = {"bridge_name": "br0", "bridge_ports": ["eth0", DEVICE], "bridge_address": "192.168.1.107/24"}
    return parse_lab(
        {
            "laptop": {"node_interfaces": [{"name": "enp3s0", "address": "192.168.1.147/24"}], "lab_links": LINKS},
            "master": {**master, "impairment_interfaces": impaired, "lab_links": LINKS},
            "slave": {"node_interfaces": [{"name": "eth0", "address": "192.168.1.148/24"}], "lab_links": LINKS},
        }
    )
