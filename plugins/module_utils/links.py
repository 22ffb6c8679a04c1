# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain links: intermediate functional blocks (IFBs) of ours, one for each interface that is impaired at ingress.

What arrives is redirected to an IFB, passes the queues there, and goes on as if it had just arrived
(drivers/net/ifb.c). Ours are told by their name and alias.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from .converge import Step
from .errors import StepFailed, TestbedError
from .netlink import (
    IFINFOMSG,
    IFLA_TXQLEN,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    Socket,
    attribute,
    attributes,
    link_message,
    nested,
    string,
    text,
    u8,
    u32,
)
from .node import IFB_NAME, ifb_name

IFLA_IFNAME, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC = 3, 18, 20, 26  # linux/if_link.h
IFLA_INFO_KIND, IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE = 1, 8, 1
IFF_UP = 1
OWNED = "impair.testbed: what arrives at "  # an alias of ours starts so
FIRST_INDEX = 0x0E570000  # far above the numbers that the kernel gives: so a plan knows it before the link stands
QUEUE_LENGTH = 1000  # packets between an IFB's queues and the stack


class Ifb(NamedTuple):
    """An IFB of ours."""

    name: str
    ifindex: int
    interface: str  # what arrives there passes it
    up: bool = True


class LinksDomain:
    """Observe, plan and apply the IFBs of ours on this node."""

    name = "links"

    def __init__(self, rtnetlink: Socket) -> None:
        self._rtnetlink = rtnetlink

    def observe(self) -> tuple[Ifb, ...]:
        found = []
        for body in self._rtnetlink.dump(link_message(RTM_GETLINK, 0, 0)):
            _family, _type, index, flags, _change = IFINFOMSG.unpack_from(body)
            link = attributes(body, IFINFOMSG.size)
            kind = attributes(link.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")
            name, alias = text(link[IFLA_IFNAME]), text(link.get(IFLA_IFALIAS, b""))
            if text(kind) != "ifb" or not IFB_NAME.fullmatch(name):
                continue
            if alias.startswith(OWNED) or not alias:  # without one: a run was killed before it could set it
                found.append(Ifb(name, index, alias.removeprefix(OWNED), bool(flags & IFF_UP)))
        return tuple(sorted(found))

    def wanted(self, interfaces: Sequence[str]) -> tuple[Ifb, ...]:
        """The IFBs for these interfaces; raises TestbedError where something else has such a name."""
        ours = {link.name: link for link in self.observe()}
        present = {name: index for index, name in socket.if_nameindex()}
        taken, made = set(present.values()), []
        for interface in interfaces:
            name = ifb_name(interface)
            if name in present and name not in ours:
                raise TestbedError(f"{name} was not made by this collection, which needs this name; rename it")
            index = ours[name].ifindex if name in ours else FIRST_INDEX | int(name[3:7], 16)
            while name not in ours and index in taken:
                index += 1
            taken.add(index)
            made.append(Ifb(name, index, interface))
        return tuple(sorted(made))

    def plan(self, current: Sequence[Ifb], desired: Sequence[Ifb]) -> list[Step]:
        known = {link.name: link for link in current}
        steps = []
        for link in desired:
            if link.name not in known:
                steps += [_addition(link), _ownership(link), _rise(link)]
            elif link != known[link.name]:
                steps += [_ownership(link), _rise(link)]
        names = {link.name for link in desired}
        return steps + [_deletion(link) for link in current if link.name not in names]

    def apply(self, steps: Sequence[Step]) -> None:
        for refusal in self._rtnetlink.send([step.payload for step in steps]):
            raise StepFailed(steps[refusal.index].command, refusal.reason)

    def describe(self, state: Sequence[Ifb]) -> list[str]:
        return [f"link {link.name} type ifb alias {OWNED}{link.interface}" + " up" * link.up for link in state]


def _addition(link: Ifb) -> Step:
    kind = nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, string("ifb")))
    payload = attribute(IFLA_IFNAME, string(link.name)) + attribute(IFLA_TXQLEN, u32(QUEUE_LENGTH)) + kind
    return Step(
        f"ip link add name {link.name} index {link.ifindex} txqueuelen {QUEUE_LENGTH} type ifb",
        link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, link.ifindex, payload),
    )


def _ownership(link: Ifb) -> Step:
    """The alias; and no IPv6 address, whose packets would be impaired, and counted, with what arrives."""
    payload = attribute(IFLA_IFALIAS, (OWNED + link.interface).encode())
    words = f'ip link set dev {link.name} alias "{OWNED}{link.interface}"'
    if os.path.exists("/proc/sys/net/ipv6"):
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, u8(ADDR_GEN_NONE))
        payload += nested(IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
        words += " addrgenmode none"
    return Step(words, link_message(RTM_NEWLINK, 0, link.ifindex, payload))


def _rise(link: Ifb) -> Step:
    return Step(f"ip link set dev {link.name} up", link_message(RTM_NEWLINK, 0, link.ifindex, up=True))


def _deletion(link: Ifb) -> Step:
    return Step(f"ip link delete dev {link.name}", link_message(RTM_DELLINK, 0, link.ifindex), retire=True)
