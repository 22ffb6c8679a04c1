# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which mechanism of the kernel carries what is asked, and why; or what the kernel lacks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import units
from ..errors import InvalidInput, MissingCapability, TestbedError
from ..node import Link
from ..tc.kinds.netem import Chance
from . import shape
from .faults import BACKENDS, Choice, Drop
from .model import Impairment, Interface, TrafficClass

WHY = {
    "bpf": "a program where packets leave, before any queue; counts exactly, on all processors together",
    "gact": "counts exactly, every packet that the class's filters take",
    "nft": "numgen where the bridge forwards, every family's frames; neither BPF, nor gact for this place in the group",
    "iptables": "statistic nth: neither BPF, nor gact for this place in the group, nor nftables here",
}


class Node(NamedTuple):
    """What has to be known about the node: its capabilities, interfaces and memory, and its program."""

    capable: Mapping[str, bool | str]
    links: Mapping[str, Link]  # by their names
    memory: int  # bytes
    no_program: str = "a compiled BPF program"  # why there is none for this node, "" where there is one

    @property
    def bridges(self) -> dict[str, str]:
        """A bridge port's bridge."""
        return {name: link.bridge for name, link in self.links.items() if link.bridge}

    @property
    def other_ports(self) -> dict[str, list[str]]:
        """For each port of a bridge, the other ports of the same bridge."""
        bridges = self.bridges
        return {
            port: [other for other, beside in bridges.items() if beside == bridge and other != port]
            for port, bridge in bridges.items()
        }

    def can(self, name: str) -> bool:
        return self.capable[name] is True

    def lacks_program(self, interface: str) -> str:
        """What is missing for a BPF program at an interface, "" for nothing."""
        if interface in self.links and not self.links[interface].ethernet:
            return f"an Ethernet device, whose frames a BPF program can read ({interface} is none)"
        for feature in ("bpf.program", "qdisc.clsact"):
            if not self.can(feature):
                return str(self.capable[feature])
        return self.no_program


def assign(interface: Interface, node: Node) -> Interface:
    """The interface with each fault where it is carried: a drop says its backend, netem's share is netem's.

    Raises MissingCapability where the kernel cannot carry what is asked, InvalidInput where no backend can.
    """
    _check_interface(interface, node)
    classes = []
    for entry in interface.classes:
        if not entry.impairment.enabled:
            classes.append(entry._replace(impairment=Impairment(enabled=False)))
            continue
        entry = entry._replace(impairment=_moved(entry, interface, node))
        if drop := entry.impairment.drop:
            drop = drop._replace(backend=_drop_backend(drop, entry, interface, node))
            entry = entry._replace(impairment=entry.impairment._replace(drop=drop))
        _check_class(interface, entry, node)
        classes.append(entry)
    assigned = interface._replace(classes=tuple(classes))
    used = {entry.impairment.drop.backend for entry in classes if entry.impairment.drop}
    if "nft" in used:
        from . import numgen

        numgen.check(only(assigned, "nft"), node.bridges)
    if "iptables" in used:
        from . import statistic

        statistic.check(only(assigned, "iptables"), node.bridges)
    return assigned


def only(interface: Interface, backend: str) -> Interface:
    """The interface with those drops only that a backend carries."""
    kept = []
    for entry in interface.classes:
        drop = entry.impairment.drop
        if drop and drop.backend != backend:
            entry = entry._replace(impairment=entry.impairment._replace(drop=None))
        kept.append(entry)
    return interface._replace(classes=tuple(kept))


def by_program(asked: Impairment) -> list[str]:
    """Which of the assigned faults a BPF program carries."""
    names = ["drop"] if asked.drop and asked.drop.backend == "bpf" else []
    return names + [name for name in ("corrupt", "duplicate", "set_mark") if getattr(asked, name)]


def _moved(entry: TrafficClass, interface: Interface, node: Node) -> Impairment:
    """Netem's duplicates beside other classes, and its loss where there is no netem, are the program's work.

    The kernel refuses a duplicating netem beside any other (net/sched/sch_netem.c, check_netem_in_tree).
    """
    asked = entry.impairment
    missing = node.lacks_program(interface.name)
    if len(interface.classes) > 1 and asked.netem.duplicate.probability:
        if missing or asked.netem.duplicate.correlation:
            raise InvalidInput(
                f"{entry.path}.duplicate",
                units.percent_text(asked.netem.duplicate.probability),
                "the kernel refuses a duplicating netem beside the other classes' netem; duplicate on an interface "
                f"without classes, or without correlation on a node with {missing or 'BPF'}",
            )
        choice = Choice(chance=Chance(asked.netem.duplicate.probability), seed=asked.netem.seed)
        asked = asked._replace(duplicate=choice, netem=asked.netem._replace(duplicate=Chance()))
    loss = asked.netem.loss
    alone = not asked.drop and not asked.netem.ecn and not (isinstance(loss, Chance) and loss.correlation)
    if loss != Chance() and alone and not node.can("qdisc.netem") and not missing:
        drop = Drop(Choice(chance=loss, seed=asked.netem.seed))
        asked = asked._replace(drop=drop, netem=asked.netem._replace(loss=Chance(), seed=None))
    return asked


