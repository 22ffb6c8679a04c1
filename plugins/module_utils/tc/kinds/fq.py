# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fq (linux/pkt_sched.h, net/sched/sch_fq.c, tc-fq(8)).

It keeps what a change leaves out, so every value is always sent; those that the kernel takes from the interface's MTU
are filled in first. Attributes that a newer kernel adds are not looked at.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ... import schema, units
from ...errors import MissingCapability
from ...netlink import attribute, attributes, integer, u8, u32
from ...schema import leaf
from .base import Kind, words
from .prio import PRIO, PRIOMAP, parse_priomap

(
    TCA_FQ_PLIMIT,
    TCA_FQ_FLOW_PLIMIT,
    TCA_FQ_QUANTUM,
    TCA_FQ_INITIAL_QUANTUM,
    TCA_FQ_RATE_ENABLE,
    _DEFAULT_RATE,
    TCA_FQ_FLOW_MAX_RATE,
    TCA_FQ_BUCKETS_LOG,
    TCA_FQ_FLOW_REFILL_DELAY,
    TCA_FQ_ORPHAN_MASK,
    TCA_FQ_LOW_RATE_THRESHOLD,
    TCA_FQ_CE_THRESHOLD,
    TCA_FQ_TIMER_SLACK,
    TCA_FQ_HORIZON,
    TCA_FQ_HORIZON_DROP,
    TCA_FQ_PRIOMAP,
    TCA_FQ_WEIGHTS,
) = range(1, 18)
WEIGHTS = struct.Struct("=3i")
DEFAULT_WEIGHTS = (589824, 196608, 65536)
FQ_BANDS, LEAST_WEIGHT = 3, 16384
NO_RATE = MOST_US = 2**32 - 1
MOST_QUANTUM = 2**20


class Fq(NamedTuple):
    """Limits in packets, quanta in bytes (None: of the MTU), rates in bytes per second, times in us, slack in ns.

    buckets: their logarithm to base 2. priomap and weights: None where nobody asks for them, or the kernel has none.
    """

    limit: int = 10000
    flow_limit: int = 100
    quantum: int | None = None
    initial_quantum: int | None = None
    pacing: bool = True
    maxrate: int = NO_RATE
    buckets: int = 10
    refill_delay: int = 40_000
    orphan_mask: int = 1023
    low_rate_threshold: int = 68_750
    ce_threshold: int = MOST_US
    timer_slack: int = 10_000
    horizon: int = 10_000_000
    horizon_drop: bool = True
    priomap: tuple[int, ...] | None = None
    weights: tuple[int, ...] | None = None


_FQ_U32 = {
    "limit": TCA_FQ_PLIMIT,
    "flow_limit": TCA_FQ_FLOW_PLIMIT,
    "quantum": TCA_FQ_QUANTUM,
    "initial_quantum": TCA_FQ_INITIAL_QUANTUM,
    "pacing": TCA_FQ_RATE_ENABLE,
    "maxrate": TCA_FQ_FLOW_MAX_RATE,
    "buckets": TCA_FQ_BUCKETS_LOG,
    "refill_delay": TCA_FQ_FLOW_REFILL_DELAY,
    "orphan_mask": TCA_FQ_ORPHAN_MASK,
    "low_rate_threshold": TCA_FQ_LOW_RATE_THRESHOLD,
    "ce_threshold": TCA_FQ_CE_THRESHOLD,
    "timer_slack": TCA_FQ_TIMER_SLACK,
    "horizon": TCA_FQ_HORIZON,
}


def _encode_fq(options: Fq) -> bytes:
    """A kernel without bands passes over their attributes."""
    values = options._asdict()
    data = b"".join(attribute(kind, u32(values[name])) for name, kind in _FQ_U32.items() if values[name] is not None)
    data += attribute(TCA_FQ_HORIZON_DROP, u8(options.horizon_drop))
    data += attribute(TCA_FQ_PRIOMAP, PRIO.pack(FQ_BANDS, *(options.priomap or PRIOMAP)))
    return data + attribute(TCA_FQ_WEIGHTS, WEIGHTS.pack(*(options.weights or DEFAULT_WEIGHTS)))


def _decode_fq(data: bytes) -> Fq:
    found = attributes(data)
    values: dict[str, Any] = {name: integer(found[kind]) for name, kind in _FQ_U32.items() if kind in found}
    values["pacing"] = bool(values.get("pacing", 1))
    return Fq(
        **values,
        horizon_drop=bool(integer(found.get(TCA_FQ_HORIZON_DROP, u8(1)))),
        priomap=PRIO.unpack_from(found[TCA_FQ_PRIOMAP])[1:] if TCA_FQ_PRIOMAP in found else None,
        weights=WEIGHTS.unpack_from(found[TCA_FQ_WEIGHTS]) if TCA_FQ_WEIGHTS in found else None,
    )


def _settle_fq(options: Fq, _queue_length: int, packet: int) -> Fq:
    quantum = 2 * packet if options.quantum is None else options.quantum
    initial = 10 * packet if options.initial_quantum is None else options.initial_quantum
    return options._replace(quantum=quantum, initial_quantum=initial)


