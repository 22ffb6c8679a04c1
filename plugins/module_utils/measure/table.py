# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that people read."""

from __future__ import annotations

from collections.abc import Sequence

from .evaluate import Row

HEAD = ("node", "interface", "class", "direction", "quantity", "asked", "got", "tolerance", "verdict")


def cells(row: Row) -> tuple[str, ...]:
    place = row.node, row.interface, row.class_name, row.direction
    return (*place, row.quantity, row.asked, row.got or "-", row.tolerance or "-", "ok" if row.ok else "FAILED")


def render(rows: Sequence[Row]) -> list[str]:
    """Lines of equal columns; a row's note follows it."""
    lines = [cells(row) for row in rows]
    widths = [max(len(line[column]) for line in [HEAD, *lines]) for column in range(len(HEAD))]
    shown = [_line(HEAD, widths), _line(["-" * width for width in widths], widths)]
    for row, line in zip(rows, lines):
        shown.append(_line(line, widths))
        if row.note:
            shown.append(" " * 6 + "↳ " + row.note)
    return shown


def brief(row: Row) -> str:
    """One row as it comes in."""
    verdict = "ok" if row.ok else "FAILED"
    note = f" — {row.note}" if row.note else ""
    tolerance = f" ({row.tolerance})" if row.tolerance else ""
    place = f"{row.node} {row.interface} {row.direction} {row.class_name}"
    return f"{place}: {row.quantity} {row.asked}, got {row.got or '-'}{tolerance}: {verdict}{note}"


def _line(parts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(part.ljust(width) for part, width in zip(parts, widths)).rstrip()
