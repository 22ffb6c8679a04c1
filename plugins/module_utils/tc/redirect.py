# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain redirect: one filter of ours at an interface's ingress, which sends all that arrives to another interface.

It stands behind the filters of others, whose verdicts come first, in a clsact or ingress qdisc that is shared.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..converge import Step
from ..errors import InvalidInput, StepFailed, TestbedError
from ..memory import Memory
from ..netlink import (
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TCMSG,
    Socket,
    attribute,
    attributes,
    each_attribute,
    nested,
    string,
    tc_header,
    tc_message,
    text,
)
from ..node import ifb_name
from .kinds import u32
from .kinds.filters import GACT, TCA_ACT_KIND, TCA_ACT_OPTIONS
from .model import ETH_P_ALL, INGRESS
from .steps import ADD, Device

TCA_KIND, TCA_OPTIONS = 1, 2
TCA_MIRRED_PARMS, TCA_EGRESS_REDIR, TC_ACT_STOLEN = 2, 1, 4  # linux/tc_act/tc_mirred.h, linux/pkt_cls.h
MIRRED = struct.Struct("=iI")  # the rest of tc_mirred: eaction, ifindex
HANDLE = 0xFFFF0000  # of ingress and clsact alike (net/sched/sch_api.c)
PARENTS = {"ingress": HANDLE, "clsact": 0xFFFFFFF2}  # of their filters (TC_H_MIN_INGRESS)
PRIORITY = 0xFE57  # behind what tc numbers by itself (0xC000 and below)
KEY = "redirect-"  # what is remembered of an interface: that its qdisc was made by us
INFO = PRIORITY << 16 | socket.htons(ETH_P_ALL)


class Hook(NamedTuple):
    """`kind`: the ingress or clsact qdisc, "" for none; `to`: the index of the interface where it all goes, 0: none."""

    kind: str = ""
    to: int = 0
    shared: bool = False  # filters of others stand there too


class RedirectDomain:
    """Observe, plan and apply at one interface's ingress."""

    name = "redirect"

    def __init__(self, rtnetlink: Socket, interface: str, path: str = "interface") -> None:
        """Raises InvalidInput, naming `path`, where the node has no such interface."""
        try:
            self._device = Device(interface, socket.if_nametoindex(interface))
        except (OSError, ValueError):
            present = ", ".join(sorted(name for _index, name in socket.if_nameindex()))
            raise InvalidInput(path, interface, f"this node has the interfaces {present}") from None
        self.interface = interface
        self._rtnetlink = rtnetlink
        self._memory = Memory()
        self._key = KEY + interface

    def observe(self) -> Hook:
        kind, filters = self._found()
        to = max((_target(body) for body in filters if _place(body) == PRIORITY), default=0)
        return Hook(kind, to, any(_place(body) != PRIORITY for body in filters))

    def claim(self) -> None:
        """Raise TestbedError where a filter of somebody else stands behind ours: it would see no packet any more."""
        behind = [body for body in self._found()[1] if _place(body) > PRIORITY]
        if behind:
            kind = text(attributes(behind[0], TCMSG.size)[TCA_KIND])
            raise TestbedError(
                f"the ingress of {self.interface} holds `filter {kind} pref {_place(behind[0])}`, which would see no "
                f"packet any more; give it a pref below {PRIORITY}, or remove it"
            )

    def before(self) -> Hook:
        """Without ours; and without the qdisc where we made it."""
        return Hook() if self._made() else self.observe()._replace(to=0)

    def plan(self, current: Hook, desired: Hook) -> list[Step]:
        steps = []
        if current.to and current.to != desired.to:
            steps.append(self._deletion(current.kind, retire=not desired.to))
        if desired.to and not current.kind:
            message = tc_message(RTM_NEWQDISC, ADD, self._device.index, HANDLE, INGRESS, 0, _kind(desired.kind))
            steps.append(Step(f"tc qdisc add dev {self.interface} {desired.kind}", message))
        if desired.to and current.to != desired.to:
            steps.append(self._addition(current.kind or desired.kind, desired.to))
        if current.kind and not desired.kind and not current.shared:
            message = tc_message(RTM_DELQDISC, 0, self._device.index, HANDLE, INGRESS)
            steps.append(Step(f"tc qdisc del dev {self.interface} {current.kind}", message, retire=True))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        if not self._made() and not _kinds(self._rtnetlink).get(self._device.index):
            self._memory.forget(self._key)  # of an interface that had this name before
            self._memory.remember(self._key, self._identity())
        for refusal in self._rtnetlink.send([step.payload for step in steps]):
            raise StepFailed(steps[refusal.index].command, refusal.reason)

    def forget(self) -> None:
        """Once the qdisc that we made is gone, or holds filters of others only, there is nothing to remember."""
        current = self.observe()
        if not current.to and (current.shared or not current.kind or not self._made()):
            self._memory.forget(self._key)

    def describe(self, state: Hook) -> list[str]:
        lines = [f"qdisc {state.kind} ffff: dev {self.interface} ingress"] if state.kind else []
        return lines + ([f"filter dev {self.interface} {self._words(state.kind, state.to)}"] if state.to else [])

    def _identity(self) -> dict[str, int]:
        return {"ifindex": self._device.index, "namespace": _namespace()}

    def _made(self) -> bool:
        """Whether the qdisc was made by us."""
        record = self._memory.recall(self._key)
        return bool(record) and self._identity() == record

    def _found(self) -> tuple[str, list[bytes]]:
        """The kind of the qdisc, and the messages of all filters in it."""
        kind = _kinds(self._rtnetlink).get(self._device.index, "")
        if not kind:
            return "", []
        return kind, self._rtnetlink.dump(tc_message(RTM_GETTFILTER, 0, self._device.index, 0, PARENTS[kind]))

    def _words(self, kind: str, to: int) -> str:
        try:
            name = socket.if_indextoname(to)
        except OSError:  # it is still to be made
            name = ifb_name(self.interface)
        return f"{_place_words(kind)} match u32 0 0 action mirred egress redirect dev {name}"

    def _addition(self, kind: str, to: int) -> Step:
        parameters = GACT.pack(0, 0, TC_ACT_STOLEN, 0, 0) + MIRRED.pack(TCA_EGRESS_REDIR, to)
        action = attribute(TCA_ACT_KIND, string("mirred"))
        action += nested(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, parameters))
        selector = u32.SELECTOR.pack(u32.TERMINAL, 0, 1, 0, 0, 0, 0, 0) + u32.KEY.pack(bytes(4), bytes(4), 0, 0)
        options = attribute(u32.TCA_U32_SEL, selector) + nested(u32.TCA_U32_ACT, nested(1, action))
        body = _kind("u32") + attribute(TCA_OPTIONS, options)
        message = tc_message(RTM_NEWTFILTER, ADD, self._device.index, 0, PARENTS[kind], INFO, body)
        return Step(f"tc filter add dev {self.interface} {self._words(kind, to)}", message)

    def _deletion(self, kind: str, retire: bool) -> Step:
        message = tc_message(RTM_DELTFILTER, 0, self._device.index, 0, PARENTS[kind], INFO, _kind("u32"))
        return Step(f"tc filter del dev {self.interface} {_place_words(kind)}", message, retire)


