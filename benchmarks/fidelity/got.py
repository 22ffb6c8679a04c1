# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure every row on the kernel that this runs on, and print a line a row.

usage: python -m benchmarks.fidelity.got PROGRAM FOLDER     PROGRAM is train.c, compiled

Two namespaces and a veth pair of their own; needs root and a kernel with netem.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine

from .asked import Asked, Train, everything

NEAR, FAR, PORT = "10.88.0.1", "10.88.0.2", 9000
RECORD = struct.Struct("<IIQQ")
DAMAGED = 2**32 - 1
SPEED = Train(6_000, 10**6, 1514)  # as fast as it goes: what the kernel carries
BLOCKS = 40
SETTLE = 0.25  # of a train at a rate: until the burst is over and the queue is full


class Seen(NamedTuple):
    """One frame at the far end: its number, bytes, and the clock's ns when it was sent and when it arrived."""

    number: int
    length: int
    sent: int
    arrived: int


def shell(text: str) -> None:
    subprocess.run(["sh", "-ec", text], check=True)


def run(program: Path, folder: Path, train: Train) -> list[Seen]:
    """Send a train, and wait until nothing of it is under way any more."""
    records = folder / "records"
    watching = subprocess.Popen(
        ["ip", "netns", "exec", "far", str(program), "record", "p0", str(train.size), str(records)],
        stdout=subprocess.PIPE,
        text=True,
    )
    stream = watching.stdout
    if stream is None or stream.readline() != "ready\n":
        raise RuntimeError("the recorder did not start")
    words = [FAR, PORT, train.packets, train.rate, train.size]
    subprocess.run([str(program), "send", *map(str, words)], check=True)
    drained()
    watching.terminate()
    if int(stream.read() or 1) or watching.wait():
        raise RuntimeError("the recorder lost frames")
    data = records.read_bytes()
    return [Seen(*found) for found in RECORD.iter_unpack(data)]


def drained() -> None:
    """Until the queues of t0 are empty, by tc."""
    shell("for n in $(seq 600); do tc -s qdisc show dev t0 | grep -q 'backlog [^ ]* [1-9]' || exit 0; sleep 0.05; done")


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in per cent."""
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return 100 * (middle - half), 100 * (middle + half)


def runs(missing: Sequence[int]) -> list[int]:
    """Lengths of the runs of numbers in a row."""
    found: list[int] = []
    before = None
    for number in missing:
        if before is not None and number == before + 1:
            found[-1] += 1
        else:
            found.append(1)
        before = number
    return found


def throughput(seen: Sequence[Seen]) -> float:
    """kbit/s of the frames after the first."""
    return sum(one.length for one in seen[1:]) * 8e6 / (seen[-1].arrived - seen[0].arrived)


def by_blocks(missing: Sequence[int], of: int) -> tuple[float, float]:
    """95 % interval, in per cent, of a share whose hits come in bursts: from the spread between blocks of packets."""
    hits = Counter(number * BLOCKS // of for number in missing)
    shares = [100 * hits[block] * BLOCKS / of for block in range(BLOCKS)]
    half = 1.96 * statistics.stdev(shares) / math.sqrt(BLOCKS)
    return statistics.fmean(shares) - half, statistics.fmean(shares) + half


def ways(seen: Sequence[Seen], calibration: float) -> list[float]:
    """Time on the way above the unimpaired one, in ms."""
    return sorted((one.arrived - one.sent) / 1e6 - calibration for one in seen if one.number != DAMAGED)


Verdict = dict[str, Any]  # got: the figure; shown: in words; ok: whether it is as asked


def judged(asked: Asked, seen: Sequence[Seen], calibration: float) -> Verdict:
    """What a row's train says."""
    if asked.part in ("delay", "jitter"):
        return timed(asked, seen, ways(seen, calibration))
    if asked.part == "rate":
        late = [one for one in seen if one.arrived > seen[0].arrived + SETTLE * (seen[-1].arrived - seen[0].arrived)]
        kbit = throughput(late)
        return {"got": kbit, "shown": f"{kbit:.1f}", "ok": abs(kbit / asked.expected - 1) <= 0.02}
    missing = sorted(set(range(asked.train.packets)) - {one.number for one in seen})
    if asked.part == "burst":
        lengths = runs(missing)
        mean, error = statistics.fmean(lengths), statistics.stdev(lengths) / math.sqrt(len(lengths))
        shown = f"{mean:.2f} ± {1.96 * error:.2f}"
        return {"got": mean, "shown": shown, "ok": abs(mean - asked.expected) <= 1.96 * error}
    return share(asked, seen, missing)


