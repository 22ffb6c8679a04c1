# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain bpf: a user's own program as a filter of an interface, with entries of its maps, and their pins.

The filter's name has a hash of the program. Another program takes the place of the one before in one message, and the
maps that mean the same to both stay, with what they hold.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ..converge import Step
from ..errors import InvalidInput, StepFailed, TestbedError
from ..netlink import (
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TCMSG,
    Message,
    Socket,
    attribute,
    attributes,
    integer,
    string,
    tc_header,
    tc_message,
    text,
    u32,
)
from ..tc.hooks import HANDLE, LEAVING, HooksDomain
from ..tc.kinds.bpf import ACT_DIRECT, CLASSID, FD, FLAGS, ID, NAME
from ..tc.model import INGRESS, INGRESS_FILTERS, INGRESS_HANDLE, handle_text
from ..tc.observe import Dump, read
from ..tc.steps import ADD, REPLACE, TCA_KIND, TCA_OPTIONS
from . import contents, files, syscall
from .asked import SHORT, Attached, Wanted, prefix
from .contents import Entry
from .elf import MapDefinition
from .pins import Pins
from .program import create, load

FILTER = 1  # the handle that the kernel gives the first filter of a priority


class State(NamedTuple):
    """`qdisc`: ingress or clsact, "" for none; `shared`: with filters that are not this program's; `pins`: ids of maps
    by their paths."""

    qdisc: str = ""
    shared: bool = False
    filters: tuple[Attached, ...] = ()
    entries: tuple[Entry, ...] = ()
    pins: tuple[tuple[str, int], ...] = ()


class _Found(NamedTuple):
    """A filter on the interface, of whatever kind."""

    kind: str
    attached: Attached
    program: int


