# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is asked and what the kernel can do to one state per domain. Knows no kernel call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .. import units
from ..errors import InvalidInput, MissingCapability
from ..tc.actions import OURS, DropEvery
from ..tc.kinds.filters import Action
from ..tc.model import Tree
from . import shape, statistic
from .classify import Rule, check, filters, rules
from .match import Match
from .model import Interface, TrafficClass
from .packets import Packets

DROP_BACKENDS = {
    "gact": "counts exactly, every packet that the class's filters take",
    "iptables": "statistic nth: for a place that gact cannot drop at, or a kernel without CONFIG_GACT_PROB",
}


class Node(NamedTuple):
    """What has to be known about the node: its capabilities, its bridges, its memory."""

    capable: Mapping[str, bool | str]
    bridges: Mapping[str, str]  # a bridge port's bridge
    memory: int  # bytes

    @property
    def other_ports(self) -> dict[str, list[str]]:
        """For each port of a bridge, the other ports of the same bridge."""
        return {
            port: [other for other, beside in self.bridges.items() if beside == bridge and other != port]
            for port, bridge in self.bridges.items()
        }

    def can(self, name: str) -> bool:
        return self.capable[name] is True


class Compiled(NamedTuple):
    """Wanted states, and what the user is told about them."""

    trees: dict[str, Tree]  # by the device where it stands: an interface, or the IFB of one
    actions: tuple[DropEvery, ...]
    counted: list[Interface]  # of which a class drops by iptables
    backends: list[dict[str, str]]
    warnings: list[str]


def compile_node(asked: Sequence[Interface], passing: Sequence[Match], node: Node) -> Compiled:
    """All interfaces of a node. `passing` goes unimpaired everywhere.

    Raises MissingCapability where the kernel cannot carry what is asked, InvalidInput where the node has no such place.
    """
    _check_capabilities(asked, node)
    indices = _indices((interface, entry) for interface in asked for entry in interface.classes)
    trees, backends, warnings = {}, [], []
    for interface in asked:
        tree, told, warned = _interface(interface, passing, node, indices)
        trees[interface.device] = tree
        backends += told
        warnings += warned
    actions = tuple(
        sorted(
            {
                DropEvery(indices[interface.device, entry.name], entry.impairment.drop.every)
                for interface in asked
                for entry in interface.classes
                if entry.impairment.drop and _drop_backend(entry, node) == "gact"
            }
        )
    )
    counted = [
        interface for interface in asked if any(_drop_backend(entry, node) == "iptables" for entry in interface.classes)
    ]
    return Compiled(trees, actions, counted, backends, warnings)


def _drop_backend(entry: TrafficClass, node: Node) -> str:
    """gact counts every packet, so it comes first; it drops the last of each group only. "" when nothing is dropped."""
    drop = entry.impairment.drop
    if not drop or not entry.impairment.enabled:
        return ""
    return "gact" if node.can("action.gact_determ") and drop.packet == drop.every - 1 else "iptables"


def _check_capabilities(asked: Sequence[Interface], node: Node) -> None:
    for feature in ("qdisc.htb", "filter.u32", "filter.u32_indev"):
        if asked and not node.can(feature):
            raise MissingCapability("impairing an interface", str(node.capable[feature]))
    arriving = next((interface for interface in asked if interface.direction == "ingress"), None)
    for feature in ("link.ifb", "action.mirred", "qdisc.ingress"):
        if arriving and not node.can(feature):
            raise MissingCapability(f"{arriving.path}.direction", str(node.capable[feature]))
    for interface in asked:
        for entry in interface.classes:
            _check_class(interface, entry, node)


def _check_class(interface: Interface, entry: TrafficClass, node: Node) -> None:
    asked = entry.impairment
    emulated = shape.needs_netem(asked)
    if emulated and not node.can("qdisc.netem"):
        raise MissingCapability(f"{entry.path}.{emulated[0]}", str(node.capable["qdisc.netem"]))
    if asked.netem.seed is not None and asked.enabled and not node.can("netem.seed"):
        raise MissingCapability(f"{entry.path}.seed", str(node.capable["netem.seed"]))
    below = shape.waiting(asked) if asked.enabled else None
    if below and not node.can(f"qdisc.{below.kind}"):
        raise MissingCapability(f"{entry.path}.discipline", str(node.capable[f"qdisc.{below.kind}"]))
    if below and emulated and not node.can("netem.child"):
        key = "discipline" if asked.discipline else "queue"
        raise MissingCapability(f"{entry.path}.{key} with {emulated[0]}", str(node.capable["netem.child"]))
    if asked.netem.duplicate.probability and asked.enabled and len(interface.classes) > 1:
        raise InvalidInput(
            f"{entry.path}.duplicate",
            units.percent_text(asked.netem.duplicate.probability),
            "the kernel refuses a duplicating netem beside the other classes' netem; "
            "duplicate on an interface without classes",
        )
    if _drop_backend(entry, node) == "iptables":
        _check_counter(interface, entry, node)
    if _drop_backend(entry, node) == "iptables":
        if not any(node.can(f"iptables.{variant}.statistic") for variant in ("nft", "legacy")):
            missing = f"{node.capable['action.gact_determ']}, or CONFIG_NETFILTER_XT_MATCH_STATISTIC"
            raise MissingCapability(f"{entry.path}.drop", missing)
        statistic.check(interface, node.bridges)


