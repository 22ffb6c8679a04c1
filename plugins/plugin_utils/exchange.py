# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what two nodes exchanged, with the figures of a source beside it.

A row has `what`, `server`, `client`, `good`, and as it applies `bytes`, `buffer`, `rate` (bytes/s, of messages round
trips/s) and `median` (µs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
HEAD = ("what", "server", "client", "size", "buffer", "measured", "source")
FIGURES = ("rate", "median")


def beside(row: Row, source: Sequence[Row]) -> dict[str, Any]:
    """The source's figures of the first entry whose other values the row has; empty where there is none."""
    for entry in source:
        if all(row.get(key) == value for key, value in entry.items() if key not in FIGURES):
            return {key: entry[key] for key in FIGURES if key in entry}
    return {}


def joined(rows: Sequence[Row], source: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with the source's figures as `source`."""
    return [{**row, "source": beside(row, source)} for row in rows]


def size(count: int | None) -> str:
    """Bytes as people write them, without rounding: powers of two in KiB and MiB."""
    if count is None:
        return ""
    if count.bit_count() == 1 and count >= 1 << 10:
        return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
    return f"{_thousands(count)} B"


def _thousands(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def figures(what: str, found: Row) -> str:
    """Rate, or median, or both, with units; empty where there is none."""
    unit = "/s" if what == "message" else " B/s"
    rate = f"{_thousands(found['rate'])}{unit}" if found.get("rate") is not None else ""
    median = f"{_thousands(found['median'])} µs" if found.get("median") is not None else ""
    return ", ".join(part for part in (rate, median) if part)


def render(rows: Sequence[Row], source: Sequence[Row]) -> str:
    """The table as lines of text."""
    lines = [HEAD]
    for row in joined(rows, source):
        measured = figures(row["what"], row) + ("" if row["good"] else "  NOT WHAT WAS SENT")
        first = (row["what"], row["server"], row["client"], size(row.get("bytes")), size(row.get("buffer")))
        lines.append((*first, measured, figures(row["what"], row["source"])))
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
