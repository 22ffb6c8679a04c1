# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What joins two nodes. A link kind says what the keeper has to make, and a node's driver gets an Attachment.

`socket` needs no privilege and no device, and hands over each packet as it was sent, without loss: a reader that lags
stops the writer. `tap` puts a device of the lab's namespace at each end, where the host's own tools can look at the
wire; it needs /dev/net/tun.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from .model import End, Link, Node, management_addresses

DEFAULT = "socket"


class Attachment(NamedTuple):
    """One end of a link as a node's driver sees it.

    `transport` is "socket" (`id` is the path, relative to the run directory where the driver's process runs, of a unix
    SEQPACKET socket that the driver connects to), "tap" (`id` is the TAP device's name in the namespace where that
    process runs), or "fd" (a packet socket that it inherits; the keeper replaces `{fd:ID}` in its arguments).
    """

    transport: str
    id: str


def _digest(link: Link, end: End) -> str:
    return hashlib.sha256(f"{link.name}/{end.node}/{end.interface}".encode()).hexdigest()[:10]


def _tap(link: Link, end: End) -> Attachment:
    return Attachment("tap", f"tap{_digest(link, end)}")


def _socket(link: Link, end: End) -> Attachment:
    return Attachment("socket", f"wire-{_digest(link, end)}.sock")


KINDS = {"socket": _socket, "tap": _tap}


def attach(link: Link, end: End) -> Attachment:
    """The end of this link that the driver of the end's node gets."""
    return KINDS[link.kind](link, end)


def management(node: Node) -> Attachment:
    """The node's end of its own management link."""
    return Attachment("fd", f"mgmt{node.number}")


def link_request(link: Link) -> dict[str, object]:
    """What the keeper is asked to make for a data link."""
    return {"name": link.name, "kind": link.kind, "ends": [attach(link, end).id for end in link.ends]}


def management_request(node: Node) -> dict[str, object]:
    """What the keeper is asked to make for a node's management link."""
    return {
        "name": f"mgmt{node.number}",
        "kind": "management",
        "ends": [management(node).id],
        "host": f"host{node.number}",
        "address": management_addresses(node.number)[0],
    }
