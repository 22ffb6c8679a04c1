# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree that everybody builds: classes of HTB below one, and filters that lead one address each to them."""

from __future__ import annotations

from typing import Any

INTERFACE, OTHER_END = "bench0", "bench1"
FIRST_CLASS = 0x10
PER_PRIORITY = 2000  # u32 filters: the kernel takes 4095 in one hash table, and 2047 tables in one qdisc


def address(number: int) -> str:
    """The destination that filter `number` looks for."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def classid(number: int) -> str:
    return f"1:{FIRST_CLASS + number:x}"


def rate(number: int, changed: bool = False) -> str:
    """Every class has a rate of its own; the one-value change is another rate of the class in the middle."""
    return f"{1000 + 8 * number + 4 * changed}kbit"


def entries(classes: int, filters: int, changed: bool = False) -> dict[str, Any]:
    """Parameters of the module tc."""
    other = classes // 2 if changed else -1
    leaves = [
        {"kind": "htb", "parent": "1:1", "classid": classid(number), "rate": rate(number, number == other)}
        | {"ceil": "1gbit", "quantum": 1500}
        for number in range(classes)
    ]
    return {
        "interface": INTERFACE,
        "qdiscs": [{"kind": "htb", "parent": "root", "handle": "1:"}],
        "classes": [{"kind": "htb", "parent": "1:", "classid": "1:1", "rate": "1gbit", "quantum": 1500}, *leaves],
        "filters": [
            {
                "kind": "u32",
                "parent": "1:",
                "prio": 1 + number // PER_PRIORITY,
                "protocol": "ip",
                "match": [f"ip dst {address(number)}/32"],
                "flowid": classid(number % classes),
            }
            for number in range(filters)
        ],
    }


def commands(classes: int, filters: int) -> list[str]:
    """The same tree as lines for tc."""
    tree = entries(classes, filters)
    lines = [f"qdisc add dev {INTERFACE} root handle 1: htb"]
    for entry in tree["classes"]:
        ceil = f" ceil {entry['ceil']}" if "ceil" in entry else ""
        place = f"parent {entry['parent']} classid {entry['classid']}"
        lines.append(f"class add dev {INTERFACE} {place} htb rate {entry['rate']}{ceil} quantum 1500")
    for entry in tree["filters"]:
        place = f"parent 1: protocol ip prio {entry['prio']}"
        lines.append(f"filter add dev {INTERFACE} {place} u32 match {entry['match'][0]} flowid {entry['flowid']}")
    return lines


def change_command(classes: int) -> str:
    """What somebody who knows what stands and what differs would type."""
    number = classes // 2
    place = f"parent 1:1 classid {classid(number)}"
    return f"class change dev {INTERFACE} {place} htb rate {rate(number, True)} ceil 1gbit quantum 1500"
