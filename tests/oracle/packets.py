# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ethernet frames: built by hypothesis with what is in them known, read again by the standards' words, and their sums.

Imports nothing of the collection.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

VLANS = (0x8100, 0x88A8)
IPV4, IPV6, ARP, LLC = 0x0800, 0x86DD, 0x0806, 0x0004
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = (HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS)
MOST_EXTENSIONS = 8
SUMS = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}  # where the checksum stands in the transport header


class Frame(NamedTuple):
    """What a frame holds, 0 for what it does not. Places count from its start: `transport` follows the IP headers."""

    source: bytes = b""
    destination: bytes = b""
    source_mac: bytes = b""
    destination_mac: bytes = b""
    ethertype: int = 0
    source_port: int = 0
    destination_port: int = 0
    vlan: int = 0
    protocol: int = 0
    dscp: int = 0
    tags: int = 0
    ports: int = 0
    network: int = 0
    transport: int = 0
    end: int = 0
    whole: bool = False  # the transport header is here: no later fragment


def read(data: bytes) -> Frame:
    """A frame that may be cut short anywhere behind the Ethernet header, and hold anything."""
    found = Frame(source_mac=data[6:12], destination_mac=data[:6])
    ethertype, at = _u16(data, 12), 14
    while ethertype in VLANS and found.tags < 2 and at + 4 <= len(data):
        if not found.tags:
            found = found._replace(vlan=_u16(data, at) & 0xFFF)
        found, ethertype, at = found._replace(tags=found.tags + 1), _u16(data, at + 2), at + 4
    ethertype = LLC if ethertype < 0x600 else ethertype
    found = found._replace(ethertype=ethertype, network=at, transport=at, end=len(data))
    if ethertype == IPV4:
        found = _read_ipv4(data, found)
    elif ethertype == IPV6:
        found = _read_ipv6(data, found)
    at = found.transport
    if found.whole and found.protocol in (TCP, UDP, SCTP) and at + 4 <= found.end:
        found = found._replace(ports=1, source_port=_u16(data, at), destination_port=_u16(data, at + 2))
    return found


def _read_ipv4(data: bytes, found: Frame) -> Frame:
    head = data[found.network : found.network + 20]
    if len(head) < 20 or head[0] >> 4 != 4:
        return found
    size, length = (head[0] & 0xF) * 4, _u16(head, 2)
    end = min(found.network + length, len(data))
    if size < 20 or found.network + size > end:
        return found
    return found._replace(
        source=head[12:16],
        destination=head[16:20],
        dscp=head[1] >> 2,
        protocol=head[9],
        transport=found.network + size,
        end=end,
        whole=_u16(head, 6) & 0x1FFF == 0,
    )


def _read_ipv6(data: bytes, found: Frame) -> Frame:
    head = data[found.network : found.network + 40]
    if len(head) < 40 or head[0] >> 4 != 6:
        return found
    at = found.network + 40
    end = min(at + _u16(head, 4), len(data))
    found = found._replace(
        source=head[8:24], destination=head[24:40], dscp=_u16(head, 0) >> 6 & 0x3F, transport=at, end=end
    )
    kind = head[6]
    for _header in range(MOST_EXTENSIONS + 1):
        if kind not in EXTENSIONS:
            return found._replace(protocol=kind, transport=at, whole=True)
        if at + 8 > end:
            return found
        following, length = data[at], data[at + 1]
        size = {FRAGMENT: 8, AUTHENTICATION: 4 * length + 8}.get(kind, 8 * length + 8)
        if at + size > end:
            return found
        if kind == FRAGMENT and _u16(data, at + 2) & 0xFFF8:
            return found._replace(protocol=0 if following in EXTENSIONS else following, transport=at + size)
        at += size
        kind = following
    return found


# ---- Sums ----


def total(data: bytes) -> int:
    """The sum of RFC 1071 over words of 16 bits, as one of 0 … 65534: 65535 is the same as 0."""
    padded = data + bytes(len(data) % 2)
    return int(sum(struct.unpack(f"!{len(padded) // 2}H", padded))) % 0xFFFF


