# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Histograms, limits and tables of the probes, and where BTF says that members are."""

from __future__ import annotations

import itertools
import random
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.bpf import btf, elf
from plugins.module_utils.errors import InvalidInput, MissingCapability
from plugins.module_utils.observer import histogram, hooks, limits, load, measure, table
from plugins.module_utils.observer.histogram import SLOTS, Histogram, bounds


def slot(value: int) -> int:
    """As files/bpf/observe.c has it, in other words."""
    return value if value < 4 else next(number for number in range(8, SLOTS) if bounds(number)[1] > value)


def filled(values: list[int]) -> Histogram:
    slots = [0] * SLOTS
    for value in values:
        slots[slot(value)] += 1
    return Histogram(len(values), sum(values), tuple(slots))


def test_slots_lie_side_by_side() -> None:
    ranges = [bounds(number) for number in (*range(4), *range(8, SLOTS))]
    assert ranges[0][0] == 0 and ranges[-1][1] == 1 << 64
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))


def test_percentiles_are_near_and_means_exact() -> None:
    chance = random.Random(7)
    values = [int(chance.lognormvariate(15, 1)) for _number in range(20000)]
    made = filled(values)
    assert made.mean == statistics.fmean(values)
    cuts = statistics.quantiles(values, n=100)
    for percent in (1, 50, 90, 99):
        assert abs(made.percentile(percent) / cuts[percent - 1] - 1) < 0.05
    assert sum(count for _low, count in made.powers()) == len(values)
    assert filled([]).percentile(50) == filled([]).mean == 0 and filled([]).powers() == []


def test_it_is_read_as_it_was_written() -> None:
    made = filled([1, 5, 5, 10**6])
    assert histogram.decode(b"12345678" + histogram.LAYOUT.pack(made.count, made.total, *made.slots), 8) == made
    assert histogram.add([made, made]) == filled([1, 5, 5, 10**6] * 2)
    assert made.powers()[:3] == [(0, 1), (2, 0), (4, 2)]


@pytest.mark.parametrize(
    ("ports", "address", "path"),
    [([1, 0], None, r"ports\[1\]"), ([65536], None, "ports"), ([], "10.0.0.0/8", "address")],
)
def test_limits_that_cannot_be_are_refused(ports: list[int], address: str | None, path: str) -> None:
    with pytest.raises(InvalidInput, match=path):
        limits.parse(ports, address, True)


def test_limits_are_packed_as_the_program_reads_them() -> None:
    packed = limits.pack(limits.parse([80, 80], "10.0.0.7", False), limits.no_places())
    assert len(packed) == limits.LAYOUT.size == 16 + 5 * 4 + 3 * 4 + 8 * 4 + 2 * 4 + 16
    assert packed[-16:] == bytes(10) + bytes.fromhex("ffff0a000007")
    assert limits.LAYOUT.unpack(packed)[4:7] == (0, 0, 0)
    anything = limits.pack(limits.parse([], None, True), limits.no_places())
    assert limits.LAYOUT.unpack(anything)[4:7] == (1, 1, 1)


def test_a_kernel_without_a_member_is_told() -> None:
    places = dict.fromkeys((*limits.PLACES, limits.BUFFER, limits.SEGMENTS), 8)
    assert limits.chosen(places, "it")[-1] == 16
    del places["net.ns.inum"]
    with pytest.raises(MissingCapability, match=r"net\.ns\.inum"):
        limits.chosen(places, "it")


MEMBERS = """
struct inner { int zero; union { long both; struct { char first; short second; }; }; int bits : 3, more : 29; };
struct outer { char name[24]; const struct inner in; } outer;
"""


def test_members_are_where_the_compiler_puts_them(tmp_path: Path) -> None:
    source, made = tmp_path / "it.c", tmp_path / "it.o"
    source.write_text(MEMBERS)
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(made)], check=True)
    (data,) = (one.data for one in elf.read(made.read_bytes(), "it.o").sections if one.name == ".BTF")
    paths = {"outer.in": 24, "outer.in.both": 32, "outer.in.second": 34, "inner.second": 10, "inner.more": 16}
    assert btf.offsets(data, [*paths, "outer.nothing", "nothing.at", "outer.name.deep"]) == paths


def service(count: int) -> dict[str, Any]:
    one = hooks.Service(filled([20_000_000] * count), 16 * count, 4 * count, 2, 3)
    seen = hooks.together([hooks.Seen({80: one}, {}, {"leaving": (count, 500 * count)})] * 2)
    return measure.result(seen, [])


def test_the_tables() -> None:
    times = {"mean": 22000.0, "p50": 21000.0, "p99": 30000.0}
    said = [{"port": 80, "requests": 100, "per_second": 50.0, "seconds": 2.0, "latency": times}]
    runs = [load.Run(seen, 2.5, 0.001, 0.002, 0.0, 3.0, said)._asdict() for seen in (False, True, False, True)]
    result = {**service(100), "runs": runs}
    result["syscalls"] = {"poll": measure.times(filled([1000])), "read": measure.times(filled([10**6]))}
    rows = [line.split() for line in table.tables(result)]
    (port,) = (row for row in rows if row[:2] == ["80", "200"])
    assert (
        port[2:5] == ["50", "0.8", "0.2"] and port[5] == "20000" and port[-5:] == ["22000", "21000", "30000", "6", "4"]
    )
    assert [row[0] for row in rows if row and row[0] in ("poll", "read")] == ["read", "poll"]
    assert ["without", "2", "5", "50", "30", "0.002", "0.004", "6", "0"] in rows
    assert ["leaving", "200", "500", "0.002"] in rows
    assert ["16777", "200", "#" * table.WIDTH] in rows
    assert all(line == line.rstrip() for line in table.tables(result))
