# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bottleneck: what waits for the rate, how much of it, and what a packet counts for on the link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import schema, units
from ..errors import InvalidInput
from ..tc.kinds import table
from ..tc.kinds.htb import LINKLAYER_ETHERNET, LINKLAYERS

FULL_PACKET = 1514  # bytes on an Ethernet, without the checksum, as the kernel counts them
# What may stand below netem: tc's names and words.
DISCIPLINES = ("pfifo", "bfifo", "fq_codel", "fq", "cake", "tbf", "plug")


class Queue(NamedTuple):
    """The buffer: an amount in ns, bytes or packets."""

    amount: int
    unit: str  # "time", "bytes" or "packets"


class Discipline(NamedTuple):
    """The queueing discipline of the buffer: a kind of tc's and its options (tc/kinds)."""

    kind: str
    options: Any


class Wire(NamedTuple):
    """What a packet takes on the link that a rate is meant for (HTB's overhead, mpu and linklayer, in bytes)."""

    overhead: int = 0
    mpu: int = 0
    linklayer: int = LINKLAYER_ETHERNET


def parse_queue(value: object, path: str) -> Queue:
    """`100ms`, `64kB` or `50p`."""
    for unit, parse in (("packets", units.parse_packets), ("bytes", units.parse_size), ("time", units.parse_time)):
        try:
            amount = parse(value)
        except ValueError:
            continue
        if amount:
            return Queue(amount, unit)
    raise InvalidInput(path, value, "write the buffer as time (100ms), bytes (64kB, 64KiB) or packets (50p), above 0")


def parse_discipline(value: object, path: str) -> Discipline:
    """`fq_codel`, or `{kind: fq_codel, target: 5ms}` with the parameters that the module tc has for it."""
    place = f"{path}.kind" if isinstance(value, Mapping) else path
    kind = schema.choice(*DISCIPLINES)(value.get("kind") if isinstance(value, Mapping) else value, place)
    found = table.require("qdisc", kind, place)
    values = schema.mapping({"kind": schema.text, **found.parameters})(
        value if isinstance(value, Mapping) else {}, path
    )
    values.pop("kind", None)
    try:
        return Discipline(kind, found.build(**values))
    except ValueError as error:
        raise InvalidInput(path, value, str(error)) from None


def _size(value: object, path: str) -> int:
    """A size that HTB holds in 16 bits (tc_ratespec)."""
    size = int(schema.leaf(units.parse_size)(value, path))
    if size > 0xFFFF:
        raise InvalidInput(path, value, "write at most 65535B")
    return size


WIRE: dict[str, schema.Parser] = {"overhead": _size, "mpu": _size, "linklayer": schema.choice(*LINKLAYERS)}


def wire_size(wire: Wire, packet: int) -> int:
    """Bytes that a packet counts for (include/net/sch_generic.h, psched_l2t_ns): an ATM cell carries 48 of 53."""
    size = max(packet + wire.overhead, wire.mpu)
    return size if wire.linklayer == LINKLAYER_ETHERNET else -(-size // 48) * 53


def waiting_bytes(queue: Queue | None, rate: int | None, wire: Wire) -> int | None:
    """Bytes of the buffer, where it is asked in bytes, or in time at the rate: those of full packets in that time."""
    if queue is None or queue.unit == "packets":
        return None
    if queue.unit == "bytes":
        return queue.amount
    return queue.amount * (rate or 0) // 10**9 * FULL_PACKET // wire_size(wire, FULL_PACKET)
