# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How netem's jitter is distributed: tables of 4096 numbers, of which it draws one for each packet.

A number t makes the delay `delay + jitter * t / 8192` (net/sched/sch_netem.c, tabledist). normal, pareto and
paretonormal are those of iproute2's netem/*.dist within its rounding; they are computed, so that a node needs no
files. uniform as a table gives the same as no table, which no request takes away again.

The kernel shows no table in any dump. What tells one from another is its identity, a checksum of 32 bits that netem.py
keeps in a field of the qdisc itself.
"""

from __future__ import annotations

import math
import struct
from binascii import crc32
from collections.abc import Sequence
from functools import lru_cache

from ... import units
from ...errors import InvalidInput, TestbedError
from .netem_options import JITTER_MAX, UNIFORM, Distribution

SIZE = 4096  # numbers in a table; the kernel takes 16384 at most (NETEM_DIST_MAX)
SCALE = 8192  # of one jitter (NETEM_DIST_SCALE)
WORDS = ("uniform", "normal", "pareto", "paretonormal")
MOST_SAMPLES = 1_000_000
ALLOWED = "write uniform, normal, pareto, paretonormal, or a list of two measured delays or more, such as [9ms, 12ms]"


def named(word: str) -> Distribution:
    """One of WORDS, as a table that is sent."""
    return Distribution(word, crc32(f"impair.testbed {word}".encode()))


def known(identity: int) -> Distribution:
    """What a field of the qdisc says; a table whose numbers are not known here has none."""
    found = {distribution.identity: distribution for distribution in map(named, WORDS)}
    return found.get(identity) or Distribution("table", identity)


def parse(value: object, path: str) -> Distribution:
    """A word, or a list of measured delays."""
    if isinstance(value, str):
        if value not in WORDS:
            raise InvalidInput(path, value, ALLOWED)
        return UNIFORM if value == "uniform" else named(value)
    if not isinstance(value, Sequence) or not 2 <= len(value) <= MOST_SAMPLES:
        raise InvalidInput(path, value, ALLOWED)
    times = []
    for index, one in enumerate(value):
        try:
            times.append(units.parse_time(one))
        except ValueError as error:
            raise InvalidInput(f"{path}[{index}]", one, str(error)) from None
    return _measured(times, path)


def _measured(times: list[int], path: str) -> Distribution:
    """Quantiles of the measured delays, in nanoseconds, about their mean in units of their deviation."""
    times.sort()
    mean = sum(times) / len(times)
    deviation = math.sqrt(sum((time - mean) ** 2 for time in times) / len(times))
    if not 1 <= deviation <= JITTER_MAX:
        raise InvalidInput(
            path,
            f"{len(times)} delays of the deviation {deviation:.0f}ns",
            "write delays that differ, with a deviation of 2147483647ns (2.1s) at most",
        )
    numbers = [(times[(2 * index + 1) * len(times) // (2 * SIZE)] - mean) / deviation for index in range(SIZE)]
    packed = _packed(numbers)
    return Distribution("table", crc32(packed), packed, round(mean), round(deviation))


@lru_cache(maxsize=8)
def table(distribution: Distribution) -> bytes:
    """The numbers that the kernel takes. TestbedError for a table of which only the identity is known."""
    if distribution.table:
        return distribution.table
    compute = {"uniform": _uniform, "normal": _normal, "pareto": _pareto, "paretonormal": _paretonormal}
    if distribution.name not in compute:
        raise TestbedError(
            f"the delay distribution {distribution.text} was measured, and its numbers are not known on this node any "
            "more: write it again"
        )
    return _packed(compute[distribution.name]())


def _packed(numbers: Sequence[float]) -> bytes:
    whole = (max(-(2**15), min(2**15 - 1, round(number * SCALE))) for number in numbers)
    return struct.pack(f"={len(numbers)}h", *whole)


def _uniform() -> list[float]:
    return [(2 * index + 1) / SIZE - 1 for index in range(SIZE)]


def _normal() -> list[float]:
    """Quantiles of the standard normal distribution, by Newton's method, each from the one before."""
    half: list[float] = []
    number = -4.0
    for index in range(SIZE // 2):
        wanted = (2 * index + 1) / (2 * SIZE)
        for _attempt in range(50):
            density = math.exp(-number * number / 2) / math.sqrt(2 * math.pi)
            step = (math.erfc(-number / math.sqrt(2)) / 2 - wanted) / density
            number -= max(-0.5, min(0.5, step))
            if abs(step) < 1e-7:
                break
        half.append(number)
    return half + [-number for number in reversed(half)]


def _pareto() -> list[float]:
    """Pareto's with exponent 3 about its mean of 1.5, 4/3 as wide, as iproute2 has it; cut at 4 when it is packed."""
    return [((SIZE / (SIZE - index)) ** (1 / 3) - 1.5) * 4 / 3 for index in range(SIZE)]


def _paretonormal() -> list[float]:
    """A quarter of the one and three quarters of the other, as iproute2 has it."""
    return [normal / 4 + min(pareto, 4.0) * 3 / 4 for normal, pareto in zip(_normal(), _pareto())]
