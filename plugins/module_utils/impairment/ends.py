# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands at the ends of interfaces, before any queue: what sends arriving packets to an IFB, and BPF programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..converge import Target
from ..netlink import Socket
from ..tc.hooks import Hook, HooksDomain, Load, left
from .model import Interface


class Program(NamedTuple):
    """A program by its name, and how to load it."""

    name: str
    load: Callable[[], int]


def targets(
    rtnetlink: Socket,
    asked: Sequence[Interface],
    feeds: Mapping[str, int],
    programs: Mapping[str, Program],
    indices: Mapping[str, int],
    kind: str,
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
        program = programs.get(device)
        known: dict[str, Load] = {program.name: program.load} if program else {}
        domain = HooksDomain(rtnetlink, device, paths.get(device, "interface"), indices.get(device, 0), known)
        if device in feeds:
            domain.claim()
        if program:
            domain.claim_egress()
        standing.append(domain)
        wanted.append(Hook(kind, feeds.get(device, 0), program.name if program else ""))
    names = {domain.interface for domain in standing}
    leaving = [domain for domain in left(rtnetlink) if domain.interface not in names]
    return [*map(Target, standing, wanted), *(Target(domain, domain.before()) for domain in leaving)]
