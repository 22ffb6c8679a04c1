# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions on a plug (net/sched/sch_plug.c): hold packets, let those before the last hold go, let all go.

They are no state: the kernel shows nothing of them, so each is done each time.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import InvalidInput, StepFailed, TestbedError
from ..netlink import (
    RTM_GETQDISC,
    RTM_NEWQDISC,
    TCMSG,
    Message,
    Socket,
    attribute,
    attributes,
    string,
    tc_header,
    tc_message,
    text,
)
from .kinds.prio import PLUG
from .model import ROOT, handle_text, parse_handle
from .observe import TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_STATS_QUEUE

ACTIONS = {
    "buffer": (0, "block"),
    "release_one": (1, "release"),
    "release": (2, "release_indefinite"),
}  # enum TCQ_PLUG_*
QUEUE = struct.Struct("=II")  # gnet_stats_queue: packets, bytes


class Plug(NamedTuple):
    """A plug that stands, and what it holds back now."""

    handle: int
    parent: int
    packets: int
    octets: int

    def words(self, interface: str, action: str) -> str:
        """As tc(8) takes it."""
        parent = "root" if self.parent == ROOT else f"parent {handle_text(self.parent)}"
        return f"tc qdisc change dev {interface} {parent} handle {handle_text(self.handle)} plug {ACTIONS[action][1]}"

    def message(self, index: int, action: str) -> Message:
        payload = attribute(TCA_KIND, string("plug")) + attribute(TCA_OPTIONS, PLUG.pack(ACTIONS[action][0], 0))
        return tc_message(RTM_NEWQDISC, 0, index, self.handle, self.parent, 0, payload)


def act(interface: str, actions: Sequence[str], handle: str | None, check: bool = False) -> dict[str, Any]:
    """Do the actions in their order. What was done, and the packets and bytes held before and after.

    `handle` says which plug where the interface has several. Raises InvalidInput, TestbedError where there is none,
    StepFailed.
    """
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        names = ", ".join(sorted(name for _index, name in socket.if_nameindex()))
        raise InvalidInput("interface", interface, f"this node has the interfaces {names}") from None
    with Socket() as rtnetlink:
        before = _chosen(_plugs(rtnetlink, index), interface, handle)
        steps = [before.words(interface, action) for action in actions]
        for action, words in zip(actions, steps):
            for refusal in [] if check else rtnetlink.send([before.message(index, action)]):
                raise StepFailed(words, refusal.reason)
        after = next((one for one in _plugs(rtnetlink, index) if one.handle == before.handle), before)
    return {"steps": steps, "before": _held(before), "after": _held(after)}


def _held(plug: Plug) -> dict[str, int]:
    return {"packets": plug.packets, "bytes": plug.octets}


def _plugs(rtnetlink: Socket, index: int) -> list[Plug]:
    found = []
    for body in rtnetlink.dump(tc_message(RTM_GETQDISC, 0, index, 0, 0)):
        header, parts = tc_header(body), attributes(body, TCMSG.size)
        if header.ifindex == index and text(parts[TCA_KIND]) == "plug":
            queue = attributes(parts.get(TCA_STATS2, b"")).get(TCA_STATS_QUEUE, bytes(QUEUE.size))
            packets, octets = QUEUE.unpack_from(queue)
            found.append(Plug(header.handle, header.parent, packets, octets))
    return found


def _chosen(plugs: Sequence[Plug], interface: str, handle: str | None) -> Plug:
    there = ", ".join(handle_text(one.handle) for one in plugs)
    if handle is not None:
        try:
            number = parse_handle(handle)
        except ValueError as error:
            raise InvalidInput("handle", handle, str(error)) from None
        for one in plugs:
            if one.handle == number:
                return one
        raise InvalidInput("handle", handle, f"the plugs of {interface} are {there or '(none)'}")
    if not plugs:
        raise TestbedError(
            f"{interface} has no plug; make one by `discipline: plug` in impairment_interfaces, or by the module tc"
        )
    if len(plugs) > 1:
        raise InvalidInput("handle", handle, f"{interface} has several plugs, {there}; say which")
    return plugs[0]
