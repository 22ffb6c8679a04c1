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
from .buffer import FULL_PACKET
from .model import Interface

EMPTIES_WITHIN = 5.0  # seconds that what waits in an IFB may take to go on


class Parts(NamedTuple):
    """Targets in their order, and what is to send packets there."""

    made: list[Target]  # IFBs, and the trees on them
    feeds: dict[str, int]  # the index of the IFB by the interface whose arriving packets pass it
    indices: dict[str, int]  # of the IFBs


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


def parts(rtnetlink: Socket, asked: Sequence[Interface], trees: Mapping[str, Tree]) -> Parts:
    """Targets for the IFBs of all interfaces that are, or were, impaired at ingress.

    Raises TestbedError where something else has the name of one.
    """
    links = LinksDomain(rtnetlink)
    wanted, current = links.wanted([entry.name for entry in asked]), links.observe()
    leaving = [link for link in current if link.name not in trees]
    made = [Target(links, wanted)]
    for link in (*wanted, *leaving):
        made.append(Target(IfbTree(rtnetlink, link.name, index=link.ifindex), trees.get(link.name, Tree())))
    feeds = {link.interface: link.ifindex for link in wanted}
    return Parts(made, feeds, {link.name: link.ifindex for link in wanted})
