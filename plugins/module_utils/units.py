# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities with units: texts at the edges, integers in kernel units inside.

Each `parse_*` takes what stands in the inventory and raises ValueError with what is allowed; each `*_text`
gives the shortest text that parses back to the same integer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

PERCENT_MAX = 0xFFFFFFFF  # netem, like tc, counts probabilities in 1/(2^32 - 1)
TICK_NS = 64  # one psched tick (PSCHED_SHIFT 6, net/pkt_sched.h)

_TIME = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_RATE = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12}
_SIZE = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z%/]*)", re.ASCII)

MOST_DIGITS = 40  # of a number: more than any quantity of the kernel has

TIME_ALLOWED = "write a time of 0 or more with its unit, such as 50ms, 1.5s, 200us or 100ns"
RATE_ALLOWED = "write a rate above 0 in bits per second with its unit, such as 128kbit, 1.5mbit or 10gbit"
SIZE_ALLOWED = "write a size with its unit, such as 1500B, 64kB (64000 bytes) or 64KiB (65536 bytes)"
CAPACITY_ALLOWED = "write a size with its unit, such as 8GB (8000000000 bytes) or 2GiB"
PERCENT_ALLOWED = "write a percentage from 0% to 100%, such as 1% or 0.05%"


def _fraction(text: str) -> Fraction:
    """Imported where one is needed: its module is a large one."""
    from fractions import Fraction

    return Fraction(text)


