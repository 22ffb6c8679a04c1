# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one shape of every impaired interface: so that every value is a change message, and nothing is torn down.

HTB root, one wrapping class to borrow from, one class for what passes unimpaired, and per traffic class one HTB
class with one leaf, and below that a queue of its own where one is asked. Handles tell whose it is, and a class
keeps its handle as long as it keeps its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from .. import units
from ..tc.kinds.htb import Htb, HtbClass
from ..tc.kinds.netem import Chance, Netem
from ..tc.kinds.plain import Fifo
from ..tc.model import ROOT, Class, Qdisc
from .buffer import FULL_PACKET, Discipline, Wire, waiting_bytes, wire_size
from .model import Impairment, TrafficClass

MAJOR = 0x7E57  # "TEST": the root's handle is 7e57:
ROOT_HANDLE = MAJOR << 16
WRAP, PASS = ROOT_HANDLE | 1, ROOT_HANDLE | 2
FIRST_MINOR, LAST_MINOR = 0x100, 0x7DFF  # a class's minor number is its leaf's major number too

UNLIMITED = 10**10  # bytes per second: far above what a node forwards
IN_ORDER = 125 * 10**9  # 1000 gbit: with a rate netem sends in order even when the delay shrinks, at 12 ns a packet
LEAST_PACKET = 64  # bytes on an Ethernet
LINE_RATE = 125 * 10**6  # bytes per second: what may arrive for a class without a rate, in this reckoning
DEFAULT_QUEUE = 1000  # packets: Linux' own txqueuelen
WIDEST = 4  # jitters that a table of delays goes beyond the mean (16 bits in 1/8192)
PACKET_MEMORY = 2304  # bytes that one queued full packet takes in the kernel
MEMORY_SHARE = 16  # one leaf may hold 1/16 of the node's memory
SUPERPACKET = 65536 + FULL_PACKET  # bytes: what TSO or GRO gathers counts as one packet


class Computed(NamedTuple):
    """A value that the user left to us."""

    name: str
    value: str
    why: str


def minors(names: Iterable[str]) -> dict[str, int]:
    """A minor number for each class name: its hash, or the next free one."""
    taken: dict[int, str] = {}
    span = LAST_MINOR - FIRST_MINOR + 1
    for name in names:
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        free = next(
            FIRST_MINOR + (start + step) % span
            for step in range(span)
            if FIRST_MINOR + (start + step) % span not in taken
        )
        taken[free] = name
    return {name: minor for minor, name in taken.items()}


def root() -> Qdisc:
    return Qdisc("htb", ROOT_HANDLE, ROOT, Htb())


def frame() -> tuple[Class, ...]:
    """The wrapping class and the class for what passes unimpaired."""
    return (
        Class("htb", WRAP, ROOT_HANDLE, _htb(Impairment(), UNLIMITED)),
        Class("htb", PASS, WRAP, _htb(Impairment(), UNLIMITED)),
    )


class Branch(NamedTuple):
    """A traffic class, the queues below it (the first is the leaf), and the values that we computed."""

    entry: Class
    queues: tuple[Qdisc, ...]
    computed: list[Computed]


def branch(minor: int, entry: TrafficClass, emulates: bool, feeds: bool, memory: int) -> Branch:
    """`emulates`: the kernel has netem; `feeds`: and a queue may stand below it; `memory`: the node's, in bytes.

    What waits for the rate has a queue of its own below netem, where one is asked: netem hands it every packet whose
    delay is over (net/sched/sch_netem.c, netem_dequeue), so it holds and drops just what the rate keeps waiting.
    """
    asked = entry.impairment if entry.impairment.enabled else Impairment()
    rate = asked.rate or UNLIMITED
    class_ = Class("htb", ROOT_HANDLE | minor, WRAP, _htb(asked, rate))
    limit, computed = _limit(asked, memory)
    computed += _told(asked, rate, class_.options)
    handle, below = minor << 16, waiting(asked)
    if emulates and (feeds or not below):
        leaf = Qdisc("netem", handle, class_.handle, _leaf(asked, limit))
        child = (Qdisc(below.kind, 0, handle | 1, below.options),) if below else ()
        return Branch(class_, (leaf, *child), computed)
    if below is None:
        below = Discipline("pfifo", Fifo(limit))
    if below.kind != "pfifo":
        handle = 0  # under a handle that stands the kernel takes no other kind: it numbers all but one
    return Branch(class_, (Qdisc(below.kind, handle, class_.handle, below.options),), computed)


