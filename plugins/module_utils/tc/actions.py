# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain actions: gact actions that filters share by index (linux/tc_act/tc_gact.h, net/sched/act_gact.c).

`random determ drop n` counts the packets of all filters that share the action and drops the nth, 2nth, …
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from ..converge import Step
from ..errors import InvalidInput, StepFailed
from ..netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELACTION,
    RTM_GETACTION,
    RTM_NEWACTION,
    Message,
    NetlinkError,
    Refusal,
    Socket,
    attribute,
    attributes,
    each_attribute,
    nested,
    string,
    u32,
)
from .kinds.filters import GACT, TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_GACT_PARMS
from .model import Filter

TCA_ACT_TAB, TCA_ACT_INDEX, TCA_GACT_PROB = 1, 3, 3
TCAMSG = bytes(4)  # tcamsg: family and padding
PROBABILITY = struct.Struct("=HHi")  # tc_gact_p: type, value, verdict
TC_ACT_OK, TC_ACT_SHOT = 0, 2
RELEASE, POLL = 2.0, 0.01  # seconds: how long an action may still be bound, and between two tries
PGACT_DETERM = 2
OURS = 0x7E570000  # indices of ours have this upper half


class DropEvery(NamedTuple):
    """gact `index`: pass, and drop each packet whose count is a multiple of `every`."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    every: int


class ActionsDomain:
    """Our gact actions on the node: one per class that drops every nth packet."""

    name = "actions"

    def __init__(self, rtnetlink: Socket) -> None:
        self._rtnetlink = rtnetlink

    def observe(self) -> tuple[DropEvery, ...]:
        request = Message(
            RTM_GETACTION, 0, TCAMSG + nested(TCA_ACT_TAB, nested(1, attribute(TCA_ACT_KIND, string("gact"))))
        )
        try:
            bodies = self._rtnetlink.dump(request)
        except NetlinkError:  # the kernel has no gact: there is none of ours
            return ()
        found = []
        for body in bodies:
            for _order, entry in each_attribute(attributes(body, len(TCAMSG)).get(TCA_ACT_TAB, b"")):
                found += _decode(attributes(attributes(entry).get(TCA_ACT_OPTIONS, b"")))
        return tuple(sorted(found))

    def plan(self, current: Sequence[DropEvery], desired: Sequence[DropEvery]) -> list[Step]:
        known = {action.index: action for action in current}
        steps = []
        for action in desired:
            if action.index not in known:
                steps.append(_step("add", action, NLM_F_CREATE | NLM_F_EXCL))
            elif action != known[action.index]:
                steps.append(_step("change", action, NLM_F_CREATE | NLM_F_REPLACE))
        wanted = {action.index for action in desired}
        steps += [_deletion(action) for action in current if action.index not in wanted]
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            deadline = time.monotonic() + RELEASE
            while refusals := self._rtnetlink.send([step.payload]):
                # The kernel lets go of a filter's action in a work queue, some time after the filter changed.
                if refusals[0].errno != errno.EPERM or not step.retire or time.monotonic() > deadline:
                    raise StepFailed(step.command, refusals[0].reason)
                time.sleep(POLL)

    def describe(self, state: Sequence[DropEvery]) -> list[str]:
        return [f"action {_words(action)}" for action in state]


def check_shared(rtnetlink: Socket, filters: Sequence[Filter]) -> None:
    """Raise InvalidInput where a filter names an action by an index that the node does not have."""
    for place, entry in enumerate(filters):
        for number, action in enumerate(entry.options.actions):
            if action.options is None and not _exists(rtnetlink, action.kind, action.index):
                allowed = f"make it first, by `tc actions add action {action.kind} … index {action.index}`"
                raise InvalidInput(f"filters[{place}].action[{number}].index", action.index, allowed)


def known(rtnetlink: Socket, kind: str) -> bool:
    """Whether the kernel has this kind of actions, built in or loaded."""
    return not any("kind not found" in refusal.reason for refusal in _asked(rtnetlink, kind, 1))


def _exists(rtnetlink: Socket, kind: str, index: int) -> bool:
    return not _asked(rtnetlink, kind, index)


def _asked(rtnetlink: Socket, kind: str, index: int) -> list[Refusal]:
    entry = nested(1, attribute(TCA_ACT_KIND, string(kind)), attribute(TCA_ACT_INDEX, u32(index)))
    return rtnetlink.send([Message(RTM_GETACTION, 0, TCAMSG + nested(TCA_ACT_TAB, entry))])


def _decode(options: dict[int, bytes]) -> list[DropEvery]:
    index, _capabilities, verdict, _references, _bindings = GACT.unpack_from(options[TCA_GACT_PARMS])
    kind, every, chance = PROBABILITY.unpack_from(options.get(TCA_GACT_PROB, bytes(PROBABILITY.size)))
    if index & 0xFFFF0000 != OURS:
        return []
    exact = (verdict, kind, chance) == (TC_ACT_OK, PGACT_DETERM, TC_ACT_SHOT)
    return [DropEvery(index, every if exact else 0)]


def _words(action: DropEvery) -> str:
    return f"gact pass random determ drop {action.every} index {action.index:#x}"


def _step(verb: str, action: DropEvery, flags: int) -> Step:
    options = nested(
        TCA_ACT_OPTIONS,
        attribute(TCA_GACT_PARMS, GACT.pack(action.index, 0, TC_ACT_OK, 0, 0)),
        attribute(TCA_GACT_PROB, PROBABILITY.pack(PGACT_DETERM, action.every, TC_ACT_SHOT)),
    )
    body = TCAMSG + nested(TCA_ACT_TAB, nested(1, attribute(TCA_ACT_KIND, string("gact")), options))
    return Step(f"tc actions {verb} action {_words(action)}", Message(RTM_NEWACTION, flags, body))


def _deletion(action: DropEvery) -> Step:
    entry = nested(1, attribute(TCA_ACT_KIND, string("gact")), attribute(TCA_ACT_INDEX, u32(action.index)))
    message = Message(RTM_DELACTION, 0, TCAMSG + nested(TCA_ACT_TAB, entry))
    return Step(f"tc actions del action gact index {action.index:#x}", message, retire=True)