def _drop_backend(drop: Drop, entry: TrafficClass, interface: Interface, node: Node) -> str:
    """The first that can: a program counts best, gact counts every packet too; iptables is the last resort."""
    refusals: list[TestbedError] = []
    for backend in [drop.backend] if drop.backend else BACKENDS:
        refusal = _refusal(backend, drop, entry, interface, node)
        if refusal is None:
            return backend
        refusals.append(refusal)
    told = 0 if drop.backend or not drop.choice.every else 1 if drop.across or interface.direction == "ingress" else -1
    raise refusals[told]


def _refusal(backend: str, drop: Drop, entry: TrafficClass, interface: Interface, node: Node) -> TestbedError | None:
    """Why a backend cannot carry a drop."""
    path = f"{entry.path}.drop"
    if backend == "bpf":
        missing = node.lacks_program(interface.name)
        return MissingCapability(path, missing) if missing else None
    if not drop.choice.every:
        return InvalidInput(
            f"{path}.backend", backend, "it counts every nth packet only; patterns and chance are bpf's"
        )
    if backend == "gact":
        if not node.can("action.gact_determ"):
            return MissingCapability(path, str(node.capable["action.gact_determ"]))
        if drop.choice.last_of_each:
            return None
        shared = "what several interfaces share is" if drop.across else ""
        what = shared or ("what arrives is" if interface.direction == "ingress" else "this is")
        allowed = f"{what} counted by gact, which drops the last of each group only; leave packet out"
        return InvalidInput(f"{path}.packet", drop.choice.packet, allowed)
    if drop.across or interface.direction == "ingress":
        what = "several interfaces together" if drop.across else "what arrives"
        return InvalidInput(f"{path}.backend", backend, f"{backend} cannot count {what} here; use bpf or gact")
    if backend == "nft":
        if not node.can("nft.bridge"):
            return MissingCapability(path, str(node.capable["nft.bridge"]))
        if not drop.backend:
            return _not_by_nft(entry, interface, node)
        return None
    if not any(node.can(f"iptables.{variant}.statistic") for variant in ("nft", "legacy")):
        missing = f"{node.capable['action.gact_determ']}, or CONFIG_NETFILTER_XT_MATCH_STATISTIC"
        return MissingCapability(path, missing)
    return None


def _not_by_nft(entry: TrafficClass, interface: Interface, node: Node) -> TestbedError | None:
    """What nftables would be refused for, where iptables may do."""
    from . import numgen

    try:
        numgen.check(interface._replace(classes=(entry,)), node.bridges)
    except InvalidInput as error:
        return error
    return None


def _check_interface(interface: Interface, node: Node) -> None:
    for feature in ("qdisc.htb", "filter.u32", "filter.u32_indev"):
        if not node.can(feature):
            raise MissingCapability("impairing an interface", str(node.capable[feature]))
    if interface.direction == "ingress":
        for feature in ("link.ifb", "action.mirred", "qdisc.ingress"):
            if not node.can(feature):
                raise MissingCapability(f"{interface.path}.direction", str(node.capable[feature]))


def _check_class(interface: Interface, entry: TrafficClass, node: Node) -> None:
    asked = entry.impairment
    emulated = shape.needs_netem(asked)
    if emulated and not node.can("qdisc.netem"):
        raise MissingCapability(f"{entry.path}.{emulated[0]}", str(node.capable["qdisc.netem"]))
    if asked.netem.seed is not None and not node.can("netem.seed"):
        raise MissingCapability(f"{entry.path}.seed", str(node.capable["netem.seed"]))
    below = shape.waiting(asked)
    if below and not node.can(f"qdisc.{below.kind}"):
        raise MissingCapability(f"{entry.path}.discipline", str(node.capable[f"qdisc.{below.kind}"]))
    if below and emulated and not node.can("netem.child"):
        key = "discipline" if asked.discipline else "queue"
        raise MissingCapability(f"{entry.path}.{key} with {emulated[0]}", str(node.capable["netem.child"]))
    for fault in by_program(asked):
        if missing := node.lacks_program(interface.name):
            raise MissingCapability(f"{entry.path}.{fault}", missing)


def told(interface: Interface, entry: TrafficClass, computed: Sequence[shape.Computed]) -> list[dict[str, str]]:
    """Which mechanism carries what, and why; and the values that we computed."""
    asked = entry.impairment
    place = {"interface": interface.name, "direction": interface.direction, "class": entry.name}

    def one(impairment: str, backend: str, why: str) -> dict[str, str]:
        return {**place, "impairment": impairment, "backend": backend, "why": why}

    if not asked.enabled:
        return [one("none", "none", "enabled is false: the definition is kept, its effect lifted")]
    found = []
    if asked.rate:
        found.append(one("rate", "htb", "shapes, and lets ceil borrow from the wrapping class"))
    if below := shape.waiting(asked):
        name = "discipline" if asked.discipline else "queue"
        found.append(one(name, below.kind, "holds what waits for the rate, and nothing else"))
    found += [one(name, "netem", "the leaf of the class") for name in shape.needs_netem(asked)]
    if asked.drop:
        found.append(one("drop", asked.drop.backend, WHY[asked.drop.backend]))
    found += [one(name, "bpf", WHY["bpf"]) for name in by_program(asked) if name != "drop"]
    return found + [one(value.name, "computed", f"{value.value}: {value.why}") for value in computed]


def classification(interface: Interface, why: str) -> dict[str, str]:
    """What is told where a program tells the classes too."""
    place = {"interface": interface.name, "direction": interface.direction, "class": ""}
    return {**place, "impairment": "match", "backend": "bpf", "why": f"the kernel's filters cannot: {why}"}
