# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain hooks: filters of ours where packets arrive at an interface and where they leave it, before any queue.

At ingress one sends all that arrives to another interface; at egress one is a BPF program. They stand behind the
filters of others, whose verdicts come first, in a clsact (or, at ingress only, an ingress) qdisc that is shared.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
    Message,
    Socket,
    attribute,
    attributes,
    integer,
    string,
    tc_header,
    tc_message,
    text,
)
from ..node import ifb_name
from .hook_messages import EGRESS_HANDLE, TCA_BPF_ID, program_options, redirect_options, target
from .kinds.bpf import NAME
from .model import ETH_P_ALL, INGRESS
from .steps import ADD, REPLACE, TCA_KIND, TCA_OPTIONS, Device

HANDLE = 0xFFFF0000  # of ingress and clsact alike (net/sched/sch_api.c)
ARRIVING = {"ingress": HANDLE, "clsact": 0xFFFFFFF2}  # parents of filters: TC_H_MIN_INGRESS
LEAVING = 0xFFFFFFF3  # TC_H_MIN_EGRESS, of clsact only
PRIORITY = 0xFE57  # behind what tc numbers by itself (0xC000 and below)
KEY = "hook-"  # what is remembered of an interface where something of ours stands: the qdisc that was found there
OWN = "impair.bpf:"  # how the names of a user's own programs begin, which the module bpf holds
INFO = PRIORITY << 16 | socket.htons(ETH_P_ALL)

Load = Callable[[], int]  # a program as a file descriptor, loaded when it is needed


