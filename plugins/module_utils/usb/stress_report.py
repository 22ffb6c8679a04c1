# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of usb_stress have shown: rows, a table for the terminal, a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

JUMP = 3  # a loop that takes more than so many medians is a jump
TEN = 10  # loops that the original's logs count together
COLOURS = ("#1b7837", "#2166ac", "#e08214", "#b2182b", "#762a83", "#4d4d4d")
WIDTH, HEIGHT, LEFT, TOP, GAP = 860, 190, 70, 40, 50  # of a panel, in pixels


class Row(NamedTuple):
    """One test by one way; times in seconds, of the loops that did not fail. None: too few for that."""

    way: str
    test: str
    loops: int
    failures: int
    median: float | None
    longest: float | None
    ten: tuple[float, float] | None  # shortest and longest ten loops in a row, from the first on
    jumps: int
    first_connect: float | None
    said: str  # of the first failure


def rows(runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each way and test. A run has `way`, and what module usb_stress returned; one that failed as a whole has
    no tests and what it `said`."""
    found = []
    for run in runs:
        if not run["tests"]:
            found.append(Row(run["way"], "none", 0, 0, None, None, None, 0, None, run.get("said", "")))
        found += [_row(run, test, loops) for test, loops in run["tests"].items()]
    return found


def _row(run: Mapping[str, Any], test: str, loops: Sequence[Mapping[str, Any]]) -> Row:
    good = [float(loop["seconds"]) for loop in loops if not loop["failed"]]
    failed = [str(loop["failed"]) for loop in loops if loop["failed"]]
    middle = median(good) if good else None
    return Row(
        run["way"],
        test,
        len(loops),
        len(failed),
        middle,
        max(good, default=None),
        _tens(loops),
        sum(middle is not None and seconds > JUMP * middle for seconds in good),
        run.get("first_connect"),
        failed[0] if failed else "",
    )


def _tens(loops: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """As the original's logs: the time from each tenth loop to the next, failures included."""
    marks = [float(loop["at"]) for loop in loops[::TEN]]
    steps = [later - earlier for earlier, later in pairwise(marks)]
    return (min(steps), max(steps)) if steps else None


def table(of: Sequence[Row]) -> str:
    """Columns of text, a line for each row."""
    head = ("way", "test", "loops", "failed", "median", "longest", "per 10 loops", "jumps", "first connect")
    lines = [head, *(_cells(row) for row in of)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = []
    for line in lines:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        shown.append("  ".join(cells).rstrip())
    failures = [f"{row.way}, {row.test}: {row.said}" for row in of if row.said]
    return "\n".join([*shown, *failures])


def _cells(row: Row) -> tuple[str, ...]:
    ten = "-" if row.ten is None else f"{row.ten[0]:.2f}-{row.ten[1]:.2f} s"
    times = [_seconds(value) for value in (row.median, row.longest)]
    return (
        row.way,
        row.test,
        str(row.loops),
        str(row.failures),
        *times,
        ten,
        str(row.jumps),
        _seconds(row.first_connect),
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def plot(runs: Sequence[Mapping[str, Any]]) -> str:
    """An SVG: a panel for each test, a line for each way, the loops' times on a logarithmic scale."""
    tests = list(dict.fromkeys(test for run in runs for test in run["tests"]))
    ways = list(dict.fromkeys(run["way"] for run in runs))
    colours = {way: COLOURS[number % len(COLOURS)] for number, way in enumerate(ways)}
    height = TOP + len(tests) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}"',
        ' font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
    ]
    for number, way in enumerate(ways):
        parts.append(f'<text x="{LEFT + number * 180}" y="18" fill="{colours[way]}">{escape(way)}</text>')
    for number, test in enumerate(tests):
        lines = {run["way"]: run["tests"][test] for run in runs if test in run["tests"]}
        parts += _panel(test, lines, colours, TOP + number * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    test: str, lines: Mapping[str, Sequence[Mapping[str, Any]]], colours: Mapping[str, str], top: int
) -> list[str]:
    times = [max(float(loop["seconds"]), 1e-6) for loops in lines.values() for loop in loops] or [1.0]
    low, high = math.floor(math.log10(min(times))), math.floor(math.log10(max(times))) + 1
    most = max((len(loops) for loops in lines.values()), default=1)

    def place(number: int, seconds: float) -> tuple[float, float]:
        share = (math.log10(max(seconds, 1e-6)) - low) / (high - low)
        return LEFT + number * WIDTH / max(most - 1, 1), top + HEIGHT * (1 - share)

    parts = [f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{escape(test)}: seconds a loop, {most} loops</text>']
    for power in range(low, high + 1):
        y = place(0, 10.0**power)[1]
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for way, loops in lines.items():
        points = [place(number, float(loop["seconds"])) for number, loop in enumerate(loops)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[way]}"/>')
        failed = [point for point, loop in zip(points, loops) if loop["failed"]]
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[way]}"/>' for x, y in failed]
    return parts
