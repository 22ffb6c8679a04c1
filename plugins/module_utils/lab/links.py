# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What joins nodes. A link kind says what the keeper has to make, and a node's driver gets an Attachment.

`socket` needs no privilege and no device, and hands over each packet as it was sent, without loss: a reader that lags
stops the writer. `veth` is the pair of devices that joins two nodes on the host's kernel. `tap` puts a device of the
lab's namespace at each end, on a bridge, where the host's own tools can look at the wire; it joins nodes of any kinds,
also more than two, and needs /dev/net/tun where a node has a kernel of its own. `bridge` makes TAPs of nodes ports of a
bridge that is an interface of another node (bridged.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..errors import InvalidInput
from . import bridged
from .model import REAL, End, Link, Node, management_addresses
from .values import choice

KINDS = ("socket", "tap", "veth", bridged.KIND)


class Attachment(NamedTuple):
    """One end of a link as a node's driver sees it.

    `transport` is "socket" (`id` is the path, relative to the run directory where the driver's process runs, of a unix
    SEQPACKET socket that the driver connects to), "tap" (`id` is the TAP device's name in the namespace where that
    process runs), "fd" (a packet socket that it inherits; the keeper replaces `{fd:ID}` in its arguments), or "veth"
    (a device that is moved into the node while it runs; `id` is its name until then).
    """

    transport: str
    id: str


def choose(path: str, asked: object, kinds: Sequence[str], live: Collection[str]) -> str:
    """The kind of a link between nodes of these kinds; `live` are the kinds of nodes on the host's own kernel.

    Raises InvalidInput with a path below `path`.
    """
    inside = [kind in live for kind in kinds]
    if REAL in kinds and asked is None:
        return "tap"
    if asked is None:
        if len(kinds) > 2 or any(inside) != all(inside):
            return "tap"
        return "veth" if all(inside) else "socket"
    kind = choice(f"{path}.kind", asked, KINDS)
    if kind == bridged.KIND:
        bridged.check_kinds(path, kinds, live)
        return kind
    if kind != "tap" and len(kinds) > 2:
        raise InvalidInput(f"{path}.ends", len(kinds), f"kind {kind} has two ends, kind tap any number")
    listed = " and ".join(kinds)
    if kind == "veth" and not all(inside):
        raise InvalidInput(f"{path}.kind", kind, f"it joins nodes of kind {' or '.join(live)} only, not {listed}")
    if kind == "socket" and (any(inside) or REAL in kinds):
        raise InvalidInput(f"{path}.kind", kind, f"it joins nodes with kernels of their own only, not {listed}")
    return kind


def _digest(link: Link, end: End) -> str:
    return hashlib.sha256(f"{link.name}/{end.node}/{end.interface}".encode()).hexdigest()[:10]


def attach(link: Link, end: End, live: bool = False) -> Attachment:
    """The end of this link that the end's node gets; `live`: it is on the host's own kernel."""
    if link.kind == "socket":
        return Attachment("socket", f"wire-{_digest(link, end)}.sock")
    return Attachment("veth" if live else "tap", f"{'veth' if live else 'tap'}{_digest(link, end)}")


def management(node: Node) -> Attachment:
    """The node's end of its own management link."""
    return Attachment("fd", f"mgmt{node.number}")


class Inside(NamedTuple):
    """Where the keeper moves a device: `pid` of the node as the host sees it, and what it is called there."""

    id: str
    pid: int
    interface: str
    mac: str


def link_request(link: Link, inside: Sequence[Inside] = ()) -> dict[str, object]:
    """What the keeper is asked to make for a data link; `inside`: those ends that are devices in running nodes."""
    moved = {one.id: one._asdict() for one in inside}
    ends = []
    for end in link.ends:
        if end.port:
            continue
        live = attach(link, end, live=True).id
        ends.append(live if live in moved else attach(link, end).id)
    request: dict[str, object] = {"name": link.name, "kind": link.kind, "ends": ends}
    if link.kind == "tap":
        request["ports"] = ports_of(link)
    return {**request, "inside": list(moved.values()), "mtu": link.mtu} if link.kind != "socket" else request


def ports_of(link: Link) -> list[str]:
    """The interfaces of this machine that the link takes."""
    return [end.port for end in link.ends if end.port]


def management_request(node: Node) -> dict[str, object]:
    """What the keeper is asked to make for a node's management link."""
    return {
        "name": f"mgmt{node.number}",
        "kind": "management",
        "ends": [management(node).id],
        "host": f"host{node.number}",
        "address": management_addresses(node.number)[0],
    }