class Hook(NamedTuple):
    """`kind`: the ingress or clsact qdisc, "" for none; `to`: the index of the interface where it all goes, 0: none;
    `program`: the name of the BPF program at egress, "" for none."""

    kind: str = ""
    to: int = 0
    program: str = ""
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
    ) -> None:
        """`index`: of an interface that need not stand yet; `programs`: how to have a program of this name.

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
        self._programs = dict(programs or {})
        self._standing: dict[str, int] = {}

    def observe(self) -> Hook:
        kind, arriving, leaving = self._found()
        to = max((target(_options(body)) for body in arriving if _place(body) == PRIORITY), default=0)
        others = any(_place(body) != PRIORITY for body in arriving + leaving)
        return Hook(kind, to, self._program(leaving), others)

    def claim(self) -> None:
        """Raise TestbedError where a filter of somebody else stands behind ours: it would see no packet any more."""
        behind = [body for body in self._found()[1] if _place(body) > PRIORITY]
        if behind:
            kind = text(attributes(behind[0], TCMSG.size)[TCA_KIND])
            raise TestbedError(
                f"the ingress of {self.interface} holds `filter {kind} pref {_place(behind[0])}`, which would see no "
                f"packet any more; give it a pref below {PRIORITY}, or remove it"
            )

    def claim_egress(self) -> None:
        """Raise TestbedError where the qdisc that stands has no egress."""
        if _kinds(self._rtnetlink).get(self._device.index, "") == "ingress":
            raise TestbedError(
                f"{self.interface} holds an ingress qdisc, beside which no program can stand where packets leave; "
                f"use clsact in its place (tc qdisc add dev {self.interface} clsact), which has both, or remove it"
            )

    def before(self) -> Hook:
        """Without ours; and without the qdisc where we made it."""
        return Hook() if self._made() else self.observe()._replace(to=0, program="")

    def plan(self, current: Hook, desired: Hook) -> list[Step]:
        steps = []
        if current.to and current.to != desired.to:
            steps.append(self._deletion(ARRIVING[current.kind], "u32", retire=not desired.to))
        if (desired.to or desired.program) and not current.kind:
            message = tc_message(RTM_NEWQDISC, ADD, self._device.index, HANDLE, INGRESS, 0, _kind(desired.kind))
            steps.append(Step(f"tc qdisc add dev {self.interface} {desired.kind}", message))
        kind = current.kind or desired.kind
        if desired.program and current.program != desired.program:
            steps.append(self._program_step(desired.program, "replace" if current.program else "add"))
        if desired.to and current.to != desired.to:
            steps.append(self._redirection(kind, desired.to))
        if current.program and not desired.program:
            steps.append(self._deletion(LEAVING, "bpf", retire=True))
        if current.kind and not desired.kind and not current.shared:
            message = tc_message(RTM_DELQDISC, 0, self._device.index, HANDLE, INGRESS)
            steps.append(Step(f"tc qdisc del dev {self.interface} {current.kind}", message, retire=True))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        self.note()
        for refusal in self._rtnetlink.send([_message(step.payload) for step in steps]):
            raise StepFailed(steps[refusal.index].command, refusal.reason)

    def note(self) -> None:
        """Before the first write: a qdisc that is not there yet will be made by us."""
        record = self._memory.recall(self._key)
        if not record or record["interface"] != self._identity():  # of one that had this name before
            found = _kinds(self._rtnetlink).get(self._device.index, "")
            self._memory.remember(self._key, {"interface": self._identity(), "found": found}, renew=True)

    def forget(self) -> None:
        """Once the qdisc that we made is gone, or holds filters of others only, there is nothing to remember."""
        current = self.observe()
        arriving, leaving = self._found()[1:]
        own = any(text(_options(body).get(NAME, b"")).startswith(OWN) for body in arriving + leaving)
        ours = current.to or current.program or own
        if not ours and (current.shared or not current.kind or not self._made()):
            self._memory.forget(self._key)

    def describe(self, state: Hook) -> list[str]:
        lines = [f"qdisc {state.kind} ffff: dev {self.interface} ingress"] if state.kind else []
        if state.to:
            lines.append(f"filter dev {self.interface} {self._words(ARRIVING[state.kind], self._redirects(state.to))}")
        if state.program:
            lines.append(f"filter dev {self.interface} {self._words(LEAVING, _runs(state.program))}")
        return lines

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

    def _program(self, leaving: Sequence[bytes]) -> str:
        """The name of the program of ours at egress, which is kept so that a roll-back can give it back."""
        for body in leaving:
            options = _options(body)
            if _place(body) != PRIORITY or TCA_BPF_ID not in options:
                continue
            from ..bpf import files

            name = text(options.get(NAME, b""))
            descriptor = files.held(integer(options[TCA_BPF_ID]))
            if descriptor is not None:
                self._standing[name] = descriptor
            return name
        return ""

    def program_ids(self) -> list[int]:
        """The id of the program of ours at egress, if there is one."""
        found = [_options(body) for body in self._found()[2] if _place(body) == PRIORITY]
        return [integer(options[TCA_BPF_ID]) for options in found if TCA_BPF_ID in options]

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

    def _program_step(self, name: str, verb: str) -> Step:
        def message() -> Message:
            descriptor = self._standing[name] if name in self._standing else self._programs[name]()
            body = _kind("bpf") + attribute(TCA_OPTIONS, program_options(descriptor, name))
            return tc_message(RTM_NEWTFILTER, REPLACE, self._device.index, EGRESS_HANDLE, LEAVING, INFO, body)

        return Step(f"tc filter {verb} dev {self.interface} {self._words(LEAVING, _runs(name))}", message)

    def _deletion(self, parent: int, kind: str, retire: bool) -> Step:
        message = tc_message(RTM_DELTFILTER, 0, self._device.index, 0, parent, INFO, _kind(kind))
        return Step(f"tc filter del dev {self.interface} {self._words(parent, kind)}", message, retire)


def _message(payload: Any) -> Message:
    """A message, or the making of one that has to wait until its program can be loaded."""
    return payload() if callable(payload) else payload


def _runs(name: str) -> str:
    return f"bpf direct-action {name}"


def programs(rtnetlink: Socket) -> list[int]:
    """Ids of all programs of ours that stand in this namespace."""
    domains = [HooksDomain(rtnetlink, socket.if_indextoname(index)) for index in _kinds(rtnetlink)]
    return [found for domain in domains for found in domain.program_ids()]


def left(rtnetlink: Socket) -> list[HooksDomain]:
    """Of all interfaces those with a filter of ours at one of their ends, or with a qdisc there that we made."""
    domains = [HooksDomain(rtnetlink, socket.if_indextoname(index)) for index in _kinds(rtnetlink)]
    return [domain for domain in domains if domain.observe() != domain.before()]


def forget_restored(rtnetlink: Socket) -> None:
    """Drop what is remembered of interfaces whose ends are as they were."""
    memory = Memory()
    for key in memory.keys(KEY):
        try:
            HooksDomain(rtnetlink, key.removeprefix(KEY)).forget()
        except InvalidInput:
            memory.forget(key)  # unplugged, and its ends with it


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
