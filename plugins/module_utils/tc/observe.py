# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one interface's traffic control state from the kernel."""

from __future__ import annotations

import socket
from typing import NamedTuple

from ..netlink import (
    RTM_GETQDISC,
    RTM_GETTCLASS,
    RTM_GETTFILTER,
    TCMSG,
    NetlinkError,
    Socket,
    attributes,
    integer,
    tc_header,
    tc_message,
    text,
)
from .kinds.table import lookup
from .model import (
    BOTH,
    EGRESS_FILTERS,
    INGRESS,
    INGRESS_FILTERS,
    INGRESS_HANDLE,
    ROOT,
    Class,
    Filter,
    Qdisc,
    Raw,
    Tree,
    side,
)

TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_CHAIN = 1, 2, 7, 11
TCA_STATS_QUEUE = 3  # gnet_stats_queue: packets, backlog in bytes, drops, requeues, overlimits
MAKE_CLASSES = ("htb", "hfsc", "drr", "qfq", "cbq")  # the classes of other kinds come and go with their qdisc

ONE_BELOW = ("netem", "tbf")  # whatever minor number a request named, the queue below is their only one


class Dump(NamedTuple):
    """What the kernel answered, byte for byte: decodes into a Tree, now or after a restart of this program."""

    qdiscs: tuple[bytes, ...] = ()
    classes: tuple[bytes, ...] = ()
    filters: tuple[bytes, ...] = ()


def read(rtnetlink: Socket, ifindex: int, sides: frozenset[int] = BOTH) -> Dump:
    """All that somebody set on these sides; what the kernel put there by default (handle 0) is left out."""
    headers = ((body, tc_header(body)) for body in _dump(rtnetlink, RTM_GETQDISC, ifindex))
    qdiscs = tuple(body for body, header in headers if header.handle and side(header.parent) in sides)
    classes = tuple(_dump(rtnetlink, RTM_GETTCLASS, ifindex)) if qdiscs and ROOT in sides else ()
    parents = {tc_header(body).parent for body in classes}
    places = [place for body in qdiscs for place in _filter_places(body)]
    places += [handle for handle in (tc_header(body).handle for body in classes) if handle in parents]
    return Dump(qdiscs, classes, tuple(_filters(rtnetlink, ifindex, places)))


def _filter_places(qdisc: bytes) -> tuple[int, ...]:
    """Parents under which the kernel lists a qdisc's filters."""
    header = tc_header(qdisc)
    if header.parent != INGRESS:
        return (header.handle,)
    kind = text(attributes(qdisc, TCMSG.size)[TCA_KIND])
    return (INGRESS_FILTERS, EGRESS_FILTERS) if kind == "clsact" else (INGRESS_FILTERS,)


def _parent(shown: int) -> int:
    """ingress has one list of filters, and shows the parent that the last request named (tc_new_tfilter)."""
    return INGRESS_FILTERS if shown == INGRESS_HANDLE else shown


def restricted(dump: Dump, sides: frozenset[int]) -> Dump:
    """The messages of these sides."""
    return Dump(*(tuple(body for body in bodies if side(tc_header(body).parent) in sides) for bodies in dump))


def _filters(rtnetlink: Socket, ifindex: int, places: list[int]) -> list[bytes]:
    """Filter messages of all places, each once.

    u32 filters of one priority below different parents of one qdisc share their hash tables
    (net/sched/cls_u32.c, tc_u_common), so the kernel lists them below each of these parents.
    """
    seen: dict[tuple[int, int, bytes], bytes] = {}
    for place in places:
        for body in _dump(rtnetlink, RTM_GETTFILTER, ifindex, place):
            _ifindex, handle, parent, info = tc_header(body)
            kind = attributes(body, TCMSG.size).get(TCA_KIND, b"")
            shared = place >> 16 if kind == b"u32\0" else place
            if _parent(parent) == place:
                seen.setdefault((shared, info, handle.to_bytes(4, "big") + kind), body)
    return list(seen.values())


def backlog(rtnetlink: Socket, ifindex: int, handle: int) -> int:
    """Packets that wait in the queue of a class; also of one whose queue is the kernel's own, which no dump lists."""
    for body in _dump(rtnetlink, RTM_GETTCLASS, ifindex, handle & 0xFFFF0000):
        if tc_header(body).handle == handle:
            statistics = attributes(attributes(body, TCMSG.size).get(TCA_STATS2, b""))
            return integer(statistics.get(TCA_STATS_QUEUE, b"")[:4])
    return 0


def decode(dump: Dump) -> Tree:
    """The state that the dump shows."""
    qdiscs = tuple(
        Qdisc(kind, handle, parent, _options("qdisc", kind, data))
        for kind, handle, parent, _info, data in map(_split, dump.qdiscs)
    )
    single = {qdisc.handle for qdisc in qdiscs if qdisc.kind in ONE_BELOW}
    qdiscs = tuple(
        qdisc._replace(parent=major | 1) if (major := qdisc.parent & 0xFFFF0000) in single else qdisc
        for qdisc in qdiscs
    )
    classes = tuple(
        Class(kind, handle, parent, _options("class", kind, data))
        for kind, handle, parent, _info, data in map(_split, dump.classes)
    )
    roots = {qdisc.handle for qdisc in qdiscs}
    classes = tuple(
        entry._replace(parent=_class_parent(entry, roots))
        for entry in classes
        if entry.kind in MAKE_CLASSES and entry.handle & 0xFFFF
    )
    return Tree(qdiscs, classes, tuple(filter_ for body in dump.filters for filter_ in _filter(body)))


def _class_parent(entry: Class, roots: set[int]) -> int:
    """A class right below its qdisc shows parent root; tc and our requests name the qdisc."""
    major = entry.handle & 0xFFFF0000
    return major if entry.parent == 0xFFFFFFFF and major in roots else entry.parent


def _filter(body: bytes) -> list[Filter]:
    """The filter in a message; the kernel also sends one for each priority and one for each u32 hash table."""
    kind, handle, parent, info, data = _split(body)
    attributes_of_options = attributes(data) if data else {}
    if not handle or not data or (kind == "u32" and 5 not in attributes_of_options):  # TCA_U32_SEL
        return []
    priority, protocol = info >> 16, socket.ntohs(info & 0xFFFF)
    return [Filter(kind, _parent(parent), priority, protocol, handle, _options("filter", kind, data))]


def _options(role: str, name: str, data: bytes) -> object:
    kind = lookup(role, name)
    return kind.decode(data) if kind else Raw(data)


def _split(body: bytes) -> tuple[str, int, int, int, bytes]:
    """(kind, handle, parent, info, options) of a traffic control message."""
    _ifindex, handle, parent, info = tc_header(body)
    found = attributes(body, TCMSG.size)
    return text(found[TCA_KIND]), handle, parent, info, found.get(TCA_OPTIONS, b"")


def _dump(rtnetlink: Socket, kind: int, ifindex: int, parent: int = 0) -> list[bytes]:
    """The messages of this interface: the kernel lists the qdiscs of all."""
    try:
        bodies = rtnetlink.dump(tc_message(kind, 0, ifindex, 0, parent))
    except NetlinkError:  # a qdisc that takes no filters
        if kind == RTM_GETTFILTER:
            return []
        raise
    return [body for body in bodies if tc_header(body).ifindex == ifindex]
