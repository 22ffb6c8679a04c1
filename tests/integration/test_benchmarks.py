# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmarks work. What they measure is shown, and never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def benchmarks(sizes: str, parts: str, output: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Rows by name, and the table."""
    words = ["--sizes", sizes, "--parts", parts, "--quick", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row.pop("name"): row for row in json.loads(output.read_text())}
    assert all(set(row) == {"ours", "peer", "ratio", "goal", "spread"} for row in rows.values())
    return rows, done.stdout


def test_trees_and_packets_are_measured_at_size_10(tmp_path: Path) -> None:
    rows, shown = benchmarks("10", "trees packets", tmp_path / "bench.json")
    for name, row in rows.items():
        assert isinstance(row["ours"], float), (name, row)
        if "tcconfig" not in name and "no-change" not in name:
            assert row["ratio"] == round(row["ours"] / row["peer"], 3), (name, row)
        assert name in shown


def test_forwarding_is_measured_in_a_kernel_of_its_own(tmp_path: Path) -> None:
    rows, shown = benchmarks("10 20", "forwarding", tmp_path / "bench.json")
    assert [name.split(",")[0] for name in rows] == ["packet forwarded", "packet sent"]
    for name, row in rows.items():
        assert name in shown and "Linux 6" in name
        assert row["ratio"] == round(row["ours"] / row["peer"], 3)
        low, high = row["spread"]
        assert 0 < low <= high
