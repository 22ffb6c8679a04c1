# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands at the ends of interfaces, before any queue: what sends arriving packets to an IFB, and BPF programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..converge import Target
from ..netlink import Socket
from ..tc.hooks import Hook, HooksDomain, left
from ..tc.leaving import Load, Standing
from .model import Interface


class Program(NamedTuple):
    """A program and its mover (tc/leaving.py) by their names, and how to load them."""

    name: str
    mover: str
    loads: Mapping[str, Load]


def targets(
    rtnetlink: Socket,
    asked: Sequence[Interface],
    feeds: Mapping[str, int],
    programs: Mapping[str, Program],
    indices: Mapping[str, int],
    kind: str,
    has_tcx: bool,
) -> list[Target]:
    """Targets for all interfaces that have, or had, something of ours there.

    `feeds`: the index of the IFB by interface; `programs`: by the device where they stand; `indices`: of devices that
    need not stand yet; `kind`: of the qdisc to make. Raises InvalidInput for an interface that is not there,
    TestbedError where something else stands in the way.
    """
    paths = {entry.name: f"{entry.path}.name" for entry in asked}
    standing: list[HooksDomain] = []
    wanted: list[Hook] = []
    for device in dict.fromkeys((*programs, *feeds)):
        program = programs.get(device, Program("", "", {}))
        path, index = paths.get(device, "interface"), indices.get(device, 0)
        domain = HooksDomain(rtnetlink, device, path, index, program.loads, program.mover)
        if device in feeds:
            domain.claim()
        at_tcx = has_tcx and not domain.is_behind()
        if program.name and not at_tcx:
            domain.claim_egress()
        standing.append(domain)
        places = Standing(tcx=program.name) if at_tcx else Standing(program.name)
        takes_qdisc = device in feeds or places.filter
        wanted.append(Hook(kind if takes_qdisc else domain.before().kind, feeds.get(device, 0), places))
    names = {domain.interface for domain in standing}
    leaving = [domain for domain in left(rtnetlink) if domain.interface not in names]
    return [*map(Target, standing, wanted), *(Target(domain, domain.before()) for domain in leaving)]
