# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic control state of one interface, as immutable values in kernel units (linux/pkt_sched.h, tc(8))."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

ROOT = 0xFFFFFFFF  # TC_H_ROOT
INGRESS = 0xFFFFFFF1  # TC_H_INGRESS and TC_H_CLSACT
INGRESS_HANDLE = 0xFFFF0000  # the handle that both have (net/sched/sch_api.c, qdisc_create)
INGRESS_FILTERS, EGRESS_FILTERS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MIN_INGRESS and _EGRESS: the parents of their filters
BOTH = frozenset({ROOT, INGRESS})

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x8100, 0x86DD
PROTOCOLS = {"all": ETH_P_ALL, "ip": ETH_P_IP, "arp": ETH_P_ARP, "802.1Q": ETH_P_8021Q, "ipv6": ETH_P_IPV6}


class Raw(NamedTuple):
    """Options of a kind that has no codec here: carried as they came, compared byte for byte."""

    data: bytes


class Qdisc(NamedTuple):
    """A queueing discipline. Handle 0 asks the kernel to choose one (and is how it shows its own defaults)."""

    kind: str
    handle: int
    parent: int
    options: Any


class Class(NamedTuple):
    """A class of a classful qdisc."""

    kind: str
    handle: int
    parent: int
    options: Any


class Filter(NamedTuple):
    """A classifier. `handle` 0 leaves the choice to the kernel; `priority` orders, lowest first."""

    kind: str
    parent: int
    priority: int
    protocol: int
    handle: int
    options: Any


class Tree(NamedTuple):
    """Everything that traffic control holds on one interface, each part in the kernel's order."""

    qdiscs: tuple[Qdisc, ...] = ()
    classes: tuple[Class, ...] = ()
    filters: tuple[Filter, ...] = ()

    @property
    def root(self) -> Qdisc | None:
        """The egress root that somebody set; the kernel's default shows handle 0 and counts as none."""
        return next((qdisc for qdisc in self.qdiscs if qdisc.parent == ROOT and qdisc.handle), None)

    @property
    def ingress(self) -> Qdisc | None:
        """The ingress or clsact qdisc."""
        return next((qdisc for qdisc in self.qdiscs if qdisc.parent == INGRESS), None)

    @property
    def sides(self) -> frozenset[int]:
        """Of ROOT and INGRESS those that this tree holds anything on."""
        return frozenset(side(qdisc.parent) for qdisc in self.qdiscs)

    def only(self, sides: frozenset[int]) -> Tree:
        """What stands on these sides."""
        if sides >= BOTH:
            return self
        return Tree(
            tuple(qdisc for qdisc in self.qdiscs if side(qdisc.parent) in sides),
            self.classes if ROOT in sides else (),
            tuple(entry for entry in self.filters if side(entry.parent) in sides),
        )


def side(parent: int) -> int:
    """INGRESS for the ingress or clsact qdisc and its filters (clsact's at egress too), ROOT for the tree of queues."""
    return INGRESS if parent >> 16 == 0xFFFF and parent != ROOT else ROOT


def parse_handle(value: object) -> int:
    """32-bit handle of `1:` or `1:10` (both hexadecimal, as tc reads them), `root` or `ingress`.

    Raises ValueError with what is allowed.
    """
    allowed = 'write a handle such as "1:" or "1:a" (hexadecimal, in quotes)'
    if value in ("root", "ingress", "clsact"):
        return ROOT if value == "root" else INGRESS
    if isinstance(value, int):
        raise ValueError(allowed + "; without quotes YAML reads 1:10 as the number 70")
    parts = re.fullmatch(r"([0-9a-fA-F]{0,4}):([0-9a-fA-F]{0,4})", str(value))
    if not parts:
        raise ValueError(allowed)
    return int(parts[1] or "0", 16) << 16 | int(parts[2] or "0", 16)


@lru_cache(maxsize=1 << 16)
def handle_text(handle: int) -> str:
    """`1:`, `1:a`, `root` or `ingress`."""
    if handle == ROOT:
        return "root"
    if handle == INGRESS:
        return "ingress"
    major, minor = handle >> 16, handle & 0xFFFF
    return f"{major:x}:{minor:x}" if minor else f"{major:x}:"


@lru_cache(maxsize=1 << 10)
def parent_text(parent: int) -> str:
    """The parent as tc wants it on a command line."""
    return "root" if parent == ROOT else "ingress" if parent == INGRESS else f"parent {handle_text(parent)}"


@lru_cache
def protocol_text(protocol: int) -> str:
    return next((name for name, number in PROTOCOLS.items() if number == protocol), f"{protocol:#06x}")
