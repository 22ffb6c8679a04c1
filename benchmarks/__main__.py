# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ratios measured side by side in one run. docs/benchmarks.md says how to read them.

usage: python -m benchmarks [--sizes "10 1000"] [--parts "trees packets forwarding faults calls"] [--quick]
       [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import calls, faults, forwarding, packets
from .rows import Row, middle, save, table

ROUNDS = {10: 7, 100: 7, 1000: 7}  # larger sizes: 3
MOST_TC, MOST_TCCONFIG, MOST_PYROUTE2 = 1000, 10, 1000  # beyond, these take minutes
WORDS = {"build": "build", "dump": "dump", "no change": "no-change run", "one value": "one value changed"}
BUILD_GOALS, NO_CHANGE_GOALS = {1000: 1.5, 10000: 1.3}, {1000: 0.5}
GROWTH_GOAL = 12.0
TIME_LIMIT = 240  # seconds, of one peer's run


def capped(peer: str, size: int) -> str:
    most = {"tc": MOST_TC, "tcconfig": MOST_TCCONFIG, "pyroute2": MOST_PYROUTE2}.get(peer, size)
    return f"capped: {peer} is run up to {most} only, for the time it takes" if size > most else ""


def run_peer(peer: str, classes: int, filters: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.peers", peer, str(classes), str(filters)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return dict.fromkeys(WORDS, f"cannot: {peer} takes more than {TIME_LIMIT} s")
    return dict(json.loads(done.stdout))


def tree_rows(size: int, rounds: int) -> Iterator[Row]:
    """All peers in turn, round by round, each in a namespace of its own."""
    peers = ["ours", "whole", "tc -batch", "tc", "pyroute2", "tcconfig"]
    taken: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for number in range(rounds):
        for peer in peers:
            if reason := capped(peer, size):
                taken[peer].append(dict.fromkeys(WORDS, reason))
            elif not number or peer in ("ours", "whole", "tc -batch"):  # the others are far away: one round will do
                taken[peer].append(run_peer(peer, size, size))

    def figure(peer: str, what: str) -> float | str:
        return middle([each.get(what, "cannot") for each in taken[peer]])

    built = figure("tc -batch", "build")
    for what, words in WORDS.items():
        for peer in peers[2:]:
            base = built if (what, peer) == ("no change", "tc -batch") else figure(peer, what)
            name = f"{words}, {size}+{size}, against {peer}"
            if what == "no change" and base is built:
                name += " building"
            goals = {"build": BUILD_GOALS, "no change": NO_CHANGE_GOALS}.get(what, {})
            yield Row(name, figure("ours", what), base, goals.get(size) if peer == "tc -batch" else None)
    for what, words in (("texts", "parameters parsed"), ("words", "result put into words")):
        yield Row(f"{words}, {size}+{size}, against tc -batch building", figure("ours", what), built)
    for what in ("build", "no change"):
        name = f"whole process, {WORDS[what]}, {size}+{size}, against tc -batch building"
        yield Row(name, figure("whole", what), built)


def growth_row(rounds: int = 3) -> Row:
    """Filters alone, below one class."""
    taken = [[run_peer("ours", 1, filters)["build"] for filters in (10000, 1000)] for _round in range(rounds)]
    many, few = (middle([pair[at] for pair in taken]) for at in (0, 1))
    return Row("filters alone, build, 10000 against 1000", many, few, GROWTH_GOAL)


def measured(sizes: Sequence[int], parts: Sequence[str], quick: bool) -> Iterator[Row]:
    if "trees" in parts:
        for size in sizes:
            yield from tree_rows(size, 1 if quick else ROUNDS.get(size, 3))
        if {1000, 10000} <= set(sizes):
            yield growth_row()
    if "packets" in parts:
        yield from packets.rows(sizes)
    if "forwarding" in parts:
        yield from forwarding.rows(sizes, 2 if quick else forwarding.ROUNDS)
    if "faults" in parts:
        yield from faults.rows(2 if quick else faults.ROUNDS)
    if "calls" in parts:
        yield from calls.rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10 100 1000 10000")
    parser.add_argument("--parts", default="trees packets forwarding faults calls")
    parser.add_argument("--output", type=Path, default=Path("artifacts/bench.json"))
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works, not how fast")
    options = parser.parse_args()
    start = time.monotonic()
    rows = []
    for row in measured([int(size) for size in options.sizes.split()], options.parts.split(), options.quick):
        rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    save(rows, options.output)
    print(table(rows))
    print(f"{len(rows)} rows in {time.monotonic() - start:.0f} s; {options.output}")


if __name__ == "__main__":
    main()