def _check_counter(interface: Interface, entry: TrafficClass, node: Node) -> None:
    """Refuse what only gact counts: what arrives, and several interfaces together."""
    drop = entry.impairment.drop
    if not drop or not (drop.across or interface.direction == "ingress"):
        return
    if not node.can("action.gact_determ"):
        raise MissingCapability(f"{entry.path}.drop", str(node.capable["action.gact_determ"]))
    what = "what several interfaces share" if drop.across else "what arrives"
    allowed = f"{what} is counted by gact, which drops the last of each group only; leave packet out"
    raise InvalidInput(f"{entry.path}.drop.packet", drop.packet, allowed)


def _indices(classes: Iterable[tuple[Interface, TrafficClass]]) -> dict[tuple[str, str], int]:
    """The index of each class's gact action: a hash of what counts with it, or the next free one."""
    found: dict[tuple[str, str], int] = {}
    taken: dict[int, str] = {}
    for interface, entry in classes:
        drop = entry.impairment.drop
        if not drop:
            continue
        counter = f"{interface.device}\0{entry.name}"
        if drop.across:
            counter = "\0".join((*drop.across, interface.direction, entry.name))
        digest = hashlib.sha256(counter.encode()).digest()
        index = OURS | int.from_bytes(digest[:2], "big")
        while taken.setdefault(index, counter) != counter:
            index = OURS | (index + 1) & 0xFFFF
        found[interface.device, entry.name] = index
    return found


def _interface(
    interface: Interface, passing: Sequence[Match], node: Node, indices: Mapping[tuple[str, str], int]
) -> tuple[Tree, list[dict[str, str]], list[str]]:
    minors = shape.minors(entry.name for entry in interface.classes)
    qdiscs, classes = [shape.root()], list(shape.frame())
    for match in passing:
        check(match, node.capable)
    found = [rule for match in passing for rule in rules(match, node.other_ports, interface.name, shape.PASS)]
    backends: list[dict[str, str]] = []
    warnings: list[str] = []
    rest: tuple[int, tuple[Action, ...]] = (shape.PASS, ())
    for entry in interface.classes:
        minor = minors[entry.name]
        made = shape.branch(minor, entry, node.can("qdisc.netem"), node.can("netem.child"), node.memory)
        classes.append(made.entry)
        qdiscs += made.queues
        actions = _actions(entry, indices, interface, node)
        for match in entry.matches:
            check(match, node.capable)
            found += rules(match, node.other_ports, interface.name, made.entry.handle, actions)
        if not entry.matches:
            rest = (made.entry.handle, actions)
        backends += _told(interface, entry, _drop_backend(entry, node), made.computed)
        warnings += _warned(entry, node)
    found.append(Rule(Packets(), "", *rest))
    placed = filters(found, shape.ROOT_HANDLE, node.can("filter.flower"), f"{interface.path}.classes")
    return Tree(tuple(qdiscs), tuple(classes), tuple(placed)), backends, warnings


def _actions(
    entry: TrafficClass, indices: Mapping[tuple[str, str], int], interface: Interface, node: Node
) -> tuple[Action, ...]:
    return (Action("gact", indices[interface.device, entry.name]),) if _drop_backend(entry, node) == "gact" else ()


def _told(
    interface: Interface, entry: TrafficClass, dropping: str, computed: Sequence[shape.Computed]
) -> list[dict[str, str]]:
    """Which mechanism carries what, and why; and the values that we computed."""
    asked = entry.impairment
    place = {"interface": interface.name, "direction": interface.direction, "class": entry.name}
    if not asked.enabled:
        return [
            {
                **place,
                "impairment": "none",
                "backend": "none",
                "why": "enabled is false: the definition is kept, its effect lifted",
            }
        ]
    told = []
    if asked.rate:
        told.append(
            {
                **place,
                "impairment": "rate",
                "backend": "htb",
                "why": "shapes, and lets ceil borrow from the wrapping class",
            }
        )
    below = shape.waiting(asked)
    if below:
        name = "discipline" if asked.discipline else "queue"
        why = "holds what waits for the rate, and nothing else"
        told.append({**place, "impairment": name, "backend": below.kind, "why": why})
    for name in shape.needs_netem(asked):
        told.append({**place, "impairment": name, "backend": "netem", "why": "the leaf of the class"})
    if dropping:
        told.append({**place, "impairment": "drop", "backend": dropping, "why": DROP_BACKENDS[dropping]})
    told += [
        {**place, "impairment": value.name, "backend": "computed", "why": f"{value.value}: {value.why}"}
        for value in computed
    ]
    return told


def _warned(entry: TrafficClass, node: Node) -> list[str]:
    asked = entry.impairment
    warnings = []
    if _drop_backend(entry, node) == "iptables":
        warnings.append(f"{entry.path}.{statistic.COUNTS_APART}")
    if shape.loses_superpackets(asked):
        warnings.append(
            f"{entry.path}.queue: packets that TSO or GRO gathered come as one of up to 64 KiB, and a smaller buffer "
            "loses them whole; switch these offloads off"
        )
    if asked.enabled and asked.netem.jitter and asked.keep_order:
        warnings.append(
            f"{entry.path}.jitter: keeping the order shifts the delay upwards; "
            "keep_order: false gives the plain distribution, and reordering"
        )
    if asked.enabled and asked.burst and asked.rate and asked.burst < asked.rate // 1000:
        warnings.append(f"{entry.path}.burst: less than 1 ms at the rate; the rate may not be reached")
    return warnings
