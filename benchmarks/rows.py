# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured, as rows: printed as a table, kept as JSON. Never asserted, only shown beside the goals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple


class Row(NamedTuple):
    """Ours against a peer's, in seconds unless the name says otherwise; a text where there is no figure."""

    name: str
    ours: float | str
    peer: float | str
    goal: float | None = None  # the ratio is to be at most this
    spread: tuple[float, float] | None = None  # between these is the middle half of the single rounds' ratios

    @property
    def ratio(self) -> float | None:
        both = isinstance(self.ours, float) and isinstance(self.peer, float) and self.peer
        return float(self.ours) / float(self.peer) if both else None


def middle(figures: Sequence[Any]) -> float | str:
    """The median of several rounds, or the reason why there is none."""
    numbers = [figure for figure in figures if isinstance(figure, (int, float))]
    if numbers:
        return float(median(numbers))
    return str(figures[0]) if figures else "not asked for"


def spread(ours: Sequence[float], peer: Sequence[float]) -> tuple[float, float] | None:
    """Quartiles of the ratios, round by round; None of a single round."""
    ratios = [one / other for one, other in zip(ours, peer)]
    if len(ratios) < 2:
        return None
    low, _middle, high = quantiles(ratios, n=4, method="inclusive")
    return round(low, 3), round(high, 3)


def shown(figure: float | str, name: str) -> str:
    if isinstance(figure, str):
        return figure.split(":")[0]
    if name.startswith("packet"):
        return f"{figure:.0f} ns"
    return f"{figure:.3f} s" if figure >= 1 else f"{1000 * figure:.1f} ms"


def table(rows: Sequence[Row]) -> str:
    """Aligned columns, and below them the reasons of those who cannot."""
    width = max((len(row.name) for row in rows), default=10)
    lines = [f"{'':{width}}  {'ours':>10}  {'peer':>14}  {'ratio':>7}  {'middle half':>11}  goal"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        half = "{:.2f}-{:.2f}".format(*row.spread) if row.spread else ""
        goal = "" if row.goal is None else f"<= {row.goal:g}"
        if row.goal is not None and row.ratio is not None:
            goal += "  reached" if row.ratio <= row.goal else "  MISSED"
        cells = f"{shown(row.ours, row.name):>10}  {shown(row.peer, row.name):>14}  {ratio:>7}  {half:>11}"
        lines.append(f"{row.name:{width}}  {cells}  {goal}".rstrip())
    reasons = {cell for row in rows for cell in (row.ours, row.peer) if isinstance(cell, str) and ":" in cell}
    return "\n".join([*lines, "", *sorted(reasons)])


def save(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{**row._asdict(), "ratio": row.ratio and round(row.ratio, 3)} for row in rows]
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
