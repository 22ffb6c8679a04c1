# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain offloads: no superpackets where single packets are to suffer something.

Whoever hands packets to an impaired interface sends them one by one: `gso_max_segs 1`. The kernel then splits what is
gathered before it reaches such a device's wire (net/core/dev.c, gso_features_check), and TCP gathers nothing for it;
`tso off gso off` would not do, as TCP always builds superpackets (sk_setup_caps, since Linux 4.17). Where packets come
in, nothing gathers them: GRO and LRO are off. A veth has no wire: there the other end, which may be in another network
namespace, sends them one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import ethtool
from .converge import Step
from .errors import StepFailed
from .memory import Memory
from .namespace import number
from .netlink import (
    IFINFOMSG,
    RTM_GETLINK,
    RTM_NEWLINK,
    Socket,
    attribute,
    attributes,
    integer,
    link_message,
    text,
    u32,
)
from .node import IFB_NAME

IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 3, 5, 10, 18  # linux/if_link.h
IFLA_LINK_NETNSID, IFLA_GSO_MAX_SEGS = 37, 40
IFLA_INFO_KIND, IFF_LOOPBACK = 1, 8
GATHERING = {"rx-gro": "gro", "rx-lro": "lro", "rx-gro-hw": "rx-gro-hw"}  # the kernel's names, and those for ethtool -K
FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
KEY = "offloads-"  # and the number of the network namespace

Place = tuple[int, bool]  # an interface's index here; True: the other end of this veth


class Link(NamedTuple):
    """An interface; numbers are 0 where there is nothing."""

    number: int
    name: str
    kind: str
    master: int
    below: int  # of a veth: its other end
    namespace: int | None  # id of the one where `below` is, None: this one
    segments: int  # gso_max_segs
    loopback: bool


class Offload(NamedTuple):
    """How an interface treats superpackets: how many segments those may have that it sends, what it gathers."""

    place: Place
    name: str
    segments: int
    gathers: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """Places that send packets one by one, and those that gather none."""

    senders: frozenset[Place] = frozenset()
    receivers: frozenset[Place] = frozenset()


State = tuple[Offload, ...]