def left(rtnetlink: Socket) -> list[RedirectDomain]:
    """Of all interfaces those with a filter of ours at their ingress, or with a qdisc there that we made."""
    domains = [RedirectDomain(rtnetlink, socket.if_indextoname(index)) for index in _kinds(rtnetlink)]
    return [domain for domain in domains if domain.observe() != domain.before()]


def forget_restored(rtnetlink: Socket) -> None:
    """Drop what is remembered of interfaces whose ingress is as it was."""
    memory = Memory()
    for key in memory.keys(KEY):
        if memory.recall(key)["namespace"] != _namespace():
            continue
        try:
            RedirectDomain(rtnetlink, key.removeprefix(KEY)).forget()
        except InvalidInput:
            memory.forget(key)  # unplugged, and its ingress with it


def _namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _kinds(rtnetlink: Socket) -> dict[int, str]:
    """The kind of the ingress or clsact qdisc by interface index."""
    bodies = rtnetlink.dump(tc_message(RTM_GETQDISC, 0, 0, 0, 0))
    return {
        tc_header(body).ifindex: text(attributes(body, TCMSG.size)[TCA_KIND])
        for body in bodies
        if tc_header(body).parent == INGRESS
    }


def _kind(name: str) -> bytes:
    return attribute(TCA_KIND, string(name))


def _place_words(kind: str) -> str:
    minor = f"{PARENTS[kind] & 0xFFFF:x}" if PARENTS[kind] & 0xFFFF else ""
    return f"parent ffff:{minor} protocol all prio {PRIORITY} u32"


def _place(body: bytes) -> int:
    return tc_header(body).info >> 16


def _target(body: bytes) -> int:
    """Where the filter in a message redirects to; 0 of the other messages that the kernel sends for a u32 priority."""
    options = attributes(attributes(body, TCMSG.size).get(TCA_OPTIONS, b""))
    for _order, entry in each_attribute(options.get(u32.TCA_U32_ACT, b"")):
        parameters = attributes(attributes(entry).get(TCA_ACT_OPTIONS, b"")).get(TCA_MIRRED_PARMS, b"")
        if len(parameters) >= GACT.size + MIRRED.size:
            return int(MIRRED.unpack_from(parameters, GACT.size)[1])
    return 0
