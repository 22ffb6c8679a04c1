# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single steps of traffic control: the line a person would type and the message that says the same."""

from __future__ import annotations

import socket
from functools import lru_cache, partial
from typing import Any, NamedTuple

from ..converge import Step
from ..netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELQDISC,
    RTM_DELTCLASS,
    RTM_DELTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
    RTM_NEWTFILTER,
    attribute,
    string,
    tc_message,
)
from .kinds.base import Kind
from .kinds.table import lookup
from .model import INGRESS, Class, Filter, Qdisc, Raw, handle_text, parent_text, protocol_text

TCA_KIND, TCA_OPTIONS = 1, 2
ADD, CHANGE, REPLACE = NLM_F_CREATE | NLM_F_EXCL, 0, NLM_F_CREATE | NLM_F_REPLACE


class Device(NamedTuple):
    """An interface: its name for people, its index for the kernel."""

    name: str
    index: int  # type: ignore[assignment]  # hides tuple.index


def codec(role: str, name: str) -> Kind:
    """The kind's table; every entry whose options are not Raw has one."""
    kind = lookup(role, name)
    if kind is None:
        raise AssertionError(f"no codec for {role} {name}")
    return kind


def same(role: str, wanted: Qdisc | Class | Filter, found: Qdisc | Class | Filter) -> bool:
    """Whether the kernel's options are those that are wanted.

    Options that are only carried are never asked for by a user, and not every kind dumps what it was given
    (codel's times lose up to 1 us, sfq adds what it found): the same kind will do.
    """
    if isinstance(wanted.options, Raw):
        return wanted.kind == found.kind
    return codec(role, wanted.kind).same(wanted.options, found.options)


def payload(role: str, entry: Qdisc | Class | Filter, known: Qdisc | None = None) -> bytes:
    """TCA_KIND and TCA_OPTIONS of an entry; `known` is what a change finds."""
    if isinstance(entry.options, Raw):
        data = entry.options.data
    else:
        kind = codec(role, entry.kind)
        data = kind.change(entry.options, known.options) if kind.change and known else kind.encode(entry.options)
    return attribute(TCA_KIND, string(entry.kind)) + (attribute(TCA_OPTIONS, data) if data else b"")


def rendered(role: str, entry: Qdisc | Class | Filter) -> str:
    """The kind and its options in tc's words."""
    return _rendered(role, entry.kind, entry.options)


@lru_cache(maxsize=1 << 15)
def _rendered(role: str, kind: str, options: Any) -> str:
    """Kept, as a run says most options several times: before, in a step, and after."""
    if isinstance(options, Raw):
        return kind
    return f"{kind} {codec(role, kind).render(options)}".rstrip()


def qdisc_step(
    device: Device,
    verb: str,
    qdisc: Qdisc,
    flags: int = 0,
    retire: bool = False,
    caution: str = "",
    known: Qdisc | None = None,
) -> Step:
    """A qdisc added, changed (from `known`), replaced or deleted."""
    place = parent_text(qdisc.parent) if qdisc.parent != INGRESS else qdisc.kind
    if verb == "del":
        message = tc_message(RTM_DELQDISC, 0, device.index, qdisc.handle, qdisc.parent)
        return Step(f"tc qdisc del dev {device.name} {place}", message, retire, caution)
    body = payload("qdisc", qdisc, known)
    message = tc_message(RTM_NEWQDISC, flags, device.index, qdisc.handle, qdisc.parent, 0, body)
    words = ""
    if qdisc.parent != INGRESS:  # whose kind says where it stands, and which has one handle
        words = f" handle {handle_text(qdisc.handle)}" if qdisc.handle else ""
        words += f" {rendered('qdisc', qdisc)}"
    return Step(f"tc qdisc {verb} dev {device.name} {place}{words}", message, retire, caution)


def class_step(device: Device, verb: str, entry: Class, flags: int = 0, retire: bool = False) -> Step:
    """A class added, changed or deleted."""
    name = handle_text(entry.handle)
    if verb == "del":
        message = tc_message(RTM_DELTCLASS, 0, device.index, entry.handle, entry.parent)
        return Step(f"tc class del dev {device.name} classid {name}", message, retire)
    body = payload("class", entry)
    message = tc_message(RTM_NEWTCLASS, flags, device.index, entry.handle, entry.parent, 0, body)
    return Step(partial(_class_words, device, verb, entry), message, retire)


def _class_words(device: Device, verb: str, entry: Class) -> str:
    name, place = handle_text(entry.handle), parent_text(entry.parent)
    return f"tc class {verb} dev {device.name} {place} classid {name} {rendered('class', entry)}"


def filter_step(
    device: Device, verb: str, entry: Filter, flags: int = 0, retire: bool = False, caution: str = ""
) -> Step:
    """A filter added, replaced or deleted; deleted with handle 0, all of its priority go."""
    info = entry.priority << 16 | socket.htons(entry.protocol)
    if verb == "del":
        kind, body = RTM_DELTFILTER, attribute(TCA_KIND, string(entry.kind))
    else:
        kind, body = RTM_NEWTFILTER, payload("filter", entry)
    message = tc_message(kind, flags, device.index, entry.handle, entry.parent, info, body)
    return Step(partial(_filter_words, device, verb, entry), message, retire, caution)


def _filter_words(device: Device, verb: str, entry: Filter) -> str:
    place = f"{parent_text(entry.parent)} protocol {protocol_text(entry.protocol)} prio {entry.priority}"
    handle = f" handle {filter_handle_text(entry)}" if entry.handle else ""
    words = entry.kind if verb == "del" else rendered("filter", entry)
    return f"tc filter {verb} dev {device.name} {place}{handle} {words}"


def filter_handle_text(entry: Filter) -> str:
    """A filter's handle as its kind writes it: table, bucket and node for u32, a number for the others."""
    if entry.kind != "u32":
        mask = getattr(entry.options, "mask", None)  # tc-fw(8) writes it behind the mark
        return f"{entry.handle:#x}" if mask in (None, 0xFFFFFFFF) else f"{entry.handle:#x}/{mask:#x}"
    table, bucket, node = entry.handle >> 20, entry.handle >> 12 & 0xFF, entry.handle & 0xFFF
    first = f"{table:x}" if table else ""  # without a table: a place in the priority's own
    return f"{first}:{bucket:x}:{node:x}" if bucket else f"{first}::{node:x}"
