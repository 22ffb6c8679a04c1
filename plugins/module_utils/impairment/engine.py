# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From impairment_interfaces to the kernel: the domains in their order, and what clear gives back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .. import bridge_netfilter, bytecode, guard, node
from ..capabilities import forget, load
from ..converge import Report, Step, Target, converge, revert
from ..errors import InvalidInput, RolledBack, TestbedError
from ..memory import Memory
from ..netlink import Socket
from ..tc.actions import ActionsDomain
from ..tc.domain import TcDomain, forget_restored, interfaces_with_root
from . import backends, model, shape, superpackets
from . import compile as compiler

if TYPE_CHECKING:
    from ..bpf.rules import RulesDomain
    from ..offloads import OffloadsDomain

CHAINS_STAND = "impairment-chains"  # remembered while drops are, or were, counted by iptables
TABLES_STAND = "impairment-tables"  # and by nftables


class Program(NamedTuple):
    """The BPF program compiled from files/bpf/impair.c, an ELF object; or what was missing to have it."""

    code: bytes = b""
    missing: str = "a BPF program, which the controller compiles"


NO_PROGRAM = Program()


class Outcome(NamedTuple):
    """The report, what carries what, and how to confirm (None: nothing to confirm)."""

    report: Report
    backends: list[dict[str, str]]
    warnings: list[str]
    pending: guard.Pending | None
    rules: list[dict[str, Any]]  # what the rules of programs have counted


def apply(
    interfaces: object,
    management: object = None,
    calibration: object = (),
    purge: bool = False,
    confirm_within: float = 0,
    check: bool = False,
    program: Program = NO_PROGRAM,
    offloads: str = "manage",
) -> Outcome:
    """Converge the node to `interfaces`; an interface that is no longer among them is as it was before us.

    management: matches that pass unimpaired, None for tcp 22 of the controller. confirm_within: seconds until an
    unconfirmed change is taken back, 0 for never. offloads: `keep` leaves alone what gathers packets.
    """
    asked = model.parse(interfaces)
    passing = _management(management) + model.parse_management(calibration, "impairment_calibration")
    with guard.alone(), Socket() as rtnetlink:
        departing = [entry for entry in asked if entry.direction == "egress"]
        domains = {entry.name: TcDomain(rtnetlink, entry.name, f"{entry.path}.name") for entry in departing}
        _check_ingress(asked, node.interfaces())
        missing = "" if program.code else program.missing
        facts = backends.Node(load(), node.links(), node.memory(), missing)
        wanted = compiler.compile_node(asked, passing, facts)
        for name, domain in domains.items():
            domain.claim(wanted.trees[name], shape.ROOT_HANDLE, purge)
        leaving = [TcDomain(rtnetlink, name) for name in _ours(rtnetlink) if name not in domains]
        ends = _ends(rtnetlink, asked, wanted, facts, program.code)
        singly = _offloads(rtnetlink, superpackets.needs(asked) if offloads == "manage" else ())
        targets = [
            *_single_targets(singly),
            *_netfilter(wanted.counted, passing, facts, check),
            *_nftables(wanted.numbered, passing, facts, check),
            *ends.rules,
            Target(ActionsDomain(rtnetlink), wanted.actions),
            *(Target(domain, wanted.trees[name]) for name, domain in domains.items()),
            *(Target(domain, domain.before()) for domain in leaving),
            *ends.ifbs,
            *ends.hooks,
        ]
        warnings = wanted.warnings + (singly.warnings() if singly else [])
        if offloads != "manage":
            warnings += superpackets.warnings(asked)
        if check:
            return Outcome(converge(targets, check), wanted.backends, warnings, None, _counted(ends.rules))
        try:
            report, pending = _on_trial(targets, rtnetlink, confirm_within)
        finally:
            _forget_restored(rtnetlink, singly)
        _tidy(rtnetlink, ends.rules)
        _forget_netfilter(wanted.counted, wanted.numbered)
        return Outcome(report, wanted.backends, warnings, pending, _counted(ends.rules))


def _check_ingress(asked: Sequence[model.Interface], present: Sequence[str]) -> None:
    """Refuse an in_interface that the node does not have: the kernel would refuse its filter halfway."""
    for interface in asked:
        for entry in interface.classes:
            for match in entry.matches:
                if match.in_interface and match.in_interface not in present:
                    allowed = "this node has the interfaces " + ", ".join(present)
                    raise InvalidInput(f"{match.path}.in_interface", match.in_interface, allowed)


def _on_trial(targets: Sequence[Target], rtnetlink: Socket, within: float) -> tuple[Report, guard.Pending | None]:
    """Converge, watched from before the first write: a run that breaks off is taken back like one nobody confirms.

    To confirm is this change, and those before it of which nobody has told yet whether the node can still be reached.
    """
    if not within:
        report = converge(targets)
        guard.trust()
        return report, None
    armed: list[guard.Pending] = []

    def arm(states: Sequence[Any], _steps: Sequence[Step]) -> None:
        armed.append(guard.arm(lambda: _take_back(targets, states, rtnetlink), within))

    try:
        report = converge(targets, begin=arm)
    except RolledBack as error:
        if error.restored:
            armed[0].disarm()
        raise
    older = guard.waiting()
    return report, armed[0] if armed else guard.Pending(older) if older else None


