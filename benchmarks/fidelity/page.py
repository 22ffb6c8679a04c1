# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: a table a part, a column a kernel."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .asked import PARTS, TOLERANCE

HEAD = """# Fidelity: asked against got

What kernels really do with what is asked. Written by `make fidelity` on {date}; each figure is of packets that crossed
a veth pair between two network namespaces of a User-Mode-Linux kernel with one CPU, numbered and stamped by the sender
and by the kernel at the far end. The module `impairment` set the impairments; the packets were judged without it.

| kernel | unimpaired way | carries |
|---|---|---|
{kernels}

Figures outside are marked **▲**: a delay by more than {delay}, a deviation by more than {jitter}, a rate by more than
{rate}; of chances, where the 95 % interval does not hold what is asked (one row in twenty does so by chance alone).
"""
NOTES = {
    "jitter": """With `keep_order` (the default) a packet waits for those before it: the more packets a second, the more
the delay grows, and the less it varies. With `keep_order: false` packets overtake. The tables of pareto and
paretonormal end at four jitters, as those of tc, and what lies beyond is missing in the deviation.""",
    "loss": """The kernel's correlation of random loss mixes each random number with the one before, which changes the
share as well. For losses in a row take `gemodel` or `state`; their intervals are from the spread between 40 blocks of
packets.""",
    "rate": """A rate that the kernel under User-Mode-Linux does not carry is marked **(CPU)**.""",
    "share": """`reorder: 25%` sends a quarter of the packets at once; the others wait.""",
}


class Measured(NamedTuple):
    """One kernel: its Debian release, what it is like, and its rows."""

    suite: str
    about: dict[str, Any]
    rows: list[dict[str, Any]]


def page(kernels: Sequence[Measured]) -> str:
    about = []
    for suite, told, _rows in kernels:
        way, carries = 1000 * told["calibration"], told["carries"] / 1e6
        about.append(f"| Linux {told['kernel']} ({suite}) | {way:.0f} µs | {carries:.2f} Gbit/s |")
    head = HEAD.format(date=time.strftime("%Y-%m-%d"), kernels="\n".join(about), **TOLERANCE)
    return "\n".join([head, *(part(name, title, kernels) for name, title in PARTS.items())])


def part(name: str, title: str, kernels: Sequence[Measured]) -> str:
    """One table."""
    names = " | ".join(f"Linux {one.about['kernel']}" for one in kernels)
    lines = [f"## {title}", ""]
    lines += [NOTES[name], ""] if name in NOTES else []
    lines += [f"| asked | expected | packets | {names} |", "|---" * (3 + len(kernels)) + "|"]
    found: dict[str, list[dict[str, Any]]] = {}
    for one in kernels:
        for row in one.rows:
            if row["part"] == name:
                found.setdefault(json.dumps(row["impairment"]), []).append(row)
    for rows in found.values():
        cells = " | ".join(row["shown"] + _mark(row, one.about["carries"]) for row, one in zip(rows, kernels))
        first = rows[0]
        lines.append(f"| {asked(first)} | {first['expected']:g} | {first['train'][0]} | {cells} |")
    return "\n".join([*lines, ""])


def _mark(row: dict[str, Any], carries: float) -> str:
    if row["ok"]:
        return ""
    return " **(CPU)**" if row["part"] == "rate" and row["expected"] > carries / 2 else " **▲**"


def asked(row: dict[str, Any]) -> str:
    """The impairment as in the inventory."""
    words = json.dumps(row["impairment"]).replace('"', "")[1:-1]
    return f"`{words}`" + (f" ({row['note']})" if row["note"] and "keep_order" not in row["note"] else "")
