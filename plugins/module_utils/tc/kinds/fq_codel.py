# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fq_codel (linux/pkt_sched.h, net/codel.h, net/sched/sch_fq_codel.c, tc-fq_codel(8)).

It keeps what a change leaves out, so every value is always sent. Attributes that a newer kernel adds are not looked at.
"""

from __future__ import annotations

from typing import NamedTuple

from ... import units
from ...netlink import attribute, attributes, integer, u8, u32
from ...schema import leaf, whole_number
from .base import Kind, words
from .fq import COUNT, FLAG, parse_microseconds, size_between, time_text

(
    TCA_FQ_CODEL_TARGET,
    TCA_FQ_CODEL_LIMIT,
    TCA_FQ_CODEL_INTERVAL,
    TCA_FQ_CODEL_ECN,
    TCA_FQ_CODEL_FLOWS,
    TCA_FQ_CODEL_QUANTUM,
    TCA_FQ_CODEL_CE_THRESHOLD,
    TCA_FQ_CODEL_DROP_BATCH_SIZE,
    TCA_FQ_CODEL_MEMORY_LIMIT,
    TCA_FQ_CODEL_CE_THRESHOLD_SELECTOR,
    TCA_FQ_CODEL_CE_THRESHOLD_MASK,
) = range(1, 12)
CODEL_SHIFT = 10  # codel counts in units of 1024 ns (net/codel.h)
NO_TIME = 2**31 - 1  # CODEL_DISABLED_THRESHOLD, which no dump shows
LEAST_QUANTUM, MOST_QUANTUM = 256, 2**20


class FqCodel(NamedTuple):
    """limit in packets, quantum in bytes (None: of the MTU), memory_limit in bytes; times in codel's units of 1024 ns.

    ce_threshold_selector: (value, mask) of the DS field of the packets that ce_threshold marks.
    """

    limit: int = 10240
    flows: int = 1024
    quantum: int | None = None
    target: int = 4882
    interval: int = 97656
    ecn: bool = True
    ce_threshold: int = NO_TIME
    ce_threshold_selector: tuple[int, int] = (0, 0)
    memory_limit: int = 32 << 20
    drop_batch: int = 64


def parse_codel_time(value: object) -> int:
    """In codel's units, cut as the kernel cuts them."""
    ticks = parse_microseconds(value) * 1000 >> CODEL_SHIFT
    if ticks >= NO_TIME:
        raise ValueError("codel holds times below 2199s")
    return ticks


