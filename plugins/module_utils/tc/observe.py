# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one interface's traffic control state from the kernel."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import Any, NamedTuple

from ..netlink import (
    ATTRIBUTE,
    ATTRIBUTE_TYPE,
    RTM_GETQDISC,
    RTM_GETTCLASS,
    RTM_GETTFILTER,
    TCMSG,
    NetlinkError,
    Socket,
    align,
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

TCA_KIND, TCA_OPTIONS, TCA_STATS2 = 1, 2, 7
_KIND = TCMSG.size + ATTRIBUTE.size  # where the kernel puts the kind's name: its messages start with it
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
    places = [place for body in qdiscs for place in _filter_places(body)]
    headers_of_classes = [TCMSG.unpack_from(body) for body in classes]
    parents = {parent for _family, _ifindex, _handle, parent, _info in headers_of_classes}
    places += [handle for _family, _ifindex, handle, _parent, _info in headers_of_classes if handle in parents]
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
    seen: dict[tuple[int, int, int, bytes], bytes] = {}
    for place in places:
        for body in _dump(rtnetlink, RTM_GETTFILTER, ifindex, place):
            _family, _ifindex, handle, parent, info = TCMSG.unpack_from(body)
            if _parent(parent) == place:
                kind = body[_KIND : _KIND + 4]
                seen.setdefault((place >> 16 if kind == b"u32\0" else place, info, handle, kind), body)
    return list(seen.values())


def backlog(rtnetlink: Socket, ifindex: int, handle: int) -> int:
    """Packets that wait in the queue of a class; also of one whose queue is the kernel's own, which no dump lists."""
    for body in _dump(rtnetlink, RTM_GETTCLASS, ifindex, handle & 0xFFFF0000):
        if tc_header(body).handle == handle:
            statistics = attributes(attributes(body, TCMSG.size).get(TCA_STATS2, b""))
            return integer(statistics.get(TCA_STATS_QUEUE, b"")[:4])
    return 0


def waiting(rtnetlink: Socket, ifindex: int) -> int:
    """Packets that wait below the root of an interface."""
    for body in _dump(rtnetlink, RTM_GETQDISC, ifindex):
        if tc_header(body).parent == ROOT:
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
    roots = {qdisc.handle for qdisc in qdiscs}
    classes = tuple(
        Class(kind, handle, _class_parent(handle, parent, roots), _options("class", kind, data))
        for kind, handle, parent, _info, data in map(_split, dump.classes)
        if kind in MAKE_CLASSES and handle & 0xFFFF
    )
    return Tree(qdiscs, classes, tuple(entry for entry in map(_filter, dump.filters) if entry))


def _class_parent(handle: int, parent: int, roots: set[int]) -> int:
    """A class right below its qdisc shows parent root; tc and our requests name the qdisc."""
    major = handle & 0xFFFF0000
    return major if parent == ROOT and major in roots else parent


def _filter(body: bytes) -> Filter | None:
    """The filter in a message; the kernel also sends one for each priority and one for each u32 hash table."""
    kind, handle, parent, info, data = _split(body)
    if not handle or not data or (kind == "u32" and not handle & 0xFFF):  # TC_U32_NODE: a table is no filter
        return None
    priority, protocol = info >> 16, socket.ntohs(info & 0xFFFF)
    options: Any = _options("filter", kind, data)
    if kind == "flower" and not isinstance(options, Raw):  # its own word for the protocol depends on tags
        options = options._replace(ethertype=protocol)
    return Filter(kind, _parent(parent), priority, protocol, handle, options)


@lru_cache(maxsize=1 << 16)
def _options(role: str, name: str, data: bytes) -> object:
    """Kept, as one run reads the same bytes several times: before, after, and for a roll-back."""
    kind = lookup(role, name)
    return kind.decode(data) if kind else Raw(data)


_name = lru_cache(text)


def _split(body: bytes) -> tuple[str, int, int, int, bytes]:
    """(kind, handle, parent, info, options) of a traffic control message; the many counters behind are passed by."""
    _family, _ifindex, handle, parent, info = TCMSG.unpack_from(body)
    kind, offset, end, unpack = b"", TCMSG.size, len(body) - ATTRIBUTE.size, ATTRIBUTE.unpack_from
    while offset <= end:
        length, number = unpack(body, offset)
        if number & ATTRIBUTE_TYPE == TCA_OPTIONS:
            return _name(kind), handle, parent, info, body[offset + 4 : offset + length]
        if number == TCA_KIND:
            kind = body[offset + 4 : offset + length]
        offset += align(length) or end
    return _name(kind), handle, parent, info, b""


def _dump(rtnetlink: Socket, kind: int, ifindex: int, parent: int = 0) -> list[bytes]:
    """The messages of this interface: the kernel lists the qdiscs of all."""
    try:
        bodies = rtnetlink.dump(tc_message(kind, 0, ifindex, 0, parent))
    except NetlinkError:  # a qdisc that takes no filters
        if kind == RTM_GETTFILTER:
            return []
        raise
    which = TCMSG.pack(0, ifindex, 0, 0, 0)[4:8]
    return [body for body in bodies if body[4:8] == which]
