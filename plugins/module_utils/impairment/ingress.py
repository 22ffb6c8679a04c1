# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Impairing what arrives: an IFB, the uniform shape on it, and a filter that sends everything there, in this order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..converge import Step, Target
from ..links import QUEUE_LENGTH, LinksDomain
from ..netlink import NetlinkError, Socket
from ..tc.apply import POLL, apply
from ..tc.domain import TcDomain
from ..tc.model import Tree
from ..tc.observe import waiting
from ..tc.redirect import Hook, RedirectDomain, left
from .buffer import FULL_PACKET
from .model import Interface

EMPTIES_WITHIN = 5.0  # seconds that what waits in an IFB may take to go on


class Parts(NamedTuple):
    """Targets in their order, and what to call when they stand."""

    made: list[Target]  # IFBs, and the trees on them
    fed: list[Target]  # what sends packets there


class IfbTree(TcDomain):
    """The tree on an IFB of ours, which need not stand yet. Nothing stood there before us."""

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.payload is None:
                self._empties()
        apply(self._rtnetlink, [step for step in steps if step.payload is not None])

    def before(self) -> Tree:
        return Tree()

    def plan(self, current: Tree, desired: Tree) -> list[Step]:
        steps = super().plan(current, desired)
        if current.root and not desired.root:
            words = f"# wait until {self.interface} is empty, {EMPTIES_WITHIN:g} s at most"
            steps.insert(0, Step(words, None, retire=True))
        return steps

    def _queue(self) -> tuple[int, int]:
        try:
            return super()._queue()
        except NetlinkError:  # it is still to be made
            return QUEUE_LENGTH, FULL_PACKET

    def _empties(self) -> None:
        deadline = time.monotonic() + EMPTIES_WITHIN
        while waiting(self._rtnetlink, self._device.index) and time.monotonic() < deadline:
            time.sleep(POLL)


def parts(rtnetlink: Socket, asked: Sequence[Interface], trees: Mapping[str, Tree], hook: str) -> Parts:
    """Targets for all interfaces that are, or were, impaired at ingress. `hook`: the kind of qdisc to make there.

    Raises InvalidInput for an interface that is not there, TestbedError where something else stands in the way.
    """
    feeders = {entry.name: RedirectDomain(rtnetlink, entry.name, f"{entry.path}.name") for entry in asked}
    for feeder in feeders.values():
        feeder.claim()
    links = LinksDomain(rtnetlink)
    wanted, current = links.wanted([entry.name for entry in asked]), links.observe()
    leaving = [link for link in current if link.name not in trees]
    made = [Target(links, wanted)]
    for link in (*wanted, *leaving):
        made.append(Target(IfbTree(rtnetlink, link.name, index=link.ifindex), trees.get(link.name, Tree())))
    fed = [Target(feeders[link.interface], Hook(hook, link.ifindex)) for link in wanted]
    fed += [Target(feeder, feeder.before()) for feeder in left(rtnetlink) if feeder.interface not in feeders]
    return Parts(made, fed)
