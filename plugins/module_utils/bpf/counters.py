# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules of BPF programs have counted, for people and playbooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .rules import RulesDomain, rule_text


def counted(domain: RulesDomain) -> list[dict[str, Any]]:
    """A row for each rule that stands: where, what is asked, and what it has counted since it stands."""
    states = domain.states()
    return [
        {"rule": key, **_where(rule.label), "asked": rule_text(rule), **states[key]._asdict()}
        for key, rule in domain.observe()
        if key in states
    ]


def _where(label: str) -> dict[str, Any]:
    """`-> eth0: video` (impairment/compile.py) as an interface, a direction and a class; several that count as one."""
    arrow, _space, rest = label.partition(" ")
    interface, _colon, name = rest.partition(": ")
    return {"interface": interface, "direction": "ingress" if arrow == "<-" else "egress", "class": name}


def warning(row: Mapping[str, Any]) -> str:
    """What is to be known about superpackets in a row; "" where there were none."""
    if not row["superpackets"]:
        return ""
    place = f"{row['interface']} {row['direction']}, class {row['class']}"
    return (
        f"{place}: {row['superpackets']} of {row['seen']} packets were superpackets, so {row['segments']} packets of "
        "the wire suffered as so few; leave `offloads` at manage, or switch off GRO, LRO, TSO and GSO where they come "
        "from (docs/offloads.md)"
    )