class OwnDomain:
    """Observe, plan and apply the program of one name on one interface."""

    name = "bpf"

    def __init__(self, rtnetlink: Socket, interface: str, name: str) -> None:
        """Raises InvalidInput where the node has no such interface."""
        self._hooks = HooksDomain(rtnetlink, interface)
        self._index = socket.if_nametoindex(interface)
        self.interface = interface
        self._rtnetlink = rtnetlink
        self._prefix = prefix(name)
        self._pins = Pins(f"bpf-{interface}-{name}")
        self._programs: dict[str, int] = {}  # descriptors by label: of what stands, and of what was loaded
        self._files: dict[str, str] = {}  # what a step calls a label
        self._entries: tuple[Entry, ...] = ()
        self.maps: dict[str, int] = {}  # those of the program that is wanted, by their ids

    def claim(self, wanted: Wanted) -> None:
        """Raise TestbedError or InvalidInput where the program cannot stand where it has to."""
        place = wanted.attached
        if place.parent == LEAVING:
            self._hooks.claim_egress()
        dump, found = self._dump()
        if not place.at_ends:
            queues = [tc_header(body).handle for body in dump.qdiscs if tc_header(body).parent != INGRESS]
            classes = [tc_header(body).handle for body in dump.classes]
            _check_handle("parent", place.parent, queues + classes, f"{self.interface} has the handles")
            if place.target:
                _check_handle("flowid", place.target, classes, f"{self.interface} has the classes")
        others = [one for one in found if not self._ours(one) and _spot(one.attached) == _spot(place)]
        if others and not any(self._ours(one) and _spot(one.attached) == _spot(place) for one in found):
            raise TestbedError(
                f"priority: `filter {others[0].attached.place} {others[0].kind} {others[0].attached.label}".rstrip()
                + f"` of {self.interface} was not made by this task; choose another priority, or remove it"
            )

    def prepare(self, wanted: Wanted, given: Mapping[str, int] | None = None) -> State:
        """The state to converge to; the program is loaded, and what the verifier refuses has touched nothing.

        `given`: descriptors of maps that the caller has, and which the program is to use.
        Raises StepFailed with the verifier's last lines, MissingCapability, TestbedError for a pin that is not ours.
        """
        label = wanted.attached.label
        self._pins.want(wanted.pin, tuple(wanted.maps))
        standing = self.observe()
        old = self._old_maps()
        pinned = self._pins.maps()
        self._files[label] = f"object-file {wanted.file} section {wanted.section}"
        maps = {}
        for name, definition in wanted.maps.items():
            same = (given or {}).get(name)
            if same is None and label in self._programs:
                same = old.get(name[:SHORT])
            maps[name] = self._pins.keep(same if same is not None else _fitting(definition, pinned.get(name), old))
        self._pins.check(maps)
        if label not in self._programs:
            self._programs[label] = load(wanted.data, wanted.section, maps, wanted.file, wanted.function).descriptor
        self.maps = {name: syscall.map_info(one).id for name, one in maps.items()}
        self._entries = wanted.entries
        qdisc = standing.qdisc or "clsact" if wanted.attached.at_ends else self._without(standing)
        return State(qdisc, False, (wanted.attached,), wanted.entries, self._pins.of(self.maps))

    def descriptor(self, wanted: Wanted) -> int:
        """Of the program, once it was prepared."""
        return self._programs[wanted.attached.label]

    def absent(self) -> State:
        """Without the program, and without the qdisc where it was made by us."""
        return State(self._without(self.observe()))

    def observe(self) -> State:
        _dumped, found = self._dump()
        ours = [one for one in found if self._ours(one)]
        for one in ours:
            descriptor = files.held(one.program)
            if descriptor is not None:
                self._programs[one.attached.label] = descriptor
        shared = any(one.attached.at_ends and not self._ours(one) for one in found)
        filters = tuple(one.attached for one in ours)
        return State(self._qdisc(), shared, filters, tuple(map(self._looked_up, self._entries)), self._pins.observe())

    def plan(self, current: State, desired: State) -> list[Step]:
        steps = []
        if any(one.at_ends for one in desired.filters) and not current.qdisc:
            body = attribute(TCA_KIND, string("clsact"))
            message = tc_message(RTM_NEWQDISC, ADD, self._index, HANDLE, INGRESS, 0, body)
            steps.append(Step(f"tc qdisc add dev {self.interface} clsact", message))
        steps += [self._entry_step(entry) for entry in desired.entries if entry not in current.entries]
        pins = dict(current.pins)
        steps += [self._pins.step(*pin) for pin in desired.pins if pins.get(pin[0]) != pin[1]]
        spots = {_spot(one): one for one in current.filters}
        for wanted in desired.filters:
            if wanted not in current.filters:
                steps += self._placed(wanted, spots.get(_spot(wanted)))
        kept = {_spot(one) for one in desired.filters}
        steps += [self._deletion(one, retire=True) for one in current.filters if _spot(one) not in kept]
        steps += [self._pins.removal(path) for path in pins if path not in dict(desired.pins)]
        stays = desired.qdisc or current.shared or any(one.at_ends for one in desired.filters)
        if current.qdisc and not stays:
            message = tc_message(RTM_DELQDISC, 0, self._index, HANDLE, INGRESS)
            steps.append(Step(f"tc qdisc del dev {self.interface} {current.qdisc}", message, retire=True))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        self._hooks.note()
        for step in steps:
            if callable(step.payload):
                step.payload()
                continue
            for refusal in self._rtnetlink.send([step.payload]):
                raise StepFailed(step.command, refusal.reason)

    def forget(self) -> None:
        """What is gone needs not be remembered."""
        self._hooks.forget()
        self._pins.forget()

    def describe(self, state: State) -> list[str]:
        lines = [f"qdisc {state.qdisc} ffff: dev {self.interface} ingress"] if state.qdisc else []
        for one in state.filters:
            how = f" {one.how}".rstrip()
            lines.append(f"filter dev {self.interface} {one.place} handle {FILTER:#x} bpf {one.label}{how}")
        for entry in state.entries:
            if state.filters and entry.value is not None:  # else the map is a new one, and nobody's yet
                lines.append(f"map {entry.map} key {contents.text(entry.key)} value {contents.text(entry.value)}")
        return lines + [f"pin {path}" for path, _identity in state.pins]

    # what stands

    def _dump(self) -> tuple[Dump, list[_Found]]:
        """All of the interface, and its filters (the kernel also lists priorities, without a handle)."""
        dump = read(self._rtnetlink, self._index)
        return dump, [_found(body) for body in dump.filters if tc_header(body).handle]

    def _ours(self, found: _Found) -> bool:
        return found.kind == "bpf" and found.attached.label.startswith(self._prefix)

    def _qdisc(self) -> str:
        return self._hooks.observe().kind

    def _without(self, standing: State) -> str:
        """The qdisc that is to stay when the program is not at an end of the interface any more."""
        return standing.qdisc if self._hooks.before().kind else ""

    def _old_maps(self) -> dict[str, int]:
        """Maps of the program that stands, by the names that the kernel kept of them."""
        found: dict[str, int] = {}
        for descriptor in self._programs.values():
            found.update(files.maps_of(syscall.program_info(descriptor).id))
        return found

    def _looked_up(self, entry: Entry) -> Entry:
        descriptor = self._pins.held[self.maps[entry.map]]
        return entry._replace(value=syscall.lookup(descriptor, entry.key, syscall.map_info(descriptor).value_size))

    # steps

    def _entry_step(self, entry: Entry) -> Step:
        identity = self.maps[entry.map]
        descriptor = self._pins.held[identity]
        key = contents.text(entry.key)
        if entry.value is None:
            return Step(
                f"bpftool map delete id {identity} key {key}  # {entry.map}",
                partial(syscall.delete, descriptor, entry.key),
            )
        words = f"bpftool map update id {identity} key {key} value {contents.text(entry.value)}  # {entry.map}"
        return Step(words, partial(syscall.update, descriptor, entry.key, entry.value))

    def _placed(self, wanted: Attached, there: Attached | None) -> list[Step]:
        """The filter where none of ours is, or in its place: a priority has one protocol."""
        if there and there.protocol != wanted.protocol:
            caution = "disruptive: packets pass the program by until the next step"
            return [self._deletion(there, caution=caution), self._addition("add", ADD, 0, wanted)]
        return [
            self._addition("replace", REPLACE, FILTER, wanted) if there else self._addition("add", ADD, FILTER, wanted)
        ]

    def _addition(self, verb: str, flags: int, handle: int, wanted: Attached) -> Step:
        options = attribute(CLASSID, u32(wanted.target)) if wanted.target else b""
        options += attribute(FD, u32(self._programs[wanted.label])) + attribute(NAME, string(wanted.label))
        options += attribute(FLAGS, u32(ACT_DIRECT)) if wanted.direct else b""
        words = f"bpf {self._files.get(wanted.label, wanted.label)} {wanted.how}".rstrip()
        return Step(
            f"tc filter {verb} dev {self.interface} {wanted.place} {words}",
            self._message(RTM_NEWTFILTER, flags, handle, wanted, attribute(TCA_OPTIONS, options)),
        )

    def _deletion(self, one: Attached, retire: bool = False, caution: str = "") -> Step:
        words = f"tc filter del dev {self.interface} {one.place} handle {FILTER:#x} bpf"
        return Step(words, self._message(RTM_DELTFILTER, 0, FILTER, one), retire, caution)

    def _message(self, kind: int, flags: int, handle: int, one: Attached, options: bytes = b"") -> Message:
        info = one.priority << 16 | socket.htons(one.protocol)
        body = attribute(TCA_KIND, string("bpf")) + options
        return tc_message(kind, flags, self._index, handle, one.parent, info, body)