def _same_fq(desired: Fq, observed: Fq) -> bool:
    for name, since in (("priomap", "6.7"), ("weights", "6.7")):
        if getattr(desired, name) is not None and getattr(observed, name) is None:
            raise MissingCapability(f"{name} of fq", f"Linux {since} or later", f"leave {name} out")
    if not _same_jiffies(desired.refill_delay, observed.refill_delay):
        return False
    found = observed._replace(refill_delay=desired.refill_delay)
    if desired.priomap is None and found.priomap == PRIOMAP:
        found = found._replace(priomap=None)
    if desired.weights is None and found.weights == DEFAULT_WEIGHTS:
        found = found._replace(weights=None)
    return desired == found


def _same_jiffies(asked: int, shown: int) -> bool:
    """The kernel holds whole ticks of its timer, rounded up; which frequency it was built with, nothing says."""
    return any(-(-asked * hertz // 10**6) * (10**6 // hertz) == shown for hertz in (100, 250, 1000)) or asked == shown


def _render_fq(options: Fq) -> str:
    line = words(
        bands=f"{FQ_BANDS} priomap {' '.join(map(str, options.priomap))}" if options.priomap else None,
        weights=" ".join(map(str, options.weights)) if options.weights else None,
        limit=options.limit,
        flow_limit=options.flow_limit,
        buckets=1 << options.buckets,
        orphan_mask=options.orphan_mask,
        quantum=options.quantum,
        initial_quantum=options.initial_quantum,
        maxrate=units.rate_text(options.maxrate) if options.maxrate != NO_RATE else None,
        low_rate_threshold=units.rate_text(options.low_rate_threshold),
        refill_delay=time_text(options.refill_delay),
        ce_threshold=time_text(options.ce_threshold) if options.ce_threshold != MOST_US else None,
        timer_slack=f"{options.timer_slack}ns" if options.timer_slack != Fq().timer_slack else None,
        horizon=time_text(options.horizon) if options.horizon != Fq().horizon else None,
    )
    return line + ("" if options.pacing else " nopacing") + ("" if options.horizon_drop else " horizon_cap")


def parse_microseconds(value: object) -> int:
    """Microseconds, as the kernel takes these times."""
    nanoseconds = units.parse_time(value)
    if nanoseconds % 1000 or nanoseconds // 1000 >= MOST_US:
        raise ValueError("the kernel takes whole microseconds here, below 4294s")
    return nanoseconds // 1000


def time_text(microseconds: int) -> str:
    """Microseconds as tc writes them."""
    return units.time_text(microseconds * 1000)


def _parse_buckets(value: object) -> int:
    number = units.parse_integer(value, 2, 2**18)
    if number & number - 1:
        raise ValueError("write a power of two from 2 to 262144")
    return number.bit_length() - 1


def _parse_rate(value: object) -> int:
    rate = units.parse_rate(value)
    if rate >= NO_RATE:
        raise ValueError("fq holds rates below 34.3gbit; leave it out for none")
    return rate


def _parse_fq_priomap(value: object, path: str) -> tuple[int, ...]:
    priomap = parse_priomap(value, path)
    if max(priomap) >= FQ_BANDS:
        raise schema.InvalidInput(path, value, "fq has the bands 0, 1 and 2")
    return priomap


def _parse_weights(value: object, path: str) -> tuple[int, ...]:
    found = schema.sequence(schema.whole_number(LEAST_WEIGHT, 2**31 - 1))(value, path)
    if len(found) != FQ_BANDS:
        raise schema.InvalidInput(path, value, "write three weights, one for each band")
    return tuple(found)


def _parse_slack(value: object) -> int:
    nanoseconds = units.parse_time(value)
    if nanoseconds >= 2**32:
        raise ValueError("fq holds a timer_slack below 4.29s")
    return nanoseconds


COUNT = leaf(units.parse_integer)
FLAG = leaf(units.parse_boolean)
MICROSECONDS = leaf(parse_microseconds)


def size_between(least: int, most: int) -> schema.Parser:
    """A parser of sizes in these bounds, in bytes."""

    def parse(value: object) -> int:
        size = units.parse_size(value)
        if not least <= size <= most:
            raise ValueError(f"write a size from {least}B to {most}B")
        return size

    return leaf(parse)


FQ_KIND = Kind(
    "fq",
    {
        "limit": COUNT,
        "flow_limit": COUNT,
        "quantum": size_between(1, MOST_QUANTUM),
        "initial_quantum": size_between(0, 2**31 - 1),
        "pacing": FLAG,
        "maxrate": leaf(_parse_rate),
        "buckets": leaf(_parse_buckets),
        "refill_delay": MICROSECONDS,
        "orphan_mask": COUNT,
        "low_rate_threshold": leaf(_parse_rate),
        "ce_threshold": MICROSECONDS,
        "timer_slack": leaf(_parse_slack),
        "horizon": MICROSECONDS,
        "horizon_drop": FLAG,
        "priomap": _parse_fq_priomap,
        "weights": _parse_weights,
    },
    Fq,
    _encode_fq,
    _decode_fq,
    _render_fq,
    _same_fq,
    settle=_settle_fq,
)
