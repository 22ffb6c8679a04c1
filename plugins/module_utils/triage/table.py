# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of a triage: what was measured beside what lines could carry, and beside the figures of somebody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OVERHEAD = 14 + 4 + 8 + 12  # bytes of Ethernet around an IP packet: header, check, preamble, gap
LINES = (1, 10, 40, 100)  # Gbit/s
NAMES = {"plain": "plain", "routed": "routed", "tunnel": "IPsec", "iptfs": "IP-TFS"}


def packets_per_second(size: int, gigabits: int) -> int:
    """IP packets of this size that a line carries, as the source counts them: whole ones."""
    return gigabits * 10**9 // 8 // (size + OVERHEAD)


def nanoseconds(size: int, gigabits: int) -> int:
    """What one packet takes on a line; whole nanoseconds, as the source has them."""
    return 8 * (size + OVERHEAD) // gigabits


Figures = Mapping[str, Mapping[str, str]]  # a column of somebody else's: its head, and what it says of each mode


def tables(runs: Sequence[Mapping[str, Any]], sizes: Sequence[int], others: Figures) -> list[str]:
    """Lines of text. A run is one path: `nodes` and `cpus` name it, `modes` has what was measured."""
    runs = [{**run, "modes": {mode: run["modes"][mode] for mode in NAMES if mode in run["modes"]}} for run in runs]
    lines = ["Mbit/s by iperf3, as received", ""]
    lines += _columns([("by", "path", "ping ms", "one way", "both ways", *others), *_streams(runs, others)])
    for run in runs:
        lines += ["", f"IP packets per second, and the time of one: what lines carry, and {_place(run)}", ""]
        names = [NAMES[mode] for mode in run["modes"]]
        head = ("bytes", *(f"{line} Gbit/s" for line in LINES), *names)
        lines += _columns([head, *(_packets(run, size) for size in sizes)])
    return lines + [line for run in runs for line in _failures(run)]


def _place(run: Mapping[str, Any]) -> str:
    return f"{run['nodes']}, {run['cpus']} CPU"


def _streams(runs: Sequence[Mapping[str, Any]], others: Figures) -> list[tuple[str, ...]]:
    rows = []
    for run in runs:
        for mode, found in run["modes"].items():
            both = found.get("both_ways")
            ways = " + ".join(map(_number, both)) if both else "-"
            shown = (_number(found.get("rtt")), _number(found.get("one_way")), ways)
            rows.append((_place(run), NAMES[mode], *shown, *(figures.get(mode, "-") for figures in others.values())))
    return rows


def _packets(run: Mapping[str, Any], size: int) -> tuple[str, ...]:
    lines = [f"{packets_per_second(size, line)} {nanoseconds(size, line)}ns" for line in LINES]
    rates = [found.get("packets", {}).get(str(size)) for found in run["modes"].values()]
    return (str(size), *lines, *(f"{rate} {10**9 // rate}ns" if rate else "-" for rate in rates))


def _failures(run: Mapping[str, Any]) -> list[str]:
    found = []
    for mode, result in run["modes"].items():
        reasons = [result["lacks"]] if "lacks" in result else [f"{k}: {v}" for k, v in result["failed"].items()]
        found += ["", *(f"{_place(run)}, {NAMES[mode]}: {reason}" for reason in reasons)] if reasons else []
    return found


def _number(value: float | None) -> str:
    """Two digits that say something."""
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [shown[0], "  ".join("-" * width for width in widths), *shown[1:]]
