# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action police: a verdict for what a token bucket lets through, and one for the rest (net/sched/act_police.c)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ... import schema, units
from ...netlink import attribute, attributes, integer, u32, u64
from ..model import Raw
from .action import CONTROLS, control_text, parse_control
from .base import Kind, words
from .htb import LINKLAYER_ETHERNET, LINKLAYERS, RATESPEC

TBF, RATE, PEAKRATE, AVRATE, RESULT, RATE64, PEAKRATE64, PKTRATE64 = 1, 2, 3, 4, 5, 8, 9, 10  # TCA_POLICE_*
HEAD = struct.Struct("=IiIII")  # tc_police: index, action, limit, burst, mtu; then two tc_ratespec
COUNTS = struct.Struct("=iiI")  # references, bindings, capabilities
# The kernel wants a table of transmission times, and does not look into it (psched_ratecfg_precompute).
TABLE = bytes(1024)
CELLS = 255  # of a table: packets longer than all cells exceed
DEFAULT_MTU = 2047  # from which tc chooses the cells where nobody names one (tc_core.c, tc_calc_rtable)


class Police(NamedTuple):
    """Rates in bytes per second, the burst in psched ticks of 64 ns, the longest packet in bytes, both verdicts."""

    rate: int
    burst: int
    mtu: int
    exceed: int
    conform: int = 0
    peak: int = 0
    overhead: int = 0
    mpu: int = 0
    linklayer: int = LINKLAYER_ETHERNET


def _cell_log(mtu: int) -> int:
    return max(mtu.bit_length() - 8, 0)


def _build(
    rate: int | None = None,
    burst: int | None = None,
    mtu: int = 0,
    peakrate: int = 0,
    overhead: int = 0,
    mpu: int = 0,
    linklayer: str = "ethernet",
    exceed: int = CONTROLS["reclassify"],
    conform: int = 0,
) -> Police:
    if not rate or not burst:
        raise ValueError("police needs rate and burst")
    if peakrate and (not mtu or peakrate < rate):
        raise ValueError("peakrate needs an mtu, and must not be below rate")
    if 0 < mtu <= CELLS:
        raise ValueError("the kernel takes an mtu from 256B on")
    longest = mtu or CELLS << _cell_log(DEFAULT_MTU)
    ticks = units.ticks(burst, rate)
    return Police(rate, ticks, longest, exceed, conform, peakrate, overhead, mpu, LINKLAYERS[linklayer])


def _spec(rate: int, options: Police) -> bytes:
    if not rate:
        return bytes(RATESPEC.size)
    cells = max(_cell_log(options.mtu), 1)
    return RATESPEC.pack(cells, options.linklayer, options.overhead, -1, options.mpu, min(rate, 2**32 - 1))


def _encode(options: Police) -> bytes:
    head = HEAD.pack(0, options.exceed, 0, options.burst, options.mtu)
    specs = _spec(options.rate, options) + _spec(options.peak, options)
    data = attribute(TBF, head + specs + COUNTS.pack(0, 0, 0)) + attribute(RATE, TABLE)
    if options.rate >= 2**32:
        data += attribute(RATE64, u64(options.rate))
    if options.peak:
        data += attribute(PEAKRATE, TABLE)
    if options.peak >= 2**32:
        data += attribute(PEAKRATE64, u64(options.peak))
    if options.conform:
        data += attribute(RESULT, struct.pack("=i", options.conform))
    return data


def _decode(data: bytes) -> Police | Raw:
    """Raw where it counts packets instead of bytes, or follows an estimator."""
    found = attributes(data)
    _index, exceed, _limit, burst, mtu = HEAD.unpack_from(found[TBF])
    _cells, linklayer, overhead, _align, mpu, rate = RATESPEC.unpack_from(found[TBF], HEAD.size)
    if not rate or AVRATE in found or PKTRATE64 in found:
        return Raw(data)
    peak = RATESPEC.unpack_from(found[TBF], HEAD.size + RATESPEC.size)[5]
    rate, peak = integer(found.get(RATE64, u32(rate))), integer(found.get(PEAKRATE64, u32(peak)))
    (conform,) = struct.unpack_from("=i", found.get(RESULT, bytes(4)))
    return Police(rate, burst, mtu, exceed, conform, peak, overhead, mpu, linklayer)


def _render(options: Police) -> str:
    layer = next((word for word, number in LINKLAYERS.items() if number == options.linklayer), None)
    conform = f"/{control_text(options.conform)}" if options.conform else ""
    line = words(
        rate=units.rate_text(options.rate),
        burst=units.size_text(units.burst_size(options.burst, options.rate)),
        mtu=units.size_text(options.mtu),
        peakrate=units.rate_text(options.peak) if options.peak else None,
        mpu=options.mpu or None,
        overhead=options.overhead or None,
        linklayer=layer if options.linklayer != LINKLAYER_ETHERNET else None,
    )
    return f"{line} conform-exceed {control_text(options.exceed)}{conform}"


POLICE = Kind(
    "police",
    {
        "rate": schema.leaf(units.parse_rate),
        "burst": schema.leaf(units.parse_size),
        "mtu": schema.leaf(units.parse_size),
        "peakrate": schema.leaf(units.parse_rate),
        "overhead": schema.whole_number(0, 0xFFFF),
        "mpu": schema.whole_number(0, 0xFFFF),
        "linklayer": schema.choice(*LINKLAYERS),
        "exceed": schema.leaf(parse_control),
        "conform": schema.leaf(parse_control),
    },
    _build,
    _encode,
    _decode,
    _render,
)