def timed(asked: Asked, seen: Sequence[Seen], found: Sequence[float]) -> Verdict:
    """Delay by the median, jitter by the deviation."""
    if asked.part == "delay":
        middle = statistics.median(found)
        spread = [found[int(len(found) * part)] for part in (0.25, 0.75, 0.05, 0.95)]
        shown = f"{middle:.2f} ({spread[0]:.2f}–{spread[1]:.2f}; {spread[2]:.2f}–{spread[3]:.2f})"
        return {"got": middle, "shown": shown, "ok": abs(middle - asked.expected) <= 1}
    deviation = statistics.pstdev(found)
    overtaken = sum(later.number < earlier.number for earlier, later in pairwise(seen))
    shown = f"{deviation:.2f}; mean {statistics.fmean(found):.2f}, {100 * overtaken / len(seen):.1f} % overtaken"
    return {"got": deviation, "shown": shown, "ok": abs(deviation / asked.expected - 1) <= 0.1}


def share(asked: Asked, seen: Sequence[Seen], missing: Sequence[int]) -> Verdict:
    """Loss, duplicates, damage, reordering and the nth."""
    count = asked.train.packets
    if "duplicate" in asked.impairment:
        hits = sum(times - 1 for times in Counter(one.number for one in seen).values())
    elif "corrupt" in asked.impairment:
        hits = sum(one.number == DAMAGED for one in seen)
    elif "reorder" in asked.impairment:
        hits = sum(one.arrived - one.sent < 5e6 for one in seen)
    else:
        hits = len(missing)
    bursty = isinstance(asked.impairment.get("loss"), dict)
    low, high = by_blocks(missing, count) if bursty else interval(hits, count)
    shown = f"{100 * hits / count:.2f} ({low:.2f}–{high:.2f})"
    ok = low <= asked.expected <= high
    if "drop" in asked.impairment:
        steps = {later - earlier for earlier, later in pairwise(missing)}
        ok, shown = steps == {20} and hits == count // 20, f"{100 * hits / count:.2f}, distances {sorted(steps)}"
    return {"got": 100 * hits / count, "shown": shown, "ok": ok}


def main() -> None:
    program, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    shell(f"""ip netns add far
ip link add t0 type veth peer name p0 netns far
ip address add {NEAR}/24 dev t0; ip link set t0 up
ip netns exec far sh -ec 'ip address add {FAR}/24 dev p0; ip link set p0 up'
ip neighbour replace {FAR} lladdr $(ip netns exec far cat /sys/class/net/p0/address) dev t0 nud permanent""")
    capable = load()
    engine.apply([{"name": "t0", "classes": [{"name": "all"}]}], [])  # the shape without any impairment
    calibration = statistics.median(ways(run(program, folder, Train(400, 200)), 0))
    carries = max(throughput(run(program, folder, SPEED)) for _time in range(3))
    about = {"kernel": platform.release(), "calibration": calibration, "carries": carries, "cpus": os.cpu_count()}
    print(json.dumps(about), flush=True)
    before: tuple[object, list[Seen]] = (None, [])
    for row in everything():
        if "drop" in row.impairment and capable["action.gact_determ"] is not True:
            continue
        if before[0] != (row.impairment, row.train):  # two rows of one train are measured once
            engine.apply([{"name": "t0", "classes": [{"name": "all", **row.impairment}]}], [])
            before = (row.impairment, row.train), run(program, folder, row.train)
        print(json.dumps({**row._asdict(), **judged(row, before[1], calibration)}), flush=True)
    engine.clear()


if __name__ == "__main__":
    main()
