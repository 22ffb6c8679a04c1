# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one packet costs on its way through an impaired interface of this machine; a plain list of u32 beside it.

All of it on one CPU and a veth pair, so that nothing but the sender, the qdisc and the receiving end's drop is counted.
Destinations change from packet to packet over all matches. Counted by tc itself: every packet must be in the class.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import place, trees
from .rows import Row, middle

SOURCE = Path(__file__).resolve().parent / "flood.c"
COUNT = 300_000  # packets of one measurement, some tenths of a second
COUNT_LINEAR = 30_000
ROUNDS = 5
LINEAR_MOST = 1000  # a list of 10 000 takes longer than anybody waits


def sender() -> str:
    path = Path("/run/flood")
    own = {**os.environ, "TMPDIR": "/run"}  # in a namespace with a /run of its own, the old one is hidden
    subprocess.run(["cc", "-O2", "-o", str(path), str(SOURCE)], env=own, check=True)
    return str(path)


def ours(matches: int) -> None:
    """One class of a rate that nobody reaches, for every address."""
    from plugins.module_utils.impairment import engine

    alternatives = [{"destination": trees.address(number)} for number in range(matches)]
    asked = [{"name": trees.INTERFACE, "classes": [{"name": "many", "match": alternatives, "rate": "100gbit"}]}]
    engine.apply(asked, [])


def linear(matches: int) -> None:
    """One u32 filter after the other, as scripts have them."""
    lines = [
        f"qdisc add dev {trees.INTERFACE} root handle 1: htb",
        f"class add dev {trees.INTERFACE} parent 1: classid 1:1 htb rate 100gbit",
    ]
    begin = f"filter add dev {trees.INTERFACE} parent 1: protocol ip prio 1 u32 match ip dst"
    lines += [f"{begin} {trees.address(number)}/32 flowid 1:1" for number in range(matches)]
    subprocess.run(["tc", "-batch", "-"], input="\n".join(lines), text=True, check=True, stderr=subprocess.DEVNULL)


def counted() -> int:
    """Packets that classes have sent, by tc."""
    shown = subprocess.run(
        ["tc", "-s", "class", "show", "dev", trees.INTERFACE], check=True, capture_output=True, text=True
    ).stdout
    return max((int(number) for number in re.findall(r"Sent \d+ bytes (\d+) pkt", shown)), default=0)


def cost(flood: str, matches: int, count: int, interface: str = trees.INTERFACE) -> float:
    """ns a packet that is sent out of the interface, to all matches in turn. Raises where one came to no class."""
    before = counted()
    words = [flood, interface, str(count), str(matches)]
    shown = subprocess.run(words, check=True, capture_output=True, text=True)
    if counted() - before < count:
        raise RuntimeError(f"only {counted() - before} of {count} packets came to a class")
    return float(shown.stdout)


def run_inside(sizes: Sequence[int]) -> dict[str, Any]:
    """ns a packet by "ours 10", "linear 10" …: median of rounds, sizes in turn within a round."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    place.enter()
    flood = sender()
    taken: dict[str, list[Any]] = {}
    for _round in range(ROUNDS):
        for build, most, count in ((ours, max(sizes), COUNT), (linear, LINEAR_MOST, COUNT_LINEAR)):
            for matches in sizes:
                name = f"{build.__name__} {matches}"
                if matches > most or (taken.get(name) and isinstance(taken[name][0], str)):
                    continue
                try:
                    build(matches)
                    cost(flood, matches, count // 10)
                    figure: Any = cost(flood, matches, count)
                except Exception as error:  # whatever it is, it is told beside the figures
                    figure = f"cannot: {str(error)[:200]}"
                taken.setdefault(name, []).append(figure)
                clear(build is ours)
    return {name: middle(figures) for name, figures in taken.items()}


def clear(engine_too: bool) -> None:
    if engine_too:
        from plugins.module_utils.impairment import engine

        engine.clear()
    subprocess.run(["tc", "qdisc", "del", "dev", trees.INTERFACE, "root"], check=False, stderr=subprocess.DEVNULL)


def rows(sizes: Sequence[int]) -> Iterator[Row]:
    words = [sys.executable, "-m", "benchmarks.packets", *map(str, sizes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        yield Row("packet", f"cannot: {done.stderr.strip()[-200:]}", "")
        return
    taken = json.loads(done.stdout)
    for matches in sizes:
        linear_cost = taken.get(f"linear {matches}", f"capped: the list of u32 is run up to {LINEAR_MOST} only")
        yield Row(f"packet, {matches} matches, against a plain list of u32", taken[f"ours {matches}"], linear_cost)


if __name__ == "__main__":
    print(json.dumps(run_inside([int(word) for word in sys.argv[1:]])))
