# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain hooks: filters of ours where packets arrive at an interface and where they leave it, before any queue.

At ingress one sends all that arrives to another interface; at egress one is a BPF program. They stand behind the
filters of others, whose verdicts come first, in a clsact (or, at ingress only, an ingress) qdisc that is shared; a
program that has none of them before it stands at TCX where the kernel has that (leaving.py).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..bpf import tcx
from ..converge import Step
from ..errors import InvalidInput, StepFailed, TestbedError
from ..memory import Memory
from ..namespace import number
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
    string,
    tc_header,
    tc_message,
    text,
)
from ..node import ifb_name
from .hook_messages import redirect_options, target
from .kinds.bpf import NAME
from .leaving import INFO, PRIORITY, Leaving, Load, Standing
from .leaving import PARENT as LEAVING
from .model import INGRESS
from .steps import ADD, TCA_KIND, TCA_OPTIONS, Device

HANDLE = 0xFFFF0000  # of ingress and clsact alike (net/sched/sch_api.c)
ARRIVING = {"ingress": HANDLE, "clsact": 0xFFFFFFF2}  # parents of filters: TC_H_MIN_INGRESS
KEY = "hook-"  # what is remembered of an interface where something of ours stands: the qdisc that was found there
OWN = "impair.bpf:"  # how the names of a user's own programs begin, which the module bpf holds
NOT_MADE = "none"  # remembered in the place of a kind: there was no qdisc, and we made none


class Hook(NamedTuple):
    """`kind`: the ingress or clsact qdisc, "" for none; `to`: the index of the interface where it all goes, 0: none;
    `program`: the BPF program at egress."""

    kind: str = ""
    to: int = 0
    program: Standing = Standing()
    shared: bool = False  # filters of others stand there too


