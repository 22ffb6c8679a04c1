# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send planned steps to the kernel, together where nothing has to be waited for."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from ..converge import Step
from ..errors import MissingCapability, StepFailed
from ..netlink import TCMSG, Message, Socket, attributes, text
from .observe import TCA_KIND, backlog

_LACKING = {  # what the kernel says of a kind that it was not built with, and the first part of its option
    "Specified qdisc kind is unknown": "CONFIG_NET_SCH",
    "TC classifier not found": "CONFIG_NET_CLS",
}
_NO_ACTION = "Failed to load TC action module"  # what it says of the first action of a filter that it lacks
POLL = 0.01  # seconds between two looks at a draining queue


class Drain(NamedTuple):
    """Wait until the queue below a class is empty, at most `within` seconds: deleting it would lose what it holds."""

    ifindex: int
    handle: int
    within: float


def apply(rtnetlink: Socket, steps: Sequence[Step]) -> None:
    """Carry out the steps in order; raise StepFailed at the first that the kernel refuses."""
    run: list[Step] = []
    for step in steps:
        if isinstance(step.payload, Drain) or (step.retire and run and not run[-1].retire):
            _send(rtnetlink, run)  # the kernel works on after a refusal: what goes waits until all additions stand
            run = []
        if isinstance(step.payload, Drain):
            _drain(rtnetlink, step.payload)
        else:
            run.append(step)
    _send(rtnetlink, run)


def _send(rtnetlink: Socket, steps: Sequence[Step]) -> None:
    messages: list[Message] = [step.payload for step in steps]
    for refusal in rtnetlink.send(messages):
        command, reason = steps[refusal.index].command, refusal.reason
        option = next((prefix for words, prefix in _LACKING.items() if words in reason), "")
        if _NO_ACTION in reason:
            raise MissingCapability(f"`{command}`", f"{_lacking(rtnetlink, command)} (the kernel says: {reason})")
        if option:
            kind = text(attributes(messages[refusal.index].body, TCMSG.size).get(TCA_KIND, b""))
            name = {"clsact": "ingress"}.get(kind, kind).upper()
            raise MissingCapability(f"`{command}`", f"{option}_{name} (the kernel says: {reason})")
        raise StepFailed(command, reason)


def _lacking(rtnetlink: Socket, command: str) -> str:
    """The option of the first action in a command that the kernel does not know."""
    from .actions import known

    kinds = re.findall(r" action (\S+)", command)
    kind = next((kind for kind in kinds if not known(rtnetlink, kind)), "…")
    return f"CONFIG_NET_ACT_{kind.upper()}"


def _drain(rtnetlink: Socket, drain: Drain) -> None:
    deadline = time.monotonic() + drain.within
    while backlog(rtnetlink, drain.ifindex, drain.handle) and time.monotonic() < deadline:
        time.sleep(POLL)
