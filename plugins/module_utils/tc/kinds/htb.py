# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hierarchical token bucket: the qdisc and its classes (linux/pkt_sched.h, net/sched/sch_htb.c, tc-htb(8))."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ... import units
from ...netlink import attribute, attributes, integer, u32, u64
from ...schema import choice, leaf
from .base import Kind, words

TCA_HTB_PARMS, TCA_HTB_INIT, TCA_HTB_DIRECT_QLEN, TCA_HTB_RATE64, TCA_HTB_CEIL64 = 1, 2, 5, 6, 7
GLOBAL = struct.Struct("=5I")  # tc_htb_glob: version, rate2quantum, default class, debug, direct packets
RATESPEC = struct.Struct("=BBHhHI")  # tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate
OPTIONS = struct.Struct("=5I")  # the rest of tc_htb_opt: buffer, cbuffer, quantum, level, prio
PARAMETERS = struct.Struct("=BBHhHIBBHhHI5I")  # tc_htb_opt: two tc_ratespec, and the rest
HTB_VERSION = 3
LINKLAYER_ETHERNET, LINKLAYER_ATM = 1, 2  # tc_link_layer
LINKLAYERS = {"ethernet": LINKLAYER_ETHERNET, "atm": LINKLAYER_ATM, "adsl": LINKLAYER_ATM}  # tc-stab(8)
RATE2QUANTUM = 10
DEFAULT_BURST = 1600  # what tc adds to rate/HZ; with high-resolution timers that is all


class Htb(NamedTuple):
    """The qdisc. `default`: minor of the class for what no filter takes (0: unshaped); qlen None: the device's."""

    default: int = 0
    rate2quantum: int = RATE2QUANTUM
    direct_qlen: int | None = None


class HtbClass(NamedTuple):
    """Rates in bytes per second, buffers in psched ticks of 64 ns. quantum None: rate / rate2quantum, by the kernel."""

    rate: int
    ceil: int
    buffer: int
    cbuffer: int
    quantum: int | None = None
    priority: int = 0
    overhead: int = 0
    mpu: int = 0
    linklayer: int = LINKLAYER_ETHERNET


def ratespec(rate: int, overhead: int = 0, mpu: int = 0, linklayer: int = LINKLAYER_ETHERNET) -> bytes:
    """tc_ratespec; a rate that does not fit is all ones, its 64 bits follow in an attribute."""
    return RATESPEC.pack(0, linklayer, overhead, -1, mpu, min(rate, 2**32 - 1))


def _build_qdisc(default: int = 0, r2q: int = RATE2QUANTUM, direct_qlen: int | None = None) -> Htb:
    return Htb(default, r2q, direct_qlen)


def _encode_qdisc(options: Htb) -> bytes:
    init = attribute(TCA_HTB_INIT, GLOBAL.pack(HTB_VERSION, options.rate2quantum, options.default, 0, 0))
    if options.direct_qlen is None:
        return init
    return init + attribute(TCA_HTB_DIRECT_QLEN, u32(options.direct_qlen))


def _decode_qdisc(data: bytes) -> Htb:
    found = attributes(data)
    _version, rate2quantum, default, _debug, _direct = GLOBAL.unpack_from(found[TCA_HTB_INIT])
    return Htb(default, rate2quantum, integer(found[TCA_HTB_DIRECT_QLEN]) if TCA_HTB_DIRECT_QLEN in found else None)


def _render_qdisc(options: Htb) -> str:
    return words(
        default=f"{options.default:#x}" if options.default else None,
        r2q=options.rate2quantum if options.rate2quantum != RATE2QUANTUM else None,
        direct_qlen=options.direct_qlen,
    )


def _same_qdisc(desired: Htb, observed: Htb) -> bool:
    return desired == observed or (desired.direct_qlen is None and desired[:2] == observed[:2])


def _unchangeable_qdisc(_old: Htb, _new: Htb) -> str:
    return "an HTB qdisc has no change operation"


def build_class(
    rate: int | None = None,
    ceil: int | None = None,
    burst: int | None = None,
    cburst: int | None = None,
    prio: int = 0,
    quantum: int | None = None,
    overhead: int = 0,
    mpu: int = 0,
    linklayer: str = "ethernet",
) -> HtbClass:
    """A class as tc makes it: ceil is the rate, bursts are 1600 bytes where they are not given."""
    if rate is None:
        raise ValueError("an HTB class needs a rate")
    ceil = rate if ceil is None else ceil
    if ceil < rate:
        raise ValueError(f"ceil {units.rate_text(ceil)} is below rate {units.rate_text(rate)}")
    return HtbClass(
        rate,
        ceil,
        units.ticks(DEFAULT_BURST if burst is None else burst, rate),
        units.ticks(DEFAULT_BURST if cburst is None else cburst, ceil),
        quantum,
        prio,
        overhead,
        mpu,
        LINKLAYERS[linklayer],
    )