class OffloadsDomain:
    """Observe, plan and apply offloads where somebody needs single packets, or needed them."""

    name = "offloads"

    def __init__(self, rtnetlink: Socket, needs: Sequence[tuple[str, str]], memory: Memory | None = None) -> None:
        """`needs`: interfaces and directions of which single packets are wanted."""
        self._rtnetlink = rtnetlink
        self._memory = memory or Memory()
        self._key = f"{KEY}{number()}"
        self._kept: dict[Place, Offload] = {}
        self._links = _read(rtnetlink)
        self._elsewhere: dict[int, Socket | None] = {}
        self._wanted = wanted(list(self._links.values()), needs, _forwards())
        self._standing: dict[Place, Offload] = {}

    def observe(self) -> State:
        # Read anew: the copy of us that takes a change back was made before the change was remembered.
        self._kept = {_place(record): _offload(record) for record in self._memory.recall(self._key) or []}
        self._links = _read(self._rtnetlink)
        places = self._wanted.senders | self._wanted.receivers | self._kept.keys()
        found = [self._offload(place) for place in sorted(places)]
        self._standing = {one.place: one for one in found if one}
        return tuple(self._standing.values())

    def desired(self) -> State:
        """What is wanted now; elsewhere as it was before us."""
        made = []
        for one in self.observe():
            before = self._before(one)
            made.append(
                one._replace(
                    segments=1 if one.place in self._wanted.senders else before.segments,
                    gathers=() if one.place in self._wanted.receivers else before.gathers,
                )
            )
        return tuple(made)

    def warnings(self) -> list[str]:
        """What cannot be had, of what was observed last."""
        found = []
        for place in sorted(self._wanted.receivers):
            name = self._links[place[0]].name
            stuck = [word for feature, word in GATHERING.items() if feature in _stuck(name)]
            if stuck:
                found.append(
                    f"{name}: {', '.join(stuck)} cannot be switched off here, so packets may come gathered, and suffer "
                    "what they suffer together; testbed_info and verify count them"
                )
        for place in sorted(self._wanted.senders):
            if place not in self._standing:
                found.append(
                    f"{self._links[place[0]].name}: its other end cannot be told to send packets one by one; set there "
                    "`ip link set dev NAME gso_max_segs 1`"
                )
        return found

    def plan(self, current: State, desired: State) -> list[Step]:
        known = {one.place: one for one in current}
        steps = []
        for one in desired:
            stands = known.get(one.place, one)
            if one.segments != stands.segments:
                words = f"ip link set dev {one.name} gso_max_segs {one.segments}"
                if one.place[1]:
                    words += f"  # the other end of {self._links[one.place[0]].name}"
                steps.append(Step(words, (one.place, one.segments), retire=one.segments > stands.segments))
            stopped = [name for name in stands.gathers if name not in one.gathers]
            resumed = [name for name in one.gathers if name not in stands.gathers]
            for on, changed in ((False, stopped), (True, resumed)):
                if changed:
                    words = " ".join(f"{GATHERING[name]} {'on' if on else 'off'}" for name in changed)
                    payload = (one.place, dict.fromkeys(changed, on))
                    steps.append(Step(f"ethtool -K {one.name} {words}", payload, retire=on))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        kept = {one.place: one for one in map(self._before, self._standing.values())}
        touched = {step.payload[0] for step in steps} | self._kept.keys()
        self._keep({place: kept[place] for place in touched if place in kept})
        for step in steps:
            place, value = step.payload
            try:
                if isinstance(value, int):
                    self._limit(place, value)
                else:
                    ethtool.switch(self._links[place[0]].name, value)
            except OSError as error:
                raise StepFailed(step.command, str(error)) from None

    def describe(self, state: State) -> list[str]:
        lines = []
        for one in state:
            end = f" (the other end of {self._links[one.place[0]].name})" if one.place[1] else ""
            lines.append(f"link {one.name}{end} gso_max_segs {one.segments}")
            if not one.place[1]:
                lines[-1] += "".join(
                    f" {word} {'on' if name in one.gathers else 'off'}" for name, word in GATHERING.items()
                )
        return lines

    def forget_restored(self) -> None:
        """What is as it was, or gone, need not be remembered."""
        standing = {one.place: one for one in self.observe()}
        self._keep({place: one for place, one in self._kept.items() if standing.get(place, one) != one})

    def _keep(self, kept: Mapping[Place, Offload]) -> None:
        if kept and kept != self._kept:
            self._memory.remember(self._key, list(kept.values()), renew=True)
        elif not kept:
            self._memory.forget(self._key)
        self._kept = dict(kept)

    def _before(self, one: Offload) -> Offload:
        """As it was before us; an interface of another name has the number of one that is gone."""
        kept = self._kept.get(one.place, one)
        return kept if kept.name == one.name else one

    def _offload(self, place: Place) -> Offload | None:
        """None where it is gone, or out of reach."""
        link = self._links.get(place[0])
        if link is None:
            return None
        if not place[1]:
            return Offload(place, link.name, link.segments, _gathers(link.name))
        there = self._socket(link)
        far = _read(there).get(link.below) if there else None
        return Offload(place, far.name, far.segments) if far else None

    def _limit(self, place: Place, segments: int) -> None:
        link, payload = self._links[place[0]], attribute(IFLA_GSO_MAX_SEGS, u32(segments))
        there = self._socket(link) if place[1] else self._rtnetlink
        if there:
            there.request(link_message(RTM_NEWLINK, 0, link.below if place[1] else link.number, payload))

    def _socket(self, link: Link) -> Socket | None:
        """Where the other end of a veth is."""
        if link.namespace is not None and link.namespace not in self._elsewhere:
            from .elsewhere import socket_in

            self._elsewhere[link.namespace] = socket_in(link.namespace)
        return self._rtnetlink if link.namespace is None else self._elsewhere[link.namespace]


