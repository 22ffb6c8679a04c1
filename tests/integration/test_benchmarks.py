# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmarks work. What they measure is shown, and never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_measures_at_size_10(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    words = ["--sizes", "10", "--parts", "trees packets", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row.pop("name"): row for row in json.loads(output.read_text())}
    assert all(set(row) == {"ours", "peer", "ratio", "goal"} for row in rows.values())
    for name, row in rows.items():
        assert isinstance(row["ours"], float), (name, row)
        if "tcconfig" not in name and "no-change" not in name:
            assert row["ratio"] == round(row["ours"] / row["peer"], 3), (name, row)
        assert name in done.stdout