def _encode_class(options: HtbClass) -> bytes:
    shape = (options.overhead, options.mpu, options.linklayer)
    parameters = (
        ratespec(options.rate, *shape)
        + ratespec(options.ceil, *shape)
        + OPTIONS.pack(options.buffer, options.cbuffer, options.quantum or 0, 0, options.priority)
    )
    data = attribute(TCA_HTB_PARMS, parameters)
    if options.rate >= 2**32:
        data += attribute(TCA_HTB_RATE64, u64(options.rate))
    if options.ceil >= 2**32:
        data += attribute(TCA_HTB_CEIL64, u64(options.ceil))
    return data


def _decode_class(data: bytes) -> HtbClass:
    found = attributes(data)
    _log, linklayer, overhead, _align, mpu, rate, *_same, ceil, buffer, cbuffer, quantum, _level, priority = (
        PARAMETERS.unpack_from(found[TCA_HTB_PARMS])
    )
    if TCA_HTB_RATE64 in found:
        rate = integer(found[TCA_HTB_RATE64])
    if TCA_HTB_CEIL64 in found:
        ceil = integer(found[TCA_HTB_CEIL64])
    return HtbClass(rate, ceil, buffer, cbuffer, quantum, priority, overhead, mpu, linklayer)


def _render_class(options: HtbClass) -> str:
    rate, ceil = units.rate_text(options.rate), units.rate_text(options.ceil)
    burst = units.size_text(units.burst_size(options.buffer, options.rate))
    cburst = units.size_text(units.burst_size(options.cbuffer, options.ceil))
    text = f"rate {rate} ceil {ceil} burst {burst} cburst {cburst}"
    if options.priority:
        text += f" prio {options.priority}"
    if options.quantum is not None:
        text += f" quantum {options.quantum}"
    if options[6:] == (0, 0, LINKLAYER_ETHERNET):
        return text
    linklayer = "atm" if options.linklayer == LINKLAYER_ATM else None
    more = words(overhead=options.overhead or None, mpu=options.mpu or None, linklayer=linklayer)
    return f"{text} {more}"


def default_quantum(rate: int, rate2quantum: int) -> int:
    """The quantum that htb_change_class gives a leaf whose request names none."""
    return max(1000, min(200000, rate // rate2quantum))


def leaf_matters(options: HtbClass, rate2quantum: int) -> HtbClass:
    """A leaf's options with the kernel's quantum filled in, as it dumps them."""
    if options.quantum:
        return options
    return HtbClass(*options[:4], default_quantum(options.rate, rate2quantum), *options[5:])


def inner_matters(options: HtbClass) -> HtbClass:
    """What counts on a class with children: the kernel uses, and changes, quantum and prio on leaves only."""
    return options._replace(quantum=None, priority=0)


_BYTES = leaf(lambda value: units.parse_integer(value, 0, 0xFFFF))
QDISC = Kind(
    "htb",
    {
        "default": leaf(lambda value: units.parse_integer(value, 0, 0xFFFF)),
        "r2q": leaf(lambda value: units.parse_integer(value, 1)),
        "direct_qlen": leaf(units.parse_integer),
    },
    _build_qdisc,
    _encode_qdisc,
    _decode_qdisc,
    _render_qdisc,
    _same_qdisc,
    _unchangeable_qdisc,
)
_CLASS_PARAMETERS: dict[str, Any] = {
    "rate": leaf(units.parse_rate),
    "ceil": leaf(units.parse_rate),
    "burst": leaf(units.parse_size),
    "cburst": leaf(units.parse_size),
    "prio": leaf(lambda value: units.parse_integer(value, 0, 7)),
    "quantum": leaf(lambda value: units.parse_integer(value, 1, 2**31 - 1)),
    "overhead": _BYTES,
    "mpu": _BYTES,
    "linklayer": choice(*LINKLAYERS),
}
CLASS = Kind("htb", _CLASS_PARAMETERS, build_class, _encode_class, _decode_class, _render_class)