def _fitting(definition: MapDefinition, pinned: int | None, old: dict[str, int]) -> int:
    """A map that is there and means the same, else a new one."""
    for descriptor in (pinned, old.get(definition.name[:SHORT])):
        if descriptor is not None:
            info = syscall.map_info(descriptor)
            facts = (info.type, info.key_size, info.value_size, info.max_entries, info.flags)
            if facts == definition[1:6]:
                return descriptor
    return create(definition)


def _spot(one: Attached) -> tuple[int, int]:
    return one.parent, one.priority


def _check_handle(path: str, handle: int, known: Sequence[int], there: str) -> None:
    if handle not in known:
        names = ", ".join(map(handle_text, known)) or "(none)"
        raise InvalidInput(path, handle_text(handle), f"{there} {names}")


def _found(body: bytes) -> _Found:
    header, parts = tc_header(body), attributes(body, TCMSG.size)
    kind = text(parts[TCA_KIND])
    options = attributes(parts.get(TCA_OPTIONS, b"")) if kind == "bpf" else {}
    attached = Attached(
        INGRESS_FILTERS if header.parent == INGRESS_HANDLE else header.parent,
        header.info >> 16,
        socket.ntohs(header.info & 0xFFFF),
        integer(options.get(CLASSID, b"")),
        bool(integer(options.get(FLAGS, b"")) & ACT_DIRECT),
        text(options.get(NAME, b"")),
    )
    return _Found(kind, attached, integer(options.get(ID, b"")))
