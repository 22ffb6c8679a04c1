# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain tc: one interface's qdiscs, classes and filters."""

from __future__ import annotations

import operator
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..converge import Step
from ..errors import Disruptive, ForeignState, InvalidInput, TestbedError
from ..memory import Memory
from ..namespace import number
from ..netlink import RTM_GETQDISC, Socket, queue_of, tc_header, tc_message
from . import observe
from .apply import apply
from .kinds.table import lookup
from .model import BOTH, ROOT, Class, Filter, Qdisc, Raw, Tree, handle_text, parent_text, protocol_text
from .observe import Dump
from .plan import plan
from .steps import Device, filter_handle_text, rendered

if TYPE_CHECKING:
    from .kinds.netem_options import Distribution, Netem


class TcDomain:
    """Observe, plan and apply on one interface. Its first write remembers what stood before.

    An interface has two sides: the tree of queues below its root, and its ingress or clsact qdisc. The domain sees,
    and so touches, a side only where a claimed tree holds something on it, or where it was written to before.
    """

    name = "tc"

    def __init__(
        self,
        rtnetlink: Socket,
        interface: str,
        path: str = "interface",
        memory: Memory | None = None,
        index: int | None = None,
    ) -> None:
        """`index`: of an interface that is still to be made.

        Raises InvalidInput, naming `path`, where the node has no such interface.
        """
        try:
            self._device = Device(interface, socket.if_nametoindex(interface) if index is None else index)
        except (OSError, ValueError):
            present = ", ".join(sorted(name for _index, name in socket.if_nameindex()))
            raise InvalidInput(path, interface, f"this node has the interfaces {present}") from None
        self.interface = interface
        self._rtnetlink = rtnetlink
        self._memory = memory or Memory()
        self._key = f"tc-{interface}"
        self._claimed: frozenset[int] = frozenset()
        self._seen: Tree | None = None  # what claim() read: a run starts from what it was allowed to change
        self._tables: dict[str, str] = {}  # numbers of users' own distributions that were asked for

    def observe(self) -> Tree:
        seen, self._seen = self._seen, None
        if seen is not None:
            return seen
        sides = self._claimed | self._written() or frozenset({ROOT})
        return observe.decode(observe.read(self._rtnetlink, self._device.index, sides))

    def plan(self, current: Tree, desired: Tree) -> list[Step]:
        return plan(self._device, current, self._settled(self._with_tables(desired)))

    def _with_tables(self, desired: Tree) -> Tree:
        """The wanted tree; tables of distributions, of which the kernel shows the identity alone, from memory."""
        own = [qdisc for qdisc in desired.qdiscs if qdisc.kind == "netem" and _own_tables(qdisc.options)]
        if not own:
            return desired
        kept = {**self._tables, **(self._record() or {}).get("tables", {})}
        for qdisc in own:
            self._tables |= {found.text: found.table.hex() for found in _own_tables(qdisc.options) if found.table}

        def filled(found: Distribution) -> Distribution:
            return found if found.table else found._replace(table=bytes.fromhex(kept.get(found.text, "")))

        def with_tables(qdisc: Qdisc) -> Qdisc:
            if qdisc not in own:
                return qdisc
            options, slot = qdisc.options, qdisc.options.slot
            options = options._replace(distribution=filled(options.distribution))
            return qdisc._replace(options=options._replace(slot=slot._replace(distribution=filled(slot.distribution))))

        return desired._replace(qdiscs=tuple(map(with_tables, desired.qdiscs)))

    def _settled(self, desired: Tree) -> Tree:
        """The wanted tree with the values that the kernel takes from this interface, such as the limits of fifos."""
        kinds = {kind: lookup("qdisc", kind) for kind in {qdisc.kind for qdisc in desired.qdiscs}}
        settle = {name: kind.settle for name, kind in kinds.items() if kind}
        if not any(settle.values()):
            return desired
        of_interface = self._queue()

        def settled(qdisc: Qdisc) -> Qdisc:
            fill = settle.get(qdisc.kind)
            if fill is None or isinstance(qdisc.options, Raw):
                return qdisc
            return qdisc._replace(options=fill(qdisc.options, *of_interface))

        return desired._replace(qdiscs=tuple(map(settled, desired.qdiscs)))

    def _queue(self) -> tuple[int, int]:
        """(queue length in packets, bytes of the longest packet) of the interface."""
        return queue_of(self._rtnetlink, self._device.index)

    def apply(self, steps: Sequence[Step]) -> None:
        known = self._written()
        new = (self._claimed - known) if self._claimed or known else frozenset({ROOT})
        if new or self._tables.keys() - (self._record() or {}).get("tables", {}).keys():
            dump = observe.read(self._rtnetlink, self._device.index, new) if new else Dump()
            self._remember(known | new, *(map(operator.add, self._dump(known), dump)))
        apply(self._rtnetlink, steps)

    def _remember(self, sides: frozenset[int], *before: tuple[bytes, ...]) -> None:
        """Replaces a record of fewer sides, or of an interface that had this name before."""
        parts = {part: [body.hex() for body in bodies] for part, bodies in Dump(*before)._asdict().items()}
        tables = {**(self._record() or {}).get("tables", {}), **self._tables}
        record = {**self._identity(), "sides": sorted(sides), "before": parts}
        if tables:
            record["tables"] = tables
        self._memory.remember(self._key, record, renew=True)

    def _dump(self, sides: frozenset[int]) -> Dump:
        """What is remembered of these sides."""
        if not sides:
            return Dump()
        dump = {part: tuple(map(bytes.fromhex, bodies)) for part, bodies in self._record()["before"].items()}
        return observe.restricted(Dump(**dump), sides)

    def _written(self) -> frozenset[int]:
        """The sides that we wrote to."""
        record = self._record()
        return frozenset(record.get("sides", (ROOT,))) if record else frozenset()

    def _identity(self) -> dict[str, int]:
        """What tells this interface from a later one of its name, or from one in another namespace."""
        return {"ifindex": self._device.index, "namespace": number()}

    def _record(self) -> Any:
        """What is remembered of this very interface, or None."""
        record = self._memory.recall(self._key)
        return record if record and self._identity().items() <= record.items() else None

    def describe(self, state: Tree) -> list[str]:
        return describe(self._device.name, state)

    def vet(self, _states: Sequence[Any], steps: Sequence[Step]) -> None:
        """Raise Disruptive where a step would lose packets of a tree that is ours; a first takeover is asked for."""
        lost = [str(step) for step in steps if step.disruptive]
        if lost and self.touched():
            raise Disruptive(lost, observe.waiting(self._rtnetlink, self._device.index), self.interface)

    def touched(self) -> bool:
        """Whether we wrote to this interface and have not given back what stood before."""
        return self._record() is not None

    def before(self) -> Tree:
        """What stood before our first write; nothing when we never wrote, or when the interface is a new one."""
        return observe.decode(self._dump(self._written()))

    def _check_can_be_given_back(self, tree: Tree) -> None:
        """Filters of unknown kinds refuse parts of their own dumps, or name programs that go with them.

        An action that was made with its filter goes with it too, unless all of it is known.
        """
        lost = sorted({name for entry in tree.filters for name in _unknown(entry)})
        if lost:
            raise TestbedError(
                f"{_place(tree)} of {self.interface} holds filters {' and '.join(lost)}, which could not be "
                "given back by clear; remove them to have it replaced"
            )

    def forget(self) -> None:
        """Once what stood before stands again there is nothing to remember."""
        self._memory.forget(self._key)

    def release(self, sides: frozenset[int] = BOTH) -> None:
        """Forget those of these sides where what stood before us stands again: what comes to stand there is not ours.

        A run that was rolled back leaves such sides, and one whose tree gives a side up.
        """
        written = self._written()
        if not written & sides:
            return
        before, now = self.before(), self.observe()
        alone = {side: frozenset({side}) for side in written & sides}
        restored = {side for side, it in alone.items() if not self.plan(now.only(it), before.only(it))}
        left = written - restored
        if not left:
            self.forget()
        elif left != written:
            self._remember(left, *self._dump(left))

    def claim(self, desired: Tree, owned: int | None, purge: bool) -> None:
        """Raise ForeignState unless what stands where the tree goes is the kernel's, ours, as wanted, or may go.

        Ours has the handle `owned`, or stands where we remember what was before.
        """
        self._claimed = desired.sides
        self._seen = None
        current, written = self.observe(), self._written()
        for side in sorted(desired.sides, reverse=True):
            alone = frozenset({side})
            if side in written and current.only(alone) != self.before().only(alone):
                continue
            self._claim(current.only(alone), desired.only(alone), owned, purge)
        self._seen = current

    def _claim(self, current: Tree, desired: Tree, owned: int | None, purge: bool) -> None:
        top = current.root or current.ingress
        if top is None or top.handle == owned or not self.plan(current, desired):
            return
        if current.ingress and not current.filters:
            return  # it does nothing, and is given back
        if purge:
            self._check_can_be_given_back(current)
            return
        raise ForeignState(f"{_place(current)} of {self._device.name}", f"qdisc {top.kind} {handle_text(top.handle)}")


