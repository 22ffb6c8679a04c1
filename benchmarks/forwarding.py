# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a packet costs as the matches grow, in a kernel that has flower: User-Mode-Linux on one CPU.

Forwarded: from one port of a bridge to the other, as in the lab, where what leaves is impaired. Sent: by a program on
the node itself, which is shorter. Few and many matches take turns, and each turn builds its filters anew.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import packets, place
from .rows import Row, middle, spread
from .trees import INTERFACE

ROUNDS = 7
COUNT = 200_000  # packets of one measurement, half a second
GOAL = 1.3
LIMIT = 300  # seconds, of the whole
ARRIVES = "bench2"  # the peer of the port where packets enter the bridge
BRIDGE = f"""link add name bench3 type veth peer name {ARRIVES}
link add name benchbr type bridge mcast_snooping 0
link set dev {INTERFACE} master benchbr
link set dev bench3 master benchbr up
link set dev {ARRIVES} up
link set dev benchbr up
"""
LEARNED = f"fdb add 02:00:00:00:00:02 dev {INTERFACE} master static\n"  # where flood.c sends


def inside(rounds: int, *sizes: int) -> dict[str, Any]:
    """The kernel, and ns a packet of every round by "forwarded 10", "sent 10" …."""
    place.enter()
    for program, lines in (("ip", BRIDGE), ("bridge", LEARNED)):
        subprocess.run([program, "-batch", "-"], input=lines, text=True, check=True)
    flood = packets.sender()
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        for matches in sizes if number % 2 else reversed(sizes):
            packets.ours(matches)
            for way, interface in (("forwarded", ARRIVES), ("sent", INTERFACE)):
                packets.cost(flood, matches, COUNT // 10, interface)
                taken.setdefault(f"{way} {matches}", []).append(packets.cost(flood, matches, COUNT, interface))
            packets.clear(True)
    return {"kernel": f"Linux {platform.release()}", "taken": taken}


def measured(rounds: int, sizes: Sequence[int]) -> dict[str, Any]:
    """`inside`, in a kernel of its own. Raises RuntimeError with the last that it said."""
    from tests.integration.uml import run_inside

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})  # its processes are ours: they need not change the CPU at each system call
    try:
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "benchmarks.forwarding", *map(str, (rounds, *sizes))]
            done = run_inside(words, Path(folder), LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    finally:
        os.sched_setaffinity(0, allowed)
    if done.code:
        raise RuntimeError(done.output.strip()[-200:])
    return dict(json.loads(done.output.splitlines()[-1]))


def rows(sizes: Sequence[int], rounds: int) -> Iterator[Row]:
    """Of each size against the smallest."""
    least, *more = sorted(sizes)
    if not more:
        return
    try:
        found = measured(rounds, [least, *more])
    except RuntimeError as error:
        yield Row("packet forwarded", f"cannot: {error}", "", GOAL)
        return
    for way in ("forwarded", "sent"):
        few = found["taken"][f"{way} {least}"]
        for matches in more:
            many = found["taken"][f"{way} {matches}"]
            goal = GOAL if (least, matches) == (10, 10000) else None
            name = f"packet {way}, {matches} matches, against ours with {least}, {found['kernel']}"
            yield Row(name, middle(many), middle(few), goal, spread(many, few))


if __name__ == "__main__":
    print(json.dumps(inside(*map(int, sys.argv[1:]))))