def _read(rtnetlink: Socket) -> dict[int, Link]:
    """The interfaces of a network namespace."""
    return {link.number: link for link in map(_link, rtnetlink.dump(link_message(RTM_GETLINK, 0, 0)))}


def wanted(links: Sequence[Link], needs: Sequence[tuple[str, str]], forwards: bool) -> Wanted:
    """Who sends, and who receives, what passes these interfaces in these directions.

    At egress that is the interface itself, what stands on it (a bridge, a VLAN: the node's own TCP sends there), and
    wherever packets come in that leave by it: the other ports of its bridge, and on a router all interfaces.
    """
    names = {link.name: link for link in links}
    senders: set[Place] = set()
    receivers: set[Place] = set()
    for name, direction in needs:
        if name not in names:
            continue
        link = names[name]
        if direction == "ingress":
            arriving = [link]
        else:
            above = [one for one in links if one.number == link.master or (one.below == link.number and _stacked(one))]
            senders |= {(one.number, False) for one in (link, *above)}
            arriving = [one for one in links if one is not link and _comes_in(one, link, forwards)]
        for one in [lowest for top in arriving for lowest in _lowest(top, links)]:
            receivers.add((one.number, False))
            if one.kind == "veth" and one.below:
                senders.add((one.below, False) if one.namespace is None else (one.number, True))
    return Wanted(frozenset(senders), frozenset(receivers))


def _comes_in(one: Link, leaves: Link, forwards: bool) -> bool:
    """Whether packets that come in at `one` may leave by `leaves`."""
    if one.loopback or one.kind in ("bridge", "ifb") or IFB_NAME.fullmatch(one.name):
        return False
    return forwards or bool(leaves.master and one.master == leaves.master)


def _lowest(link: Link, links: Sequence[Link]) -> Iterator[Link]:
    """The interface, and those below it (of a bond, of a VLAN): there packets are gathered."""
    yield link
    for one in links:
        if one.master == link.number or (link.below == one.number and _stacked(link)):
            yield from _lowest(one, links)


def _stacked(link: Link) -> bool:
    """Whether it stands on another interface of this namespace, as a VLAN does; a veth's other end is beside it."""
    return link.kind != "veth" and link.namespace is None and link.below not in (0, link.number)


def _link(body: bytes) -> Link:
    _family, _type, number_, flags, _change = IFINFOMSG.unpack_from(body)
    found = attributes(body, IFINFOMSG.size)
    kind = attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")
    master, below, segments = (integer(found.get(key, b"")) for key in (IFLA_MASTER, IFLA_LINK, IFLA_GSO_MAX_SEGS))
    elsewhere = found.get(IFLA_LINK_NETNSID)
    namespace = None if elsewhere is None else int.from_bytes(elsewhere, sys.byteorder, signed=True)
    name, loopback = text(found[IFLA_IFNAME]), bool(flags & IFF_LOOPBACK)
    return Link(number_, name, text(kind), master, below, namespace, segments, loopback)


def _gathers(interface: str) -> tuple[str, ...]:
    try:
        known = ethtool.features(interface)
    except OSError:  # one without features
        return ()
    return tuple(name for name in GATHERING if name in known.requested)


def _stuck(interface: str) -> frozenset[str]:
    """What is on and cannot be switched off, or was to be off and is not."""
    try:
        known = ethtool.features(interface)
    except OSError:
        return frozenset()
    return known.active - (known.available & known.requested)


def _forwards() -> bool:
    """Whether this node routes."""
    files = [Path(name) for name in FORWARDING]
    return any(file.exists() and file.read_text(encoding="ascii").strip() != "0" for file in files)


def _place(record: Sequence[Any]) -> Place:
    return record[0][0], record[0][1]


def _offload(record: Sequence[Any]) -> Offload:
    return Offload(_place(record), record[1], record[2], tuple(record[3]))