def waiting(asked: Impairment) -> Discipline | None:
    """The queue of what waits for the rate; None where the leaf holds that too."""
    if asked.discipline or not asked.queue:
        return asked.discipline
    size = _waiting_bytes(asked)
    return Discipline("pfifo", Fifo(asked.queue.amount)) if size is None else Discipline("bfifo", Fifo(size))


def _waiting_bytes(asked: Impairment) -> int | None:
    return waiting_bytes(asked.queue, asked.rate, asked.wire)


def needs_netem(asked: Impairment) -> list[str]:
    """Which of the asked impairments only netem carries."""
    if not asked.enabled:
        return []
    blank = Netem()
    names = [name for name in Netem._fields if getattr(asked.netem, name) != getattr(blank, name)]
    return names + ["down"] * asked.down


def _leaf(asked: Impairment, limit: int) -> Netem:
    in_order = asked.keep_order and not asked.netem.reorder.probability
    lost: dict[str, Any] = {}
    if asked.down:  # a packet that is duplicated, or marked, as well would pass (netem_enqueue)
        lost = {"loss": Chance(units.PERCENT_MAX), "duplicate": Chance(), "ecn": False}
    return asked.netem._replace(limit=limit, rate=IN_ORDER if in_order else 0, **lost)


def _htb(asked: Impairment, rate: int) -> HtbClass:
    """quantum is always said: the kernel's own choice complains in its log about low and high rates."""
    ceil = asked.ceil or rate
    return HtbClass(
        rate,
        ceil,
        units.ticks(asked.burst or _burst(rate), rate),
        units.ticks(asked.burst or _burst(ceil), ceil),
        max(FULL_PACKET, min(rate // 10, 200_000)),
        asked.priority,
        *asked.wire,
    )


def _told(asked: Impairment, rate: int, options: HtbClass) -> list[Computed]:
    """What was left to us, and what the asked values come to."""
    told = []
    if asked.rate and asked.burst is None:
        told.append(Computed("burst", f"{_burst(rate)}B", "10 ms at the rate, and a packet"))
    if asked.rate:
        why = "sent at a time where classes compete: a tenth of a second's bytes, from a full packet to 200 kB"
        told.append(Computed("quantum", f"{options.quantum}B", why))
    if asked.wire != Wire():
        told.append(Computed("wire", f"{wire_size(asked.wire, FULL_PACKET)}B", f"of a full packet of {FULL_PACKET} B"))
    if asked.netem.distribution.deviation:
        times = f"{units.time_text(asked.netem.delay)} {units.time_text(asked.netem.jitter)}"
        told.append(Computed("distribution", times, "delay and jitter of the measured delays, where none are written"))
    size = _waiting_bytes(asked)
    if size is not None and asked.queue and asked.queue.unit == "time":
        told.append(Computed("queue", f"{size}B", "what the rate sends in that time"))
    return told


def _burst(rate: int) -> int:
    return rate // 100 + 1600


def _limit(asked: Impairment, memory: int) -> tuple[int, list[Computed]]:
    """The leaf's limit in packets: what is under way during the delay, and what may wait before a queue drops it."""
    if asked.limit is not None:
        return asked.limit, []
    apart = waiting(asked) is not None
    rate = LINE_RATE if apart else asked.rate or LINE_RATE  # with a queue apart nothing is lost before it
    spread = asked.netem.jitter * (WIDEST if asked.netem.distribution.identity else 1)
    under_way = -(-(asked.netem.delay + spread) * rate // (LEAST_PACKET * 10**9))
    wanted = under_way + max(_waiting_packets(asked), DEFAULT_QUEUE)
    bound = max(memory // MEMORY_SHARE // PACKET_MEMORY, DEFAULT_QUEUE)
    why = f"{under_way} packets of {LEAST_PACKET} B under way in the delay, and the buffer"
    if wanted > bound:
        why = f"bounded by the node's memory; {wanted} packets would hold {why}"
    limit = min(wanted, bound)
    return limit, [Computed("limit", f"{limit}p", why)] if under_way or asked.rate or apart else []


def _waiting_packets(asked: Impairment) -> int:
    """Packets that an asked buffer takes: between two packets that HTB fetches, netem holds what has arrived."""
    if asked.queue is None:
        return 0
    size = _waiting_bytes(asked)
    return asked.queue.amount if size is None else -(-size // LEAST_PACKET)


def loses_superpackets(asked: Impairment) -> bool:
    """Whether the asked buffer is smaller than what offloads hand over as one packet."""
    size = _waiting_bytes(asked)
    return asked.enabled and size is not None and size < SUPERPACKET
