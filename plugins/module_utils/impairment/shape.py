# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one shape of every impaired interface: so that every value is a change message, and nothing is torn down.

HTB root, one wrapping class to borrow from, one class for what passes unimpaired, and per traffic class one HTB
class with one leaf. Handles tell whose it is, and a class keeps its handle as long as it keeps its name.
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
from .model import Impairment, Queue, TrafficClass

MAJOR = 0x7E57  # "TEST": the root's handle is 7e57:
ROOT_HANDLE = MAJOR << 16
WRAP, PASS = ROOT_HANDLE | 1, ROOT_HANDLE | 2
FIRST_MINOR, LAST_MINOR = 0x100, 0x7DFF  # a class's minor number is its leaf's major number too

UNLIMITED = 10**10  # bytes per second: far above what a node forwards
IN_ORDER = 125 * 10**9  # 1000 gbit: with a rate netem sends in order even when the delay shrinks, at 12 ns a packet
FULL_PACKET, LEAST_PACKET = 1514, 64  # bytes on an Ethernet
LINE_RATE = 125 * 10**6  # bytes per second: what may arrive for a class without a rate, in this reckoning
DEFAULT_QUEUE = 1000  # packets: Linux' own txqueuelen
PACKET_MEMORY = 2304  # bytes that one queued full packet takes in the kernel
MEMORY_SHARE = 16  # one leaf may hold 1/16 of the node's memory


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
        Class("htb", WRAP, ROOT_HANDLE, _htb(UNLIMITED, UNLIMITED)),
        Class("htb", PASS, WRAP, _htb(UNLIMITED, UNLIMITED)),
    )


def branch(minor: int, entry: TrafficClass, emulates: bool, memory: int) -> tuple[Class, Qdisc, list[Computed]]:
    """A traffic class and its leaf. `emulates`: the kernel has netem; `memory`: the node's, in bytes."""
    asked = entry.impairment if entry.impairment.enabled else Impairment()
    rate = asked.rate or UNLIMITED
    ceil = asked.ceil or rate
    options = _htb(rate, ceil, asked.burst, asked.priority)
    limit, computed = _limit(asked, memory)
    if asked.rate and asked.burst is None:
        computed.append(Computed("burst", f"{_burst(rate)}B", "10 ms at the rate, and a packet"))
    handle = minor << 16
    leaf = Qdisc("netem", handle, ROOT_HANDLE | minor, _leaf(asked, limit))
    if not emulates:
        leaf = Qdisc("pfifo", handle, ROOT_HANDLE | minor, Fifo(limit))
    return Class("htb", ROOT_HANDLE | minor, WRAP, options), leaf, computed


def needs_netem(asked: Impairment) -> list[str]:
    """Which of the asked impairments only netem carries."""
    if not asked.enabled:
        return []
    blank = Netem()
    names = [name for name in Netem._fields if getattr(asked.netem, name) != getattr(blank, name)]
    return names + ["down"] * asked.down


def _leaf(asked: Impairment, limit: int) -> Netem:
    in_order = asked.keep_order and not asked.netem.reorder.probability
    lost: dict[str, Any] = {"loss": Chance(units.PERCENT_MAX)} if asked.down else {}
    return asked.netem._replace(limit=limit, rate=IN_ORDER if in_order else 0, **lost)


def _htb(rate: int, ceil: int, burst: int | None = None, priority: int = 0) -> HtbClass:
    """quantum is always said: the kernel's own choice complains in its log about low and high rates."""
    return HtbClass(
        rate,
        ceil,
        units.ticks(burst or _burst(rate), rate),
        units.ticks(burst or _burst(ceil), ceil),
        max(FULL_PACKET, min(rate // 10, 200_000)),
        priority,
    )


def _burst(rate: int) -> int:
    return rate // 100 + 1600


def _limit(asked: Impairment, memory: int) -> tuple[int, list[Computed]]:
    """The leaf's limit in packets: what is under way during the delay, and the bottleneck's buffer."""
    if asked.limit is not None:
        return asked.limit, []
    rate = asked.rate or LINE_RATE
    under_way = -(-(asked.netem.delay + asked.netem.jitter) * rate // (LEAST_PACKET * 10**9))
    wanted = under_way + _queue_packets(asked.queue, rate)
    bound = max(memory // MEMORY_SHARE // PACKET_MEMORY, DEFAULT_QUEUE)
    why = f"{under_way} packets of {LEAST_PACKET} B under way in the delay, and the buffer"
    if wanted > bound:
        why = f"bounded by the node's memory; {wanted} packets would hold {why}"
    limit = min(wanted, bound)
    return limit, [Computed("limit", f"{limit}p", why)] if under_way or asked.rate else []


def _queue_packets(queue: Queue | None, rate: int) -> int:
    if queue is None:
        return DEFAULT_QUEUE
    if queue.unit == "packets":
        return queue.amount
    size = queue.amount if queue.unit == "bytes" else queue.amount * rate // 10**9
    return max(1, -(-size // FULL_PACKET))


def rounded_queue(asked: Impairment) -> bool:
    """Whether the buffer was asked in a unit that the leaf does not count in."""
    return asked.queue is not None and asked.queue.unit != "packets" and asked.enabled
