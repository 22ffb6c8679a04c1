# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of the engine as the result of a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .converge import Report


def result(report: Report, **more: Any) -> dict[str, Any]:
    """What every module of this collection returns; the diff is shown under --diff only."""
    before = report.before
    after = report.after if report.standing is not report.states else before
    return {
        "changed": report.changed,
        "before": before,
        "after": after,
        "steps": report.steps,
        "diff": {"before": _lines(before), "after": _lines(after), "prepared": _lines(report.steps)},
        **more,
    }


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
