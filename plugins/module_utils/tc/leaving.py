# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of ours where packets leave an interface: at TCX, or as the last filter of clsact's egress.

It goes from one place to the other without a packet that passes neither, or both: meanwhile the one at TCX is another,
the mover, which does the same, and keeps clsact's filters from what it lets pass.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..bpf import files, tcx
from ..converge import Step
from ..netlink import (
    RTM_DELTFILTER,
    RTM_NEWTFILTER,
    TCMSG,
    Message,
    attribute,
    attributes,
    integer,
    string,
    tc_header,
    tc_message,
    text,
)
from .hook_messages import EGRESS_HANDLE, TCA_BPF_ID, program_options
from .kinds.bpf import NAME
from .model import ETH_P_ALL
from .steps import REPLACE, TCA_KIND, TCA_OPTIONS, Device

PARENT = 0xFFFFFFF3  # TC_H_MIN_EGRESS, of clsact only
PRIORITY = 0xFE57  # behind what tc numbers by itself (0xC000 and below)
INFO = PRIORITY << 16 | socket.htons(ETH_P_ALL)

Load = Callable[[], int]  # a program as a file descriptor, loaded when it is needed


class Standing(NamedTuple):
    """Names of programs of ours, "" for none: a filter of clsact, and at TCX."""

    filter: str = ""
    tcx: str = ""


class Leaving:
    """Observe and plan the program at one interface."""

    def __init__(self, device: Device, programs: Mapping[str, Load], mover: str) -> None:
        """`programs`: how to have a program of this name; `mover`: the name of the one for the time of a move."""
        self._device = device
        self._programs = programs
        self._mover = mover
        self._held: dict[str, int] = {}  # descriptors of what stood or was loaded, so that a roll-back has them

    def observe(self, filters: Sequence[bytes]) -> Standing:
        """`filters`: the messages of those at clsact's egress."""
        names = []
        for found in (_filters(filters), tcx.ours(self._device.index)):
            for one in found[:1]:
                descriptor = files.held(one.program)
                if descriptor is not None:
                    self._held[one.name] = descriptor
            names.append(found[0].name if found else "")
        return Standing(*names)

    def ids(self, filters: Sequence[bytes]) -> list[int]:
        """The kernel's numbers of the programs."""
        return [one.program for one in (*_filters(filters), *tcx.ours(self._device.index))]

    def plan(self, current: Standing, desired: Standing) -> list[Step]:
        """Between the steps some program stands wherever one stood before."""
        if current == desired:
            return []
        moves = bool((current.filter and desired.tcx) or (current.tcx and desired.filter))
        steps = []
        if moves and self._mover and current.tcx != self._mover:
            steps.append(self._attachment(self._mover, current.tcx, desired.filter or desired.tcx))
            current = current._replace(tcx=self._mover)
        if desired.filter and desired.filter != current.filter:
            steps.append(self._filter(desired.filter, "replace" if current.filter else "add"))
        if current.filter and not desired.filter:
            steps.append(self._deletion(retire=not moves))
        if desired.tcx and desired.tcx != current.tcx:
            steps.append(self._attachment(desired.tcx, current.tcx))
        if current.tcx and not desired.tcx:
            steps.append(self._detachment(current.tcx, retire=not moves))
        return steps

    def describe(self, state: Standing) -> list[str]:
        lines = [f"filter dev {self._device.name} {_runs(state.filter)}"] if state.filter else []
        return [*lines, *([f"{self._device.name} tcx/egress {state.tcx}"] if state.tcx else [])]

    def _descriptor(self, name: str) -> int:
        if name not in self._held:
            self._held[name] = self._programs[name]()
        return self._held[name]

    def _attachment(self, name: str, over: str, then: str = "") -> Step:
        """`then`: what is to stand after this step; it is loaded before, as the kernel may refuse it."""

        def attach() -> None:
            if then:
                self._descriptor(then)
            tcx.attach(self._device.index, self._descriptor(name), self._held[over] if over else 0)

        words = f"bpftool net attach tcx_egress name {name} dev {self._device.name}"
        return Step(f"{words} overwrite" if over else words, attach)

    def _detachment(self, name: str, retire: bool) -> Step:
        def detach() -> None:
            tcx.detach(self._device.index, self._held[name])

        return Step(f"bpftool net detach tcx_egress dev {self._device.name}", detach, retire)

    def _filter(self, name: str, verb: str) -> Step:
        def message() -> Message:
            body = attribute(TCA_KIND, string("bpf")) + attribute(
                TCA_OPTIONS, program_options(self._descriptor(name), name)
            )
            return tc_message(RTM_NEWTFILTER, REPLACE, self._device.index, EGRESS_HANDLE, PARENT, INFO, body)

        return Step(f"tc filter {verb} dev {self._device.name} {_runs(name)}", message)

    def _deletion(self, retire: bool) -> Step:
        body = attribute(TCA_KIND, string("bpf"))
        message = tc_message(RTM_DELTFILTER, 0, self._device.index, 0, PARENT, INFO, body)
        return Step(f"tc filter del dev {self._device.name} {_WHERE} bpf", message, retire)


_WHERE = f"parent ffff:fff3 protocol all prio {PRIORITY}"


def _runs(name: str) -> str:
    return f"{_WHERE} bpf direct-action {name}"


def _filters(bodies: Sequence[bytes]) -> list[tcx.Attached]:
    """Those of ours."""
    ours = [body for body in bodies if tc_header(body).info >> 16 == PRIORITY]
    parts = [attributes(attributes(body, TCMSG.size).get(TCA_OPTIONS, b"")) for body in ours]
    return [
        tcx.Attached(text(options.get(NAME, b"")), integer(options[TCA_BPF_ID]))
        for options in parts
        if TCA_BPF_ID in options
    ]
