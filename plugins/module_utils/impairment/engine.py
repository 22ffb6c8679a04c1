# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From impairment_interfaces to the kernel: the domains in their order, and what clear gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import bytecode, guard, node
from ..capabilities import forget, load
from ..converge import Report, Step, Target, converge, revert
from ..errors import InvalidInput, RolledBack, TestbedError
from ..netlink import Socket
from ..tc.actions import ActionsDomain
from ..tc.domain import TcDomain, interfaces_with_root
from . import backends, beside, model, shape, superpackets
from . import compile as compiler

if TYPE_CHECKING:
    pass

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
        ends = beside.ends(rtnetlink, asked, wanted, facts, program.code)
        singly = beside.offloads(rtnetlink, superpackets.needs(asked) if offloads == "manage" else ())
        targets = [
            *beside.single(singly),
            *beside.iptables(wanted.counted, passing, facts, check),
            *beside.nftables(wanted.numbered, passing, facts, check),
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
            return Outcome(converge(targets, check), wanted.backends, warnings, None, beside.counted(ends.rules))
        try:
            report, pending = _on_trial(targets, rtnetlink, confirm_within)
        finally:
            beside.restored(rtnetlink, singly)
        beside.tidy(rtnetlink, ends.rules)
        beside.forget_netfilter(wanted.counted, wanted.numbered)
        return Outcome(report, wanted.backends, warnings, pending, beside.counted(ends.rules))


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
        ends = beside.ends(rtnetlink, (), compiler.NOTHING, None, b"")
        singly = beside.offloads(rtnetlink, ())
        targets = [
            *beside.single(singly),
            *beside.iptables((), (), None, check),
            *beside.nftables((), (), None, check),
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
            beside.restored(rtnetlink, singly)
            beside.forget_netfilter((), ())
            beside.tidy(rtnetlink, ends.rules)
            guard.tidy()
            bytecode.forget()
            forget()
        return report


def _take_back(targets: Sequence[Target], states: Sequence[Any], rtnetlink: Socket) -> None:
    """In the guard's process, which is a copy of ours and has its socket."""
    try:
        revert(targets, states)
    except TestbedError:
        return  # nobody is left to tell; the next run finds what stands and converges it
    finally:
        beside.restored(rtnetlink, beside.offloads(rtnetlink, ()))


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