def transport_total(data: bytes, frame: Frame) -> int:
    """The sum that a TCP, UDP or ICMP checksum makes 0, over what of the datagram is in this frame."""
    covered = data[frame.transport : covered_end(data, frame)]
    pseudo = b"" if frame.protocol == ICMP else frame.source + frame.destination
    return total(pseudo + bytes([0, frame.protocol]) + struct.pack("!I", len(covered)) + covered)


def covered_end(data: bytes, frame: Frame) -> int:
    if frame.protocol == UDP and frame.transport + 6 <= len(data):
        length = _u16(data, frame.transport + 4)
        if 8 <= length < frame.end - frame.transport:
            return frame.transport + length
    return frame.end


def sum_places(data: bytes, frame: Frame) -> list[int]:
    """Where the checksums stand that can be amended."""
    found = []
    if frame.ethertype == IPV4 and frame.source:
        found.append(frame.network + 10)
    at = frame.transport + SUMS.get(frame.protocol, 0)
    if frame.whole and frame.protocol in SUMS and at + 2 <= frame.end:
        found.append(at)
    return found


def payload(data: bytes, frame: Frame) -> int:
    """Where the payload starts."""
    at = frame.transport
    if not frame.ports:
        return at
    size = {UDP: 8, SCTP: 12, TCP: (data[at + 12] >> 4) * 4 if at + 12 < len(data) else 0}[frame.protocol]
    return at + size if (size >= 20 or frame.protocol != TCP) and at + size < frame.end else frame.end


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


# ---- Frames to build ----


class Built(NamedTuple):
    data: bytes
    frame: Frame  # what was put into it


@st.composite
def frames(draw: st.DrawFn) -> Built:
    """A whole frame, with right checksums and Ethernet's padding."""
    macs = draw(st.binary(min_size=12, max_size=12))
    tags = draw(st.lists(st.tuples(st.sampled_from(VLANS), st.integers(0, 0xFFFF)), max_size=2))
    head = macs + b"".join(struct.pack("!HH", *tag) for tag in tags)
    frame = Frame(source_mac=macs[6:], destination_mac=macs[:6], tags=len(tags), network=14 + 4 * len(tags))
    frame = frame._replace(vlan=tags[0][1] & 0xFFF if tags else 0)
    network = {IPV4: _ipv4, IPV6: _ipv6, 0: _other}[draw(st.sampled_from((IPV4, IPV4, IPV6, IPV6, 0)))]
    ethertype, packet, facts = draw(network())
    places = {name: facts.pop(name) + frame.network for name in ("transport", "end")}
    data = head + struct.pack("!H", ethertype) + packet
    frame = frame._replace(ethertype=LLC if ethertype < 0x600 else ethertype, **facts, **places)
    if not frame.source:  # no IP tells where it ends
        return Built(data, frame._replace(end=len(data)))
    return Built(data.ljust(draw(st.sampled_from((0, 60, 64))), draw(st.sampled_from((b"\0", b"\xa5")))), frame)


@st.composite
def _other(draw: st.DrawFn) -> tuple[int, bytes, dict[str, Any]]:
    ethertype = draw(st.sampled_from((ARP, 0x88CC, 0x8847, 46, 0x05FF, 0x0600)))
    return ethertype, draw(st.binary(min_size=1, max_size=60)), {"transport": 0, "end": 0}


@st.composite
def _transport(draw: st.DrawFn, protocols: Sequence[int]) -> tuple[int, bytes, dict[str, Any]]:
    """Protocol, header and payload without checksum, and what is in them."""
    protocol = draw(st.sampled_from(protocols))
    body = draw(st.binary(max_size=40))
    if protocol not in (TCP, UDP, SCTP):
        return protocol, draw(st.binary(min_size=8, max_size=8)) + body, {}
    source, destination = draw(st.integers(0, 65535)), draw(st.integers(0, 65535))
    head = struct.pack("!HH", source, destination)
    if protocol == TCP:
        words = draw(st.integers(5, 15))
        told = draw(st.sampled_from((words, words, words, words, 4, 0)))  # a header is 5 at least
        head += struct.pack("!IIBBHHH", 1, 2, told << 4, 0x18, 512, 0, 0) + bytes(4 * words - 20)
    elif protocol == UDP:
        slack = draw(st.sampled_from((0, 0, 0, 1, 3)))  # bytes behind what UDP calls its length
        head += struct.pack("!HH", 8 + max(len(body) - slack, 0), 0)
    else:
        head += draw(st.binary(min_size=8, max_size=8))
    return protocol, head + body, {"source_port": source, "destination_port": destination, "ports": 1}


