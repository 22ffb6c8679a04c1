# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the benchmarks: what is shown beside the goals."""

from __future__ import annotations

from benchmarks.rows import Row, spread, table


def test_the_spread_is_the_middle_half_of_the_rounds() -> None:
    assert spread([2.0, 3.0, 8.0, 5.0, 6.0], [1.0, 1.0, 1.0, 1.0, 2.0]) == (3.0, 5.0)
    assert spread([2.0], [1.0]) is None


def test_what_misses_its_goal_is_marked() -> None:
    rows = [Row("near", 1.2, 1.0, 1.3, (1.1, 1.25)), Row("far", 1.4, 1.0, 1.3), Row("none", "cannot: so", "", 1.3)]
    shown = table(rows).splitlines()
    assert shown[1].endswith("1.10-1.25  <= 1.3  reached")
    assert shown[2].endswith("<= 1.3  MISSED")
    assert shown[3].endswith("<= 1.3") and shown[-1] == "cannot: so"