def interfaces_with_root(rtnetlink: Socket, handle: int) -> list[str]:
    """Names of the interfaces whose egress root has this handle."""
    roots = (tc_header(body) for body in rtnetlink.dump(tc_message(RTM_GETQDISC, 0, 0, 0, 0)))
    return sorted(
        socket.if_indextoname(root.ifindex) for root in roots if root.parent == ROOT and root.handle == handle
    )


def forget_restored(rtnetlink: Socket) -> None:
    """Drop what is remembered of interfaces where it stands again: after clear, a roll-back, a run that was killed."""
    memory = Memory()
    for key in memory.keys("tc-"):
        try:
            domain = TcDomain(rtnetlink, key.removeprefix("tc-"))
        except InvalidInput:
            if memory.recall(key)["namespace"] == number():  # unplugged, and its trees with it
                memory.forget(key)
            continue
        if domain.touched():
            domain.release()


def _unknown(entry: Filter) -> list[str]:
    """What of a filter this collection cannot make."""
    if isinstance(entry.options, Raw):
        return [f"of kind {entry.kind}"]
    if getattr(entry.options, "program", 0):  # it goes with its last filter
        return [f"with the program {entry.options.name}"]
    return [f"with the action {action.kind}" for action in entry.options.actions if isinstance(action.options, Raw)]