def _summed(packet: bytes, frame: Frame, without: bool) -> bytes:
    """With a right checksum in the transport header; `without`: 0 where UDP may have none."""
    if frame.protocol not in SUMS or not frame.whole or (frame.protocol == UDP and without):
        return packet
    at = frame.transport + SUMS[frame.protocol]
    if at + 2 > len(packet):
        return packet
    packet = packet[:at] + b"\0\0" + packet[at + 2 :]
    value = 0xFFFF - transport_total(packet, frame)
    return packet[:at] + struct.pack("!H", value) + packet[at + 2 :]


@st.composite
def _ipv4(draw: st.DrawFn) -> tuple[int, bytes, dict[str, Any]]:
    protocol, segment, facts = draw(_transport((ICMP, TCP, TCP, UDP, UDP, SCTP, 47, 0, 44, 51)))
    fragment = draw(st.sampled_from((0, 0, 0x4000, 0x2000, 0x2001, 0x1000)))
    options = 4 * draw(st.sampled_from((0, 0, 0, 1, 10)))
    addresses, tos = draw(st.binary(min_size=8, max_size=8)), draw(st.integers(0, 255))
    size = 20 + options
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, tos, size + len(segment), 7, fragment, 64, protocol, 0)
    head += addresses + b"\x01" * options
    head = head[:10] + struct.pack("!H", 0xFFFF - total(head)) + head[12:]
    whole = fragment & 0x1FFF == 0
    frame = Frame(source=addresses[:4], destination=addresses[4:], protocol=protocol, transport=size, whole=whole)
    frame = frame._replace(end=size + len(segment))
    packet = _summed(head + segment, frame, draw(st.booleans()))
    facts = facts if whole else {}
    more = {name: getattr(frame, name) for name in ("source", "destination", "protocol", "transport", "end", "whole")}
    return IPV4, packet, {**facts, **more, "dscp": tos >> 2}


@st.composite
def _ipv6(draw: st.DrawFn) -> tuple[int, bytes, dict[str, Any]]:
    protocol, segment, facts = draw(_transport((ICMPV6, TCP, TCP, UDP, UDP, SCTP, 47, 50, 59)))
    addresses, tos = draw(st.binary(min_size=32, max_size=32)), draw(st.integers(0, 255))
    kinds = draw(st.lists(st.sampled_from(EXTENSIONS), max_size=4))
    whole = True
    headers = b""
    followers = [*kinds[1:], protocol]
    for kind, following in zip(kinds, followers):
        words = draw(st.integers(0, 3))
        if kind == FRAGMENT:
            offset = draw(st.sampled_from((0, 0, 1, 8, 0x8000)))  # bit 0: more come; from bit 3: where this one belongs
            headers += struct.pack("!BBHI", following, 9, offset, 9)  # the 9s mean nothing
            if offset >= 8:
                whole, protocol, segment = False, (0 if following in EXTENSIONS else following), b"later" + segment
                break
        elif kind == AUTHENTICATION:
            headers += struct.pack("!BB", following, words) + bytes(4 * words + 6)
        else:
            headers += struct.pack("!BB", following, words) + b"\x01" * (8 * words + 6)
    first = kinds[0] if kinds else protocol
    head = struct.pack("!IHBB", 0x60000000 | tos << 20, len(headers + segment), first, 64) + addresses
    size = 40 + len(headers)
    frame = Frame(source=addresses[:16], destination=addresses[16:], protocol=protocol, transport=size, whole=whole)
    frame = frame._replace(end=size + len(segment))
    packet = _summed(head + headers + segment, frame, draw(st.booleans()))
    facts = facts if whole else {}
    more = {name: getattr(frame, name) for name in ("source", "destination", "protocol", "transport", "end", "whole")}
    return IPV6, packet, {**facts, **more, "dscp": tos >> 2}
