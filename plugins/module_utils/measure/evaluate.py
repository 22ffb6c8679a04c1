# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From records and events of all nodes to rows: asked, got, tolerance, ok."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from . import judge, rates
from .commands import UNIMPAIRED, Watch
from .flows import Flow, Subject, unimpaired_matches
from .matching import ETHERTYPES, Packet, class_of, protocol_number
from .records import Other, Ours, decode
from .schedule import RATE, REQUEST, TRAIN, Limits
from .topology import Lab


class Row(NamedTuple):
    """One line of the table and of verify.json."""

    node: str
    interface: str
    class_name: str
    direction: str
    quantity: str
    asked: str
    got: str
    tolerance: str
    ok: bool
    samples: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {("class" if name == "class_name" else name): value for name, value in self._asdict().items()}


class Seen:
    """What one node recorded, by interface."""

    def __init__(self, watch: Watch, data: bytes) -> None:
        self.ours: dict[tuple[str, bool, int, int], list[Ours]] = {}
        self.others: dict[tuple[str, bool], list[Other]] = {}
        for record in decode(data):
            point = watch.interfaces[record.point]
            if isinstance(record, Ours):
                self.ours.setdefault((point, record.outgoing, record.flow, record.kind), []).append(record)
            else:
                self.others.setdefault((point, record.outgoing), []).append(record)

    def packets(self, point: str, outgoing: bool, flow: int, kind: int) -> list[Ours]:
        return self.ours.get((point, outgoing, flow, kind), [])


class Measured(NamedTuple):
    """Everything that a run brought in."""

    lab: Lab
    limits: Limits
    seen: Mapping[str, Seen]
    events: Sequence[Mapping[str, Any]]
    macs: Mapping[str, frozenset[bytes]]  # of each node's interfaces
    flows: Mapping[int, Flow]
    counters: Mapping[tuple[str, str, str], str]  # (node, interface, class): what counts its drops, gact or iptables

    def event(self, kind: str, flow: int, series: int = 0) -> Mapping[str, Any]:
        for one in self.events:
            if one.get("event") == kind and one.get("flow") == flow and (not series or one.get("kind") == series):
                return one
        return {}

    def arrived(self, flow: Flow, kind: int, number: int = 0) -> list[Ours]:
        """Packets at the receiver, in the order of arrival."""
        return self.seen[flow.receiver].packets(flow.receive_interface, False, number or flow.id, kind)

    def times(self, flow: Flow, what: str) -> list[float]:
        """Round trips in seconds, `us` or `unimpaired_us`; requests without an answer are left out."""
        return [us / 1e6 for us in self.event("rtt", flow.id).get(what, ()) if us >= 0]

    def inside(self, flow: Flow, number: int) -> list[float]:
        """Seconds that each request took through the impaired node, by that node's own clock."""
        seen = self.seen[flow.node]
        came = {one.seq: one.at for one in seen.packets(flow.entry, False, number, REQUEST)} if flow.entry else {}
        left = seen.packets(flow.leave, True, number, REQUEST)
        return [(one.at - came.get(one.seq, one.sent)) / 1e9 for one in left]


def class_order(measured: Measured, subject: Subject, ipv4_only: bool = False) -> list[int | None]:
    """The class's packets in the order in which the node saw them: our numbers, None for anybody else's.

    `ipv4_only`: as iptables counts, which knows nothing of ARP and counts IPv6 apart.
    """
    flow = subject.way
    seen = measured.seen[flow.node]
    if flow.entry:
        mine = [(one.at, one.seq) for one in seen.packets(flow.entry, False, flow.id, TRAIN)]
    else:
        left = {one.seq: one.at for one in reversed(seen.packets(flow.leave, True, flow.id, TRAIN))}
        lead = min(left, default=0)  # the first ones may be missing: just before the first that left
        mine, at = [], left.get(lead, 0) - lead - 1
        for number in range(int(measured.event("sent", flow.id, TRAIN).get("sent", 0))):
            at = left.get(number, at + 1)  # a packet that never left is placed behind the one before
            mine.append((at, number))
    if not mine:
        return []
    first, last = mine[0][0], mine[-1][0]
    foreign = [(at, None) for at in _foreign(measured, subject, ipv4_only) if first < at < last]
    merged: list[tuple[int, int | None]] = [*mine, *foreign]
    return [number for _unused, number in sorted(merged, key=lambda one: one[0])]


