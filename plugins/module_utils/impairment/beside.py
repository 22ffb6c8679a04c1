# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node's impairments take beside the trees on its interfaces, as targets; none, and nothing imported, where it
has and wants none of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .. import bridge_netfilter, node
from ..capabilities import load
from ..converge import Target
from ..memory import Memory
from ..netlink import Socket
from ..tc.domain import forget_restored
from . import backends, model
from . import compile as compiler

if TYPE_CHECKING:
    from ..bpf.rules import RulesDomain
    from ..offloads import OffloadsDomain

CHAINS_STAND = "impairment-chains"  # remembered while drops are, or were, counted by iptables
TABLES_STAND = "impairment-tables"  # and by nftables


def offloads(rtnetlink: Socket, needs: Sequence[tuple[str, str]]) -> OffloadsDomain | None:
    """None on a node where nothing needs single packets, or did."""
    if not needs and not Memory().keys("offloads-"):
        return None
    from ..offloads import OffloadsDomain

    return OffloadsDomain(rtnetlink, needs)


def single(singly: OffloadsDomain | None) -> list[Target]:
    return [Target(singly, singly.desired())] if singly else []


def nftables(
    numbered: Sequence[model.Interface], passing: Sequence[model.Match], facts: backends.Node | None, check: bool
) -> list[Target]:
    """The target for drops that nftables counts; none on a node that has and wants none."""
    memory = Memory()
    if not numbered and memory.recall(TABLES_STAND) is None:
        return []
    from ..nftables import NftablesDomain
    from . import numgen

    if not check:
        memory.remember(TABLES_STAND, True)
    ports = facts.other_ports if facts else {}
    return [Target(NftablesDomain(), numgen.state(numbered, passing, ports))]


def iptables(
    counted: Sequence[model.Interface], passing: Sequence[model.Match], facts: backends.Node | None, check: bool
) -> list[Target]:
    """Targets for drops that iptables counts; none, and no program run, on a node that has and wants none."""
    memory = Memory()
    if not counted and memory.recall(CHAINS_STAND) is None:
        return []
    from ..chains.domain import ChainsDomain
    from ..chains.variants import choose
    from . import statistic

    bridges = facts.bridges if facts else {}
    seen = sorted({bridges[interface.name] for interface in counted if interface.name in bridges})
    flags = bridge_netfilter.BridgeNetfilter(seen, memory)
    if not check:
        memory.remember(CHAINS_STAND, True)
        if seen:
            bridge_netfilter.load()
    elif seen and not bridge_netfilter.loaded():
        return []  # trying the rules would load br_netfilter, and check mode changes nothing
    capable = load()
    domains = [ChainsDomain(choose(capable, name), statistic.TABLE, statistic.OWNER) for name in statistic.PROGRAMS]
    wanted = [statistic.state(name, counted, passing, bridges) for name in statistic.PROGRAMS]
    return [Target(flags, flags.desired(seen)), *map(Target, domains, wanted)]


class Ends(NamedTuple):
    """Targets for what stands before and behind queues, in the order in which they are made."""

    rules: list[Target] = []
    ifbs: list[Target] = []
    hooks: list[Target] = []


def ends(
    rtnetlink: Socket,
    asked: Sequence[model.Interface],
    wanted: compiler.Compiled,
    facts: backends.Node | None,
    code: bytes,
) -> Ends:
    """The rules of programs, IFBs with their trees, and what stands at the ends of interfaces."""
    arriving = [entry for entry in asked if entry.direction == "ingress"]
    pinned = os.path.isdir(node.PINS)  # a run that was killed may have left them alone
    standing = Memory().keys("hook-") or any(map(node.IFB_NAME.fullmatch, node.interfaces()))
    if not arriving and not wanted.tables and not standing and not pinned:
        return Ends()
    from ..tc import hooks
    from . import ends as at_ends
    from . import ingress

    kind = "clsact" if facts and facts.can("qdisc.clsact") else "ingress"
    parts = ingress.parts(rtnetlink, arriving, wanted.trees)
    rules: list[Target] = []
    programs = {}
    ids = hooks.programs(rtnetlink)
    if wanted.tables or ids or pinned:
        from ..bpf.lookups import ALONE, ARRIVING, LEAVING, Lookup
        from ..bpf.rules import RulesDomain

        domain = RulesDomain(ids)
        rules = [Target(domain, wanted.rules)]
        for device, table in wanted.tables.items():
            section = ARRIVING if node.IFB_NAME.fullmatch(device) else LEAVING
            both = [Lookup(table.shapes, table.matches, code, section + variant) for variant in ("", ALONE)]
            loads = {one.name: partial(one.load, domain) for one in both}
            programs[device] = at_ends.Program(both[0].name, both[1].name, loads)
    has_tcx = facts is not None and facts.can("bpf.tcx")
    hooked = at_ends.targets(rtnetlink, asked, parts.feeds, programs, parts.indices, kind, has_tcx)
    return Ends(rules, parts.made, hooked)


def tidy(rtnetlink: Socket, rules: Sequence[Target]) -> None:
    """Pins of maps that no program of ours has any more are removed."""
    if rules:
        from ..bpf.rules import unpin
        from ..tc import hooks

        if not hooks.programs(rtnetlink):
            unpin()


def counted(rules: Sequence[Target]) -> list[dict[str, Any]]:
    if not rules:
        return []
    from ..bpf import counters

    return [row for target in rules for row in counters.counted(cast("RulesDomain", target.domain))]


def restored(rtnetlink: Socket, singly: OffloadsDomain | None) -> None:
    forget_restored(rtnetlink)
    if Memory().keys("hook-"):
        from ..tc import hooks

        hooks.forget_restored(rtnetlink)
    if singly:
        singly.forget_restored()


def forget_netfilter(counted: Sequence[model.Interface], numbered: Sequence[model.Interface]) -> None:
    """Without a drop counted there, nothing of ours is left in netfilter."""
    if not counted:
        Memory().forget(CHAINS_STAND)
        Memory().forget(bridge_netfilter.KEY)
    if not numbered:
        Memory().forget(TABLES_STAND)