def clear(check: bool = False) -> Report:
    """Every interface as it was before us."""
    with guard.alone(), Socket() as rtnetlink:
        domains = [TcDomain(rtnetlink, name) for name in _ours(rtnetlink)]
        ends = _ends(rtnetlink, (), compiler.NOTHING, None, b"")
        singly = _offloads(rtnetlink, ())
        targets = [
            *_single_targets(singly),
            *_netfilter((), (), None, check),
            *_nftables((), (), None, check),
            *ends.rules,
            Target(ActionsDomain(rtnetlink), ()),
            *(Target(domain, domain.before()) for domain in domains),
            *ends.ifbs,
            *ends.hooks,
        ]
        if not check:
            guard.trust()
        report = converge(targets, check)
        if not check:
            _forget_restored(rtnetlink, singly)
            _forget_netfilter((), ())
            _tidy(rtnetlink, ends.rules)
            guard.tidy()
            bytecode.forget()
            forget()
        return report


def _offloads(rtnetlink: Socket, needs: Sequence[tuple[str, str]]) -> OffloadsDomain | None:
    """None on a node where nothing needs single packets, or did."""
    if not needs and not Memory().keys("offloads-"):
        return None
    from ..offloads import OffloadsDomain

    return OffloadsDomain(rtnetlink, needs)


def _single_targets(singly: OffloadsDomain | None) -> list[Target]:
    return [Target(singly, singly.desired())] if singly else []


def _nftables(
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


def _netfilter(
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


def _take_back(targets: Sequence[Target], states: Sequence[Any], rtnetlink: Socket) -> None:
    """In the guard's process, which is a copy of ours and has its socket."""
    try:
        revert(targets, states)
    except TestbedError:
        return  # nobody is left to tell; the next run finds what stands and converges it
    finally:
        _forget_restored(rtnetlink, _offloads(rtnetlink, ()))


def _management(management: object) -> tuple[model.Match, ...]:
    if management is not None:
        return model.parse_management(management, "impairment_management")
    address = node.controller()
    if address is None:
        return ()
    ours = [{"address": address, "protocol": "tcp", "port": 22}]
    return model.parse_management(ours, "impairment_management")


def _ours(rtnetlink: Socket) -> list[str]:
    """Interfaces with a tree of ours, apart from the IFBs that go with what arrives."""
    return [name for name in interfaces_with_root(rtnetlink, shape.ROOT_HANDLE) if not node.IFB_NAME.fullmatch(name)]


class Ends(NamedTuple):
    """Targets for what stands before and behind queues, in the order in which they are made."""

    rules: list[Target] = []
    ifbs: list[Target] = []
    hooks: list[Target] = []


def _ends(
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
    from . import ends, ingress

    kind = "clsact" if facts and facts.can("qdisc.clsact") else "ingress"
    parts = ingress.parts(rtnetlink, arriving, wanted.trees)
    rules: list[Target] = []
    programs = {}
    ids = hooks.programs(rtnetlink)
    if wanted.tables or ids or pinned:
        from ..bpf.lookups import ARRIVING, LEAVING, Lookup
        from ..bpf.rules import RulesDomain

        domain = RulesDomain(ids)
        rules = [Target(domain, wanted.rules)]
        for device, table in wanted.tables.items():
            section = ARRIVING if node.IFB_NAME.fullmatch(device) else LEAVING
            lookup = Lookup(table.shapes, table.matches, code, section)
            programs[device] = ends.Program(lookup.name, partial(lookup.load, domain))
    hooked = ends.targets(rtnetlink, asked, parts.feeds, programs, parts.indices, kind)
    return Ends(rules, parts.made, hooked)


def _tidy(rtnetlink: Socket, rules: Sequence[Target]) -> None:
    """Pins of maps that no program of ours has any more are removed."""
    if rules:
        from ..bpf.rules import unpin
        from ..tc import hooks

        if not hooks.programs(rtnetlink):
            unpin()


def _counted(rules: Sequence[Target]) -> list[dict[str, Any]]:
    if not rules:
        return []
    from ..bpf.counters import counted

    return [row for target in rules for row in counted(cast("RulesDomain", target.domain))]


def _forget_restored(rtnetlink: Socket, singly: OffloadsDomain | None) -> None:
    forget_restored(rtnetlink)
    if Memory().keys("hook-"):
        from ..tc import hooks

        hooks.forget_restored(rtnetlink)
    if singly:
        singly.forget_restored()


def _forget_netfilter(counted: Sequence[model.Interface], numbered: Sequence[model.Interface]) -> None:
    """Without a drop counted there, nothing of ours is left in netfilter."""
    if not counted:
        Memory().forget(CHAINS_STAND)
        Memory().forget(bridge_netfilter.KEY)
    if not numbered:
        Memory().forget(TABLES_STAND)