def codel_request(ticks: int) -> int:
    """Microseconds that the kernel cuts to these units."""
    return -(-(ticks << CODEL_SHIFT) // 1000)


def codel_shown(microseconds: int) -> int:
    """The units of which the kernel shows these microseconds (net/codel.h, codel_time_to_us)."""
    return -(-microseconds * 1000 // (1 << CODEL_SHIFT))


def _codel_times(options: FqCodel) -> dict[int, int]:
    return {
        TCA_FQ_CODEL_TARGET: options.target,
        TCA_FQ_CODEL_INTERVAL: options.interval,
        TCA_FQ_CODEL_CE_THRESHOLD: options.ce_threshold,
    }


def _change_fq_codel(options: FqCodel, _old: FqCodel) -> bytes:
    """Without flows: a change that names them is refused, even with the number that stands."""
    numbers = {kind: codel_request(ticks) for kind, ticks in _codel_times(options).items()}
    numbers[TCA_FQ_CODEL_LIMIT] = options.limit
    numbers[TCA_FQ_CODEL_ECN] = options.ecn
    if options.quantum is not None:
        numbers[TCA_FQ_CODEL_QUANTUM] = options.quantum
    numbers[TCA_FQ_CODEL_DROP_BATCH_SIZE] = options.drop_batch
    numbers[TCA_FQ_CODEL_MEMORY_LIMIT] = options.memory_limit
    value, mask = options.ce_threshold_selector
    data = b"".join(attribute(kind, u32(number)) for kind, number in numbers.items())
    data += attribute(TCA_FQ_CODEL_CE_THRESHOLD_SELECTOR, u8(value))
    return data + attribute(TCA_FQ_CODEL_CE_THRESHOLD_MASK, u8(mask))


def _encode_fq_codel(options: FqCodel) -> bytes:
    return _change_fq_codel(options, options) + attribute(TCA_FQ_CODEL_FLOWS, u32(options.flows))


def _decode_fq_codel(data: bytes) -> FqCodel:
    found = {kind: integer(value) for kind, value in attributes(data).items()}
    threshold = found.get(TCA_FQ_CODEL_CE_THRESHOLD)
    return FqCodel(
        limit=found[TCA_FQ_CODEL_LIMIT],
        flows=found[TCA_FQ_CODEL_FLOWS],
        quantum=found[TCA_FQ_CODEL_QUANTUM],
        target=codel_shown(found[TCA_FQ_CODEL_TARGET]),
        interval=codel_shown(found[TCA_FQ_CODEL_INTERVAL]),
        ecn=bool(found[TCA_FQ_CODEL_ECN]),
        ce_threshold=NO_TIME if threshold is None else codel_shown(threshold),
        ce_threshold_selector=(
            found.get(TCA_FQ_CODEL_CE_THRESHOLD_SELECTOR, 0),
            found.get(TCA_FQ_CODEL_CE_THRESHOLD_MASK, 0),
        ),
        memory_limit=found[TCA_FQ_CODEL_MEMORY_LIMIT],
        drop_batch=found[TCA_FQ_CODEL_DROP_BATCH_SIZE],
    )


def _settle_fq_codel(options: FqCodel, _queue_length: int, packet: int) -> FqCodel:
    return options._replace(quantum=packet) if options.quantum is None else options


def _same_fq_codel(desired: FqCodel, observed: FqCodel) -> bool:
    if desired.ce_threshold == NO_TIME:  # then the kernel does not show its selector either
        observed = observed._replace(ce_threshold_selector=desired.ce_threshold_selector)
    return desired == observed


def _unchangeable_fq_codel(old: FqCodel, new: FqCodel) -> str:
    return "fq_codel keeps the number of flows that it was made with" if old.flows != new.flows else ""


def _render_fq_codel(options: FqCodel) -> str:
    marks = options.ce_threshold != NO_TIME
    value, mask = options.ce_threshold_selector
    return words(
        limit=options.limit,
        flows=options.flows,
        quantum=options.quantum,
        target=time_text(codel_request(options.target)),
        interval=time_text(codel_request(options.interval)),
        ce_threshold=time_text(codel_request(options.ce_threshold)) if marks else None,
        ce_threshold_selector=f"{value:#x}/{mask:#x}" if marks and mask else None,
        memory_limit=units.size_text(options.memory_limit),
        drop_batch=options.drop_batch,
    ) + (" ecn" if options.ecn else " noecn")


def _parse_selector(value: object) -> tuple[int, int]:
    allowed = "write VALUE/MASK of the DS field, such as 0x1/0x3"
    number, _slash, mask = str(value).partition("/")
    try:
        return units.parse_integer(number, 0, 255), units.parse_integer(mask, 0, 255)
    except ValueError:
        raise ValueError(allowed) from None


CODEL_TIME = leaf(parse_codel_time)
FQ_CODEL_KIND = Kind(
    "fq_codel",
    {
        "limit": COUNT,
        "flows": whole_number(1, 65536),
        "quantum": size_between(LEAST_QUANTUM, MOST_QUANTUM),
        "target": CODEL_TIME,
        "interval": CODEL_TIME,
        "ecn": FLAG,
        "ce_threshold": CODEL_TIME,
        "ce_threshold_selector": leaf(_parse_selector),
        "memory_limit": size_between(0, 2**31),
        "drop_batch": whole_number(1, 2**32 - 1),
    },
    FqCodel,
    _encode_fq_codel,
    _decode_fq_codel,
    _render_fq_codel,
    _same_fq_codel,
    _unchangeable_fq_codel,
    _change_fq_codel,
    _settle_fq_codel,
)
