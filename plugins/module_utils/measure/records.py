# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of the probe's recorder (files/probe/probe.h), decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

OUTGOING = 4  # PACKET_OUTGOING, include/uapi/linux/if_packet.h
_OURS = struct.Struct("<BBBBHHQQII")
_OTHER = struct.Struct("<BBBBHHQ6sHH4s4sBB6s6x")


class Ours(NamedTuple):
    """A numbered packet as it passed an interface."""

    point: int
    kind: int
    outgoing: bool
    damaged: bool
    flow: int
    length: int  # layer 2 with the Ethernet header, without FCS: what HTB counts
    at: int  # ns
    sent: int  # ns, the sender's clock
    seq: int


class Other(NamedTuple):
    """Somebody else's frame."""

    point: int
    outgoing: bool
    protocol: int
    ethertype: int
    length: int
    at: int
    destination_mac: bytes
    source_port: int
    destination_port: int
    source: str
    destination: str
    tos: int
    source_mac: bytes


def decode(data: bytes) -> Iterator[Ours | Other]:
    """Records in the order written; a record cut off at the end is left out."""
    offset = 0
    while offset < len(data):
        if data[offset] == ord("P"):
            if offset + _OURS.size > len(data):
                return
            _unused, point, kind, where, flow, length, at, sent, seq, _unused = _OURS.unpack_from(data, offset)
            yield Ours(point, kind, where & 7 == OUTGOING, where > 127, flow, length, at, sent, seq)
            offset += _OURS.size
        elif data[offset] == ord("F"):
            if offset + _OTHER.size > len(data):
                return
            yield _other(_OTHER.unpack_from(data, offset))
            offset += _OTHER.size
        else:
            raise ValueError(f"the records are unreadable from byte {offset} on")


def _other(fields: tuple[Any, ...]) -> Other:
    _unused, point, protocol, where, ethertype, length, at, mac, source_port, destination_port, *rest = fields
    source, destination, tos, _unused, from_mac = rest
    addresses = _dotted(source), _dotted(destination)
    outgoing = where & 7 == OUTGOING
    return Other(
        point, outgoing, protocol, ethertype, length, at, mac, source_port, destination_port, *addresses, tos, from_mac
    )


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address)) if any(address) else ""