def _split(value: object, allowed: str) -> tuple[int | Fraction, str]:
    """(number, unit) of a text such as `1.5 mbit`."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(allowed)
    try:
        match = _NUMBER.fullmatch(str(value).strip())
    except ValueError:  # a number of more digits than Python writes
        match = None
    if not match or len(match.group(1)) > MOST_DIGITS:
        raise ValueError(allowed)
    number, unit = match.groups()
    return _fraction(number) if "." in number else int(number), unit


def parse_time(value: object) -> int:
    """Nanoseconds."""
    number, unit = _split(value, TIME_ALLOWED)
    if not unit and number == 0:
        return 0
    if unit not in _TIME:
        raise ValueError(TIME_ALLOWED)
    nanoseconds = number * _TIME[unit]
    if nanoseconds >= 2**63:
        raise ValueError("the kernel holds times below 292 years")
    if 0 < nanoseconds < 1:
        raise ValueError("the kernel counts whole nanoseconds: the least time is 1ns")
    return int(nanoseconds)


def parse_rate(value: object) -> int:
    """Bytes per second, as HTB, TBF and netem hold it."""
    number, unit = _split(value, RATE_ALLOWED)
    name = unit.lower()
    if name.endswith("bps"):
        bits = name[:-3] + "bit"
        raise ValueError(
            f"`{unit}` means bytes to tc and bits to most people; "
            f"write {bits} for bits, or 8 times as many {bits} for bytes"
        )
    if name not in _RATE:
        raise ValueError(RATE_ALLOWED)
    rate = int(number * _RATE[name] // 8)
    if rate < 1:
        raise ValueError("the kernel counts whole bytes per second: the least rate is 8bit")
    if rate >= 2**63:
        raise ValueError("the kernel holds rates below 2^63 bytes per second")
    return rate


def parse_size(value: object) -> int:
    """Bytes."""
    number, unit = _split(value, SIZE_ALLOWED)
    if not unit and number == 0:
        return 0
    if unit not in _SIZE:
        raise ValueError(SIZE_ALLOWED)
    size = int(number * _SIZE[unit])
    if size >= 2**32:
        raise ValueError("the kernel holds sizes below 4 GiB")
    return size


def parse_capacity(value: object) -> int:
    """Bytes of a card or disk, which may be more than the kernel's 32 bits of a packet's world."""
    number, unit = _split(value, CAPACITY_ALLOWED)
    if unit not in _SIZE or number * _SIZE[unit] >= 2**63:
        raise ValueError(CAPACITY_ALLOWED)
    return int(number * _SIZE[unit])


def parse_percent(value: object) -> int:
    """A probability in 1/(2^32 - 1), rounded as tc rounds it."""
    number, unit = _split(value, PERCENT_ALLOWED)
    if not unit and number == 0:
        return 0
    if unit != "%" or number > 100:
        raise ValueError(PERCENT_ALLOWED)
    probability = _probability(number)
    if number and not probability:
        raise ValueError("the kernel counts in 1/(2^32 - 1): the least percentage above 0% is 0.00000002%")
    return probability


def _probability(percent: int | Fraction) -> int:
    """In doubles, as tc computes it (lib/utils.c, parse_percent; tc/q_netem.c, set_percent)."""
    return round(float(percent) / 100 * PERCENT_MAX)


def parse_complement(value: object) -> int:
    """What is left of 100 % beside a percentage, rounded as tc rounds it: not the complement of the rounded number."""
    parse_percent(value)
    number, _unit = _split(value, PERCENT_ALLOWED)
    return round((1 - float(number) / 100) * PERCENT_MAX)


def parse_packets(value: object) -> int:
    """A number of packets written as `50p`."""
    allowed = "write a number of packets such as 50p"
    number, unit = _split(value, allowed)
    if unit != "p" or number.denominator != 1 or not 0 < number < 2**32:
        raise ValueError(allowed)
    return int(number)


def parse_integer(value: object, least: int = 0, most: int = 2**32 - 1) -> int:
    """A plain number; texts of digits (0x… too) are taken, as templates produce them."""
    allowed = f"write a whole number from {least} to {most}"
    if isinstance(value, str) and re.fullmatch(r"-?(0x[0-9a-fA-F]{1,40}|\d{1,40})", value, re.ASCII):
        value = int(value, 0 if "0x" in value else 10)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(allowed)
    return value


def parse_boolean(value: object) -> bool:
    """true or false, as YAML writes them."""
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def time_text(nanoseconds: int) -> str:
    """In a unit that tc reads: not ns, which tc 6.1 takes nowhere for a netem."""
    if nanoseconds % 1000:
        return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}us"
    return _shortest(nanoseconds, _TIME, "0s")


@lru_cache(maxsize=1 << 14)
def rate_text(rate: int) -> str:
    return _shortest(rate * 8, _RATE, "0bit")


def size_text(size: int) -> str:
    return f"{size}b"  # tc reads `b` as bytes


def percent_text(probability: int) -> str:
    """The fewest decimals that give the same probability back."""
    exact = probability * 100 / PERCENT_MAX
    for decimals in range(12):
        shown = f"{exact:.{decimals}f}"
        if _probability(_fraction(shown)) == probability:
            break
    return f"{shown}%"


def _shortest(number: int, units: dict[str, int], zero: str) -> str:
    if not number:
        return zero
    shortest, size = "", 1
    for unit, factor in units.items():  # from the smallest unit up: most numbers are no multiple of a large one
        if number % factor:
            break
        shortest, size = unit, factor
    return f"{number // size}{shortest}"


def ticks(size: int, rate: int) -> int:
    """Transmission time of `size` bytes at `rate` bytes per second in psched ticks: how HTB and TBF hold a burst."""
    return min(size * 10**9 // rate // TICK_NS, 2**32 - 1)


@lru_cache(maxsize=1 << 14)
def burst_size(time_ticks: int, rate: int) -> int:
    """Bytes that pass in so many ticks: the reverse of `ticks`.

    Of all sizes that give the same ticks the roundest number, which most likely is what somebody wrote.
    """
    least = -(-time_ticks * TICK_NS * rate // 10**9)
    most = -(-(time_ticks + 1) * TICK_NS * rate // 10**9) - 1
    if least >= most:
        return least
    for step in (10**9, 10**8, 10**7, 10**6, 10**5, 10**4, 1000, 100, 10):
        size = -(-least // step) * step
        if size <= most:
            return size
    return least
