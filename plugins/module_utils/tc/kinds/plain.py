# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds whose options are one structure: pfifo, bfifo and tbf (linux/pkt_sched.h, tc-pfifo(8), tc-tbf(8))."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from ... import units
from ...netlink import attribute, attributes, integer, u32, u64
from ...schema import leaf
from .base import Kind, words
from .htb import RATESPEC, ratespec

TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_PRATE64, TCA_TBF_BURST, TCA_TBF_PBURST = 1, 4, 5, 6, 7
TBF_QUEUE = struct.Struct("=3I")  # the rest of tc_tbf_qopt: limit, buffer, mtu


class Fifo(NamedTuple):
    """limit: packets (pfifo) or bytes (bfifo); None: the device's queue length, by the kernel."""

    limit: int | None = None


class Tbf(NamedTuple):
    """Rates in bytes per second, burst, limit and mtu in bytes; peak 0: none."""

    rate: int
    burst: int
    limit: int
    peak: int = 0
    mtu: int = 0


def _encode_fifo(options: Fifo) -> bytes:
    return b"" if options.limit is None else u32(options.limit)


def _decode_fifo(data: bytes) -> Fifo:
    return Fifo(integer(data[:4]) if data else None)


def _same_fifo(desired: Fifo, observed: Fifo) -> bool:
    return desired.limit is None or desired == observed


def _settle_fifo(unit: str) -> Callable[[Fifo, int, int], Fifo]:
    """The limit that the kernel gives a fifo whose request names none (net/sched/sch_fifo.c, fifo_init)."""

    def settle(options: Fifo, queue_length: int, packet: int) -> Fifo:
        if options.limit is not None:
            return options
        return Fifo((queue_length or 1) * (packet if unit else 1))

    return settle


def _build_tbf(
    rate: int | None = None,
    burst: int | None = None,
    limit: int | None = None,
    latency: int | None = None,
    peakrate: int | None = None,
    mtu: int | None = None,
) -> Tbf:
    """Limits as tc computes them: latency is the time that a packet may wait, at the slower of both rates."""
    if rate is None or not burst:
        raise ValueError("tbf needs rate and burst")
    if (limit is None) == (latency is None):
        raise ValueError("tbf needs one of limit and latency")
    if (peakrate is None) != (not mtu) or (peakrate or rate) < rate:
        raise ValueError("peakrate and mtu need each other, and peakrate must not be below rate")
    if limit is None and latency is not None:
        limit = rate * latency // 10**9 + burst
        if peakrate is not None and mtu is not None:
            limit = min(limit, peakrate * latency // 10**9 + mtu)
    if limit is None or limit >= 2**32:
        raise ValueError("latency at this rate makes a queue of more than 4 GiB")
    return Tbf(rate, burst, limit, peakrate or 0, mtu or 0)


def _encode_tbf(options: Tbf) -> bytes:
    """Bursts go as bytes too, as tc sends them: cut to ticks, a burst of one packet would drop that packet."""
    peak = ratespec(options.peak) if options.peak else bytes(RATESPEC.size)
    data = attribute(TCA_TBF_PARMS, ratespec(options.rate) + peak + TBF_QUEUE.pack(options.limit, *_ticks(options)))
    data += attribute(TCA_TBF_BURST, u32(options.burst))
    if options.peak:
        data += attribute(TCA_TBF_PBURST, u32(options.mtu))
    if options.rate >= 2**32:
        data += attribute(TCA_TBF_RATE64, u64(options.rate))
    if options.peak >= 2**32:
        data += attribute(TCA_TBF_PRATE64, u64(options.peak))
    return data


def _decode_tbf(data: bytes) -> Tbf:
    found = attributes(data)
    parameters = found[TCA_TBF_PARMS]
    rate = RATESPEC.unpack_from(parameters)[5]
    peak = RATESPEC.unpack_from(parameters, RATESPEC.size)[5]
    limit, buffer, mtu = TBF_QUEUE.unpack_from(parameters, 2 * RATESPEC.size)
    rate = integer(found.get(TCA_TBF_RATE64, u32(rate)))
    peak = integer(found.get(TCA_TBF_PRATE64, u32(peak)))
    return Tbf(rate, units.burst_size(buffer, rate), limit, peak, units.burst_size(mtu, peak) if peak else 0)


def _ticks(options: Tbf) -> tuple[int, int]:
    mtu = units.ticks(options.mtu, options.peak) if options.peak else 0
    return units.ticks(options.burst, options.rate), mtu


def _same_tbf(desired: Tbf, observed: Tbf) -> bool:
    """Bursts are dumped in ticks; the kernel's own arithmetic from bytes to ticks may end one below."""
    close = all(abs(one - other) <= 1 for one, other in zip(_ticks(desired), _ticks(observed)))
    return close and desired == observed._replace(burst=desired.burst, mtu=desired.mtu)


def _render_tbf(options: Tbf) -> str:
    return words(
        rate=units.rate_text(options.rate),
        burst=units.size_text(options.burst),
        limit=units.size_text(options.limit),
        peakrate=units.rate_text(options.peak) if options.peak else None,
        mtu=units.size_text(options.mtu) if options.peak else None,
    )


def _fifo(name: str, unit: str, limit: Callable[[object], int]) -> Kind:
    def render(options: Fifo) -> str:
        return "" if options.limit is None else f"limit {options.limit}{unit}"

    return Kind(
        name,
        {"limit": leaf(limit)},
        Fifo,
        _encode_fifo,
        _decode_fifo,
        render,
        _same_fifo,
        settle=_settle_fifo(unit),
    )


PFIFO = _fifo("pfifo", "", units.parse_integer)
BFIFO = _fifo("bfifo", "b", units.parse_size)
TBF = Kind(
    "tbf",
    {
        "rate": leaf(units.parse_rate),
        "burst": leaf(units.parse_size),
        "limit": leaf(units.parse_size),
        "latency": leaf(units.parse_time),
        "peakrate": leaf(units.parse_rate),
        "mtu": leaf(units.parse_size),
    },
    _build_tbf,
    _encode_tbf,
    _decode_tbf,
    _render_tbf,
    _same_tbf,
    slots=lambda _options: 1,
)
