# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Round trips as ping measured them, beside the figures of somebody else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("min", "avg", "max", "mdev")  # ms
_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")
_TIMES = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms")


def results(pings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `ansible.builtin.command` registered in a loop over paths, as figures; `failed` is empty or has a reason."""
    found = []
    for ping in pings:
        path = next(value for key, value in ping.items() if key.endswith("_path"))
        summary, times = _SUMMARY.search(ping["stdout"]), _TIMES.search(ping["stdout"])
        measured: dict[str, Any] = {"name": path["name"], "figure": path.get("figure", ""), "failed": ""}
        measured |= {"sent": int(summary[1]), "received": int(summary[2])} if summary else {"sent": 0, "received": 0}
        measured |= dict(zip(FIGURES, map(float, times.groups()))) if times else dict.fromkeys(FIGURES)
        if times is None:
            measured["failed"] = ping.get("stderr", "").strip() or f"{path['address']} does not answer"
        found.append(measured)
    return found


def table(run: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of text."""
    rows = [("to", "got", *FIGURES, "source", "card", *FIGURES)]
    for path in run["paths"]:
        others = figures.get(path["figure"], {})
        got = f"{path['received']} of {path['sent']}"
        rows.append((path["name"], got, *_times(path), path["figure"], str(others.get("card", "")), *_times(others)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return [
        f"round trips in ms, {run['host']}, beside those of the source",
        "",
        *lines,
        *(f"{path['name']}: {path['failed']}" for path in run["paths"] if path["failed"]),
    ]


def _times(values: Mapping[str, Any]) -> list[str]:
    return ["-" if values.get(name) is None else f"{values[name]:.3f}" for name in FIGURES]
