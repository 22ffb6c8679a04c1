# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines for the probe: recorders per node, scripts per node and stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .asked import Asked
from .flows import Flow, Subject
from .schedule import Limits, Series, Stage
from .topology import Lab

UNIMPAIRED = 1000  # added to a flow's number where a packet passes beside the class; as in files/probe/probe.h
REPLY_PORT = 42000  # requests are answered to this port + the flow's number
SOURCE_PORT = 45000  # of unimpaired packets


class Watch(NamedTuple):
    """What a node records."""

    points: tuple[str, ...]  # interfaces without the packets of rate series
    receive: tuple[str, ...]  # interfaces with them
    addresses: tuple[str, ...]  # requests to these are answered
    holds: tuple[int, ...]  # UDP ports that must not answer "unreachable"

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Names by the number that records carry."""
        return self.points + self.receive


def watches(lab: Lab, flows: Iterable[Flow]) -> dict[str, Watch]:
    """Recorders for all flows: every port of an impaired node's bridge, and every receiver."""
    points: dict[str, set[str]] = {}
    receive: dict[str, set[str]] = {}
    addresses: dict[str, set[str]] = {}
    holds: dict[str, set[int]] = {}
    for flow in flows:
        inner = {one for one in (flow.entry, flow.leave) if one}
        if len(inner) > 1 or flow.leave in lab.ports(flow.node):
            inner |= set(lab.ports(flow.node))
        points.setdefault(flow.node, set()).update(inner)
        receive.setdefault(flow.receiver, set()).add(flow.receive_interface)
        addresses.setdefault(flow.receiver, set()).add(flow.destination)
        if flow.protocol == "udp":
            holds.setdefault(flow.receiver, set()).add(flow.destination_port)
    return {
        node: Watch(
            tuple(sorted(points.get(node, set()) - receive.get(node, set()))),
            tuple(sorted(receive.get(node, set()))),
            tuple(sorted(addresses.get(node, set()))),
            tuple(sorted(holds.get(node, set()))),
        )
        for node in sorted(points.keys() | receive.keys())
    }


def watch_command(watch: Watch, directory: str, run: int, port: int, limit: float) -> str:
    """Start a recorder."""
    words = [f"watch dir={directory} run={run} limit={limit:.0f}"]
    if watch.receive:
        words.append(f"calibration_port={port}")
    lists = {"points": watch.points, "receive": watch.receive, "address": watch.addresses, "hold": watch.holds}
    words += [f"{name}={','.join(map(str, values))}" for name, values in lists.items() if values]
    return " ".join(words)


def send_buffer(flow: Flow, asked: Asked) -> int:
    """Bytes that a node's own packets may take in its own queue: a third of a second of the class's rate.

    Enough for the sender to be halted now and then, little enough to be gone soon. The kernel counts some twice the
    packet's length.
    """
    if flow.entry or not asked.rate:
        return 4 << 20
    return int(min(4 << 20, max(64 << 10, 2 * asked.rate / 8 * (0.3 + asked.delay + asked.jitter))))


def series_line(series: Series, flow: Flow, asked: Asked, run: int, port: int, calibrate: bool) -> str:
    """One line of a script."""
    if series.command == "wait":
        return f"wait seconds={series.limit:.3f}"
    number = flow.id + (UNIMPAIRED if series.unimpaired else 0)
    words = [f"{series.command} to={flow.destination} from={flow.source} run={run} flow={number} kind={series.kind}"]
    words.append(f"count={series.packets} rate={series.rate:.3f} length={series.length} limit={series.limit:.1f}")
    if series.unimpaired:
        words.append(f"protocol=udp source_port={SOURCE_PORT + flow.id} destination_port={port}")
    else:
        words.append(f"protocol={flow.protocol} source_port={flow.source_port}")
        words.append(
            f"destination_port={flow.destination_port} tos={flow.tos} mark={flow.mark} "
            f"send_buffer={send_buffer(flow, asked)}"
        )
    if series.command == "rtt":
        words.append(f"reply={REPLY_PORT + number} patience={0.5 + 4 * (asked.delay + asked.jitter):.1f}")
        if calibrate:
            words.append(f"calibration={port} calibration_source={SOURCE_PORT + flow.id}")
    return " ".join(words)


def script(stage: Stage, node: str, found: Iterable[Subject], run: int, limits: Limits) -> str:
    """What a node sends in a stage; empty where it sends nothing."""
    known = {one.flow.id: (one.flow, one.asked) for one in found if one.flow}
    lines = []
    mine = [chain for sender, chain in stage.chains if sender == node and chain]
    for number, chain in enumerate(mine):
        for series in chain:
            lines.append(f"{number} " + series_line(series, *known[series.flow], run, limits.port, limits.calibrate))
    return "".join(line + "\n" for line in lines)