def _own_tables(options: Netem) -> list[Distribution]:
    """The distributions of a netem that are a user's own."""
    return [found for found in (options.distribution, options.slot.distribution) if found.name == "table"]


def _place(tree: Tree) -> str:
    return "ingress" if tree.ingress else "the root"


def describe(interface: str, tree: Tree) -> list[str]:
    """The tree in tc's words, a line an entry."""

    def qdisc(entry: Qdisc) -> str:
        kind, _space, options = rendered("qdisc", entry).partition(" ")
        return f"qdisc {kind} {handle_text(entry.handle)} dev {interface} {parent_text(entry.parent)} {options}"

    def filter_(entry: Filter) -> str:
        place = f"{parent_text(entry.parent)} protocol {protocol_text(entry.protocol)} prio {entry.priority}"
        return f"filter dev {interface} {place} handle {filter_handle_text(entry)} {rendered('filter', entry)}"

    def class_(entry: Class) -> str:
        kind, _space, options = rendered("class", entry).partition(" ")
        return f"class {kind} {handle_text(entry.handle)} dev {interface} {parent_text(entry.parent)} {options}"

    lines = [*map(qdisc, tree.qdiscs), *map(class_, tree.classes), *map(filter_, tree.filters)]
    return [line.rstrip() for line in lines]