def _foreign(measured: Measured, subject: Subject, ipv4_only: bool) -> Iterable[int]:
    """Times of packets in the class that are not this flow's numbered ones."""
    flow = subject.way
    seen = measured.seen[flow.node]
    unimpaired = unimpaired_matches(measured.lab, flow.node, measured.limits.port)
    own_macs = measured.macs.get(flow.node, frozenset())
    for (point, outgoing), frames in seen.others.items():
        for frame in frames:
            if ipv4_only and frame.ethertype != ETHERTYPES["ipv4"]:
                continue
            if flow.direction == "ingress":
                relevant = point == flow.interface and not outgoing
            elif outgoing:  # the node's own; what it forwards was counted where it came in
                relevant = point == flow.leave and frame.source_mac in own_macs
            else:
                relevant = point != flow.leave and _forwarded(frame, own_macs)
            packet = _packet(frame, point, outgoing)
            if relevant and class_of(subject.impaired.classes, packet, unimpaired) == flow.class_name:
                yield frame.at
    for (point, outgoing, number, kind), packets in seen.ours.items():
        other = measured.flows.get(number)
        entered = point == (flow.entry or flow.leave) and outgoing is (not flow.entry)
        if other is None or not entered or kind not in (TRAIN, REQUEST) or (number, kind) == (flow.id, TRAIN):
            continue
        if class_of(subject.impaired.classes, _flow_packet(other, point), unimpaired) == flow.class_name:
            yield from (one.at for one in packets)


def _forwarded(frame: Other, own: frozenset[bytes]) -> bool:
    """Whether a bridge passes a frame on: not the node's own, nor link-local groups (IEEE 802.1D, 7.12.6)."""
    return frame.destination_mac not in own and not frame.destination_mac.startswith(b"\x01\x80\xc2\x00\x00")


def _packet(frame: Other, point: str, outgoing: bool) -> Packet:
    return Packet(
        frame.protocol,
        frame.source,
        frame.destination,
        frame.source_port,
        frame.destination_port,
        frame.tos >> 2,
        in_interface="" if outgoing else point,
        forwarded=not outgoing,
        ethertype=frame.ethertype,
    )


def _flow_packet(flow: Flow, point: str) -> Packet:
    return Packet(
        protocol_number(flow.protocol),
        flow.source,
        flow.destination,
        flow.source_port,
        flow.destination_port,
        flow.tos >> 2,
        flow.mark,
        point if flow.entry else "",
        bool(flow.entry),
    )


def rate_windows(measured: Measured, subject: Subject, kept: float) -> list[rates.Window]:
    """A class's packets of load at the receiver, window by window; `kept`: the share that its own drops leave."""
    flow = subject.way
    plain = rates.split(_numbered(measured.arrived(flow, RATE, UNIMPAIRED + flow.id)))
    sent = [one for one in measured.events if one.get("event") == "sent" and one.get("kind") == RATE]
    sent = [one for one in sent if one.get("flow") == flow.id] if flow.entry else []  # its own class slows a sender
    found = []
    for number, window in enumerate(rates.split(_numbered(measured.arrived(flow, RATE)))):
        offered = _offered(sent[number], window[0].length) * kept if number < len(sent) else 0.0
        path = judge.Path(rates.around(window, plain), offered)
        found.append(rates.Window(rates.without_burst(window, subject.asked.burst), path))
    return found


def _numbered(packets: Iterable[Ours]) -> list[rates.Numbered]:
    return [rates.Numbered(one.seq, judge.Arrival(one.at, one.length)) for one in packets]


def _offered(sent: Mapping[str, Any], length: int) -> float:
    """bit/s that a sender brought out."""
    return 8.0 * length * int(sent["sent"]) / float(sent["seconds"])
