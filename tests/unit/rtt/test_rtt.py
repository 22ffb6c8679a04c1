# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Round trips: what ping says, as figures and as a table."""

from __future__ import annotations

from typing import Any

from plugins.module_utils.rtt import results, table

SAID = """PING 10.0.0.4 (10.0.0.4) 56(84) bytes of data.

--- 10.0.0.4 ping statistics ---
20 packets transmitted, 19 received, 5% packet loss, time 3814ms
rtt min/avg/max/mdev = 0.116/0.133/0.192/0.031 ms
"""
SILENT = """
--- 10.0.0.9 ping statistics ---
20 packets transmitted, 0 received, 100% packet loss, time 19460ms
"""


def pings() -> list[dict[str, Any]]:
    return [
        {"__rtt_path": {"name": "guest", "address": "10.0.0.4", "figure": "vf"}, "stdout": SAID, "stderr": ""},
        {"__rtt_path": {"name": "other", "address": "10.0.0.9"}, "stdout": SILENT, "stderr": ""},
        {"__rtt_path": {"name": "third", "address": "10.9"}, "stdout": "", "stderr": "connect: Network is unreachable"},
    ]


def test_figures_of_ping() -> None:
    found = results(pings())
    times = {"min": 0.116, "avg": 0.133, "max": 0.192, "mdev": 0.031}
    assert found[0] == {"name": "guest", "figure": "vf", "failed": "", "sent": 20, "received": 19, **times}
    assert [(one["sent"], one["received"], one["avg"]) for one in found[1:]] == [(20, 0, None), (0, 0, None)]
    assert [one["failed"] for one in found[1:]] == ["10.0.0.9 does not answer", "connect: Network is unreachable"]


def test_the_table_has_both_beside_each_other() -> None:
    figures = {"vf": {"card": "10 Gbit/s", "min": 1, "avg": 2, "max": 3.5, "mdev": 0.25}}
    lines = table({"host": "qemu, Linux 6.1", "paths": results(pings())}, figures)
    rows = [line.split() for line in lines]
    ours = ["guest", "19", "of", "20", "0.116", "0.133", "0.192", "0.031"]
    assert [*ours, "vf", "10", "Gbit/s", "1.000", "2.000", "3.500", "0.250"] in rows
    assert ["other", "0", "of", "20", *"--------"] in rows
    assert lines[-2:] == ["other: 10.0.0.9 does not answer", "third: connect: Network is unreachable"]
