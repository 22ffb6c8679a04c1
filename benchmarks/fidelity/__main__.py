# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asked against got, on Debian's kernels: measures each in turn and writes docs/fidelity.md.

usage: python -m benchmarks.fidelity [--kernels "bookworm trixie"] [--output docs/fidelity.md]

bookworm is this machine's own package of User-Mode-Linux; others stand in folders of the cache, made where they lack.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.chroot import run_under
from tests.integration.uml import Outcome, run_inside

from .page import Measured, page

HERE = Path(__file__).parent
LIMIT = 900  # seconds, of one kernel's run


def measured(suite: str, folder: Path, program: Path) -> Measured:
    """All rows of one kernel."""
    started = time.monotonic()
    print(f"fidelity: measuring the kernel of {suite}, about three minutes", flush=True)
    words = ["-m", "benchmarks.fidelity.got", "/run/out/train", "/run/records"]
    if suite == "bookworm":
        done = run_inside([sys.executable, *words], folder, LIMIT)
    else:
        done = run_under(suite, ["python3", *words], LIMIT, [program])
    lines = _lines(done)
    found = Measured(suite, lines[0], lines[1:])
    outside = sum(not row["ok"] for row in found.rows)
    spent = f"{time.monotonic() - started:.0f} s"
    print(f"fidelity: Linux {found.about['kernel']}: {len(found.rows)} rows, {outside} outside, {spent}", flush=True)
    return found


def _lines(done: Outcome) -> list[dict[str, object]]:
    if done.code:
        sys.exit(f"fidelity: the run failed:\n{done.output}")
    return [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure asked against got, and write the page.")
    parser.add_argument("--kernels", default="bookworm trixie", help="Debian releases (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "fidelity.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        program = folder / "train"
        subprocess.run(["cc", "-O2", "-static", "-o", str(program), str(HERE / "train.c")], check=True)
        chosen.output.write_text(page([measured(suite, folder, program) for suite in chosen.kernels.split()]))


if __name__ == "__main__":
    main()