class HooksDomain:
    """Observe, plan and apply at one interface's ends."""

    name = "hooks"

    def __init__(
        self,
        rtnetlink: Socket,
        interface: str,
        path: str = "interface",
        index: int = 0,
        programs: Mapping[str, Load] | None = None,
        mover: str = "",
    ) -> None:
        """`index`: of an interface that need not stand yet; `programs`: how to have a program of this name; `mover`:
        the name of that for the time of a move.

        Raises InvalidInput, naming `path`, where the node has no such interface.
        """
        try:
            self._device = Device(interface, index or socket.if_nametoindex(interface))
        except (OSError, ValueError):
            present = ", ".join(sorted(name for _index, name in socket.if_nameindex()))
            raise InvalidInput(path, interface, f"this node has the interfaces {present}") from None
        self.interface = interface
        self._rtnetlink = rtnetlink
        self._memory = Memory()
        self._key = KEY + interface
        self._leaving = Leaving(self._device, programs or {}, mover)

    def observe(self) -> Hook:
        kind, arriving, leaving = self._found()
        to = max((target(_options(body)) for body in arriving if _place(body) == PRIORITY), default=0)
        others = any(_place(body) != PRIORITY for body in arriving + leaving)
        return Hook(kind, to, self._leaving.observe(leaving), others)

    def claim(self) -> None:
        """Raise TestbedError where a filter of somebody else stands behind ours: it would see no packet any more."""
        behind = [body for body in self._found()[1] if _place(body) > PRIORITY]
        if behind:
            kind = text(attributes(behind[0], TCMSG.size)[TCA_KIND])
            raise TestbedError(
                f"the ingress of {self.interface} holds `filter {kind} pref {_place(behind[0])}`, which would see no "
                f"packet any more; give it a pref below {PRIORITY}, or remove it"
            )

    def is_behind(self) -> bool:
        """Whether filters of others stand where packets leave, before the place of ours."""
        return any(_place(body) < PRIORITY for body in self._found()[2])

    def claim_egress(self) -> None:
        """Raise TestbedError where the qdisc that stands has no egress."""
        if _kinds(self._rtnetlink).get(self._device.index, "") == "ingress":
            raise TestbedError(
                f"{self.interface} holds an ingress qdisc, beside which no program can stand where packets leave; "
                f"use clsact in its place (tc qdisc add dev {self.interface} clsact), which has both, or remove it"
            )

    def before(self) -> Hook:
        """Without ours; and without the qdisc where we made it."""
        return Hook() if self._made() else self.observe()._replace(to=0, program=Standing())

    def plan(self, current: Hook, desired: Hook) -> list[Step]:
        steps = []
        if current.to and current.to != desired.to:
            steps.append(self._deletion(ARRIVING[current.kind], "u32", retire=not desired.to))
        if (desired.to or desired.program.filter) and not current.kind:
            message = tc_message(RTM_NEWQDISC, ADD, self._device.index, HANDLE, INGRESS, 0, _kind(desired.kind))
            steps.append(Step(f"tc qdisc add dev {self.interface} {desired.kind}", message))
        kind = current.kind or desired.kind
        steps += self._leaving.plan(current.program, desired.program)
        if desired.to and current.to != desired.to:
            steps.append(self._redirection(kind, desired.to))
        if current.kind and not desired.kind and not current.shared:
            message = tc_message(RTM_DELQDISC, 0, self._device.index, HANDLE, INGRESS)
            # The kernel has no queues at the interface for a moment (qdisc_graft() in net/sched/sch_api.c).
            caution = "disruptive: packets of that moment are lost" if any(desired.program) else ""
            steps.append(Step(f"tc qdisc del dev {self.interface} {current.kind}", message, True, caution))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        self.note(any(step.payload[0] == RTM_NEWQDISC for step in steps if not callable(step.payload)))
        for step in steps:
            message = step.payload() if callable(step.payload) else step.payload
            for refusal in self._rtnetlink.send([message] if message else []):
                raise StepFailed(step.command, refusal.reason)

    def note(self, makes: bool = True) -> None:
        """Before the first write; `makes`: a qdisc that is not there yet will be made by us."""
        record = self._memory.recall(self._key)
        if not record or record["interface"] != self._identity() or record["found"] == NOT_MADE:
            self._note("" if makes else NOT_MADE)  # or of an interface that had this name before

    def _note(self, none: str) -> None:
        found = _kinds(self._rtnetlink).get(self._device.index, none)
        self._memory.remember(self._key, {"interface": self._identity(), "found": found}, renew=True)

    def forget(self) -> None:
        """Once the qdisc that we made is gone, or holds filters of others only, there is nothing to remember."""
        current = self.observe()
        arriving, leaving = self._found()[1:]
        own = any(text(_options(body).get(NAME, b"")).startswith(OWN) for body in arriving + leaving)
        ours = current.to or any(current.program) or own
        if ours and not current.kind and self._made():
            self._note(NOT_MADE)  # what stands at TCX has left the qdisc, and it is gone
        if not ours and (current.shared or not current.kind or not self._made()):
            self._memory.forget(self._key)

    def describe(self, state: Hook) -> list[str]:
        lines = [f"qdisc {state.kind} ffff: dev {self.interface} ingress"] if state.kind else []
        if state.to:
            lines.append(f"filter dev {self.interface} {self._words(ARRIVING[state.kind], self._redirects(state.to))}")
        return lines + self._leaving.describe(state.program)

    def _identity(self) -> dict[str, int]:
        return {"ifindex": self._device.index, "namespace": number()}

    def _made(self) -> bool:
        """Whether the qdisc was made by us."""
        record = self._memory.recall(self._key)
        return bool(record) and record == {"interface": self._identity(), "found": ""}

    def _found(self) -> tuple[str, list[bytes], list[bytes]]:
        """The kind of the qdisc, and the messages of all filters where packets arrive, and where they leave."""
        kind = _kinds(self._rtnetlink).get(self._device.index, "")
        return kind, self._filters(ARRIVING.get(kind)), self._filters(LEAVING if kind == "clsact" else None)

    def _filters(self, parent: int | None) -> list[bytes]:
        if parent is None:
            return []
        return self._rtnetlink.dump(tc_message(RTM_GETTFILTER, 0, self._device.index, 0, parent))

    def program_ids(self) -> list[int]:
        """The ids of the programs of ours at egress."""
        return self._leaving.ids(self._found()[2])

    def _redirects(self, to: int) -> str:
        try:
            name = socket.if_indextoname(to)
        except OSError:  # it is still to be made
            name = ifb_name(self.interface)
        return f"u32 match u32 0 0 action mirred egress redirect dev {name}"

    def _words(self, parent: int, rest: str) -> str:
        minor = f"{parent & 0xFFFF:x}" if parent & 0xFFFF else ""
        return f"parent ffff:{minor} protocol all prio {PRIORITY} {rest}"

    def _redirection(self, kind: str, to: int) -> Step:
        body = _kind("u32") + attribute(TCA_OPTIONS, redirect_options(to))
        message = tc_message(RTM_NEWTFILTER, ADD, self._device.index, 0, ARRIVING[kind], INFO, body)
        return Step(f"tc filter add dev {self.interface} {self._words(ARRIVING[kind], self._redirects(to))}", message)

    def _deletion(self, parent: int, kind: str, retire: bool) -> Step:
        message = tc_message(RTM_DELTFILTER, 0, self._device.index, 0, parent, INFO, _kind(kind))
        return Step(f"tc filter del dev {self.interface} {self._words(parent, kind)}", message, retire)


def programs(rtnetlink: Socket) -> list[int]:
    """Ids of all programs of ours that stand in this namespace."""
    return [found for domain in _domains(rtnetlink) for found in domain.program_ids()]


def left(rtnetlink: Socket) -> list[HooksDomain]:
    """Of all interfaces those with a filter of ours at one of their ends, or with a qdisc there that we made."""
    return [domain for domain in _domains(rtnetlink) if domain.observe() != domain.before()]


def forget_restored(rtnetlink: Socket) -> None:
    """Drop what is remembered of interfaces whose ends are as they were."""
    memory = Memory()
    for key in memory.keys(KEY):
        try:
            HooksDomain(rtnetlink, key.removeprefix(KEY)).forget()
        except InvalidInput:
            memory.forget(key)  # unplugged, and its ends with it


def _domains(rtnetlink: Socket) -> list[HooksDomain]:
    """Of the interfaces that may have something of ours at their ends."""
    indices = dict.fromkeys((*_kinds(rtnetlink), *tcx.interfaces()))
    return [HooksDomain(rtnetlink, socket.if_indextoname(index)) for index in indices]


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


def _place(body: bytes) -> int:
    return tc_header(body).info >> 16


def _options(body: bytes) -> dict[int, bytes]:
    return attributes(attributes(body, TCMSG.size).get(TCA_OPTIONS, b""))
