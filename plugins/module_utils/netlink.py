# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small rtnetlink layer: bytes in, bytes out, nothing lost.

Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h; see netlink(7) and rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS, NLM_F_DUMP_INTR = 0x100, 0x200, 0x10
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTCLASS, RTM_DELTCLASS, RTM_GETTCLASS = 40, 41, 42
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTM_NEWACTION, RTM_DELACTION, RTM_GETACTION = 48, 49, 50

IFLA_MTU, IFLA_TXQLEN = 4, 13
ETH_HLEN = 14

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
TCMSG = struct.Struct("=BxxxiIII")  # tcmsg: family, ifindex, handle, parent, info
IFINFOMSG = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
ATTRIBUTE = struct.Struct("=HH")
ATTRIBUTE_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

SEND_CHUNK = 64  # messages a send: their acknowledgements fit the receive buffer
RECEIVE_BYTES = 1 << 16  # the kernel fills 32 KiB at most (netlink_recvmsg); a larger buffer costs more than it saves
SEND_BYTES = 100_000  # a send: what fits a socket's buffer (net.core.wmem_default is 212992)


class NetlinkError(OSError):
    """The kernel refused a message; `strerror` carries its extended acknowledgement where it gave one."""


class Message(NamedTuple):
    """One request: its type, its flags beyond REQUEST and ACK, and all bytes after nlmsghdr."""

    type: int
    flags: int
    body: bytes


class TcHeader(NamedTuple):
    """struct tcmsg without the family."""

    ifindex: int
    handle: int
    parent: int
    info: int


class Refusal(NamedTuple):
    """The kernel's answer to the message at `index` of a batch."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    errno: int
    reason: str


def align(length: int) -> int:
    return (length + 3) & ~3  # netlink pads everything to 4 bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = len(value)
    return ATTRIBUTE.pack(4 + length, kind) + value + b"\0\0\0"[: -length % 4]


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind, b"".join(attributes))


def u8(value: int) -> bytes:
    return struct.pack("=B", value)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def s32(value: int) -> bytes:
    return struct.pack("=i", value)


def u64(value: int) -> bytes:
    return struct.pack("=Q", value)


def s64(value: int) -> bytes:
    return struct.pack("=q", value)


def string(value: str) -> bytes:
    """A zero-terminated string."""
    return value.encode() + b"\0"


def text(value: bytes) -> str:
    """The text of a zero-terminated string."""
    return value.split(b"\0", 1)[0].decode(errors="replace")


def integer(value: bytes) -> int:
    """An unsigned integer in host order, as wide as it came."""
    return int.from_bytes(value, sys.byteorder)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `offset` on; of a type that repeats, the last one."""
    found = {}
    end, unpack = len(data) - 4, ATTRIBUTE.unpack_from
    while offset <= end:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        found[kind & ATTRIBUTE_TYPE] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Every attribute in order, also those whose type repeats."""
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & ATTRIBUTE_TYPE, data[offset + ATTRIBUTE.size : offset + length]
        offset += align(length)


def tc_message(
    kind: int, flags: int, ifindex: int, handle: int, parent: int, info: int = 0, payload: bytes = b""
) -> Message:
    """A traffic control request (struct tcmsg, linux/rtnetlink.h)."""
    return Message(kind, flags, TCMSG.pack(socket.AF_UNSPEC, ifindex, handle, parent, info) + payload)


def tc_header(body: bytes) -> TcHeader:
    """The fixed part of a traffic control message; its attributes start at TCMSG.size."""
    return TcHeader(*TCMSG.unpack_from(body)[1:])


def link_message(kind: int, flags: int, ifindex: int, payload: bytes = b"", up: bool | None = None) -> Message:
    """A link request (struct ifinfomsg); `up` sets or clears IFF_UP, None leaves it alone."""
    state, change = (0, 0) if up is None else (int(up), 1)
    return Message(kind, flags, IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, state, change) + payload)


class Socket:
    """A netlink socket. Batches return every refusal; dumps retry when the kernel says they were interrupted."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:  # older kernels: errors without words, dumps that are filtered here
                pass
        self._sequence = 0

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, messages: Sequence[Message], stop_at_refusal: bool = True) -> list[Refusal]:
        """Send requests in order, SEND_CHUNK at most in one system call, and collect what the kernel refused.

        The kernel works through a chunk to its end even after a refusal; `stop_at_refusal` sends no further chunk.
        """
        refusals: list[Refusal] = []
        start = 0
        for chunk in _chunks(messages):
            first = self._sequence + 1
            requests = [self._pack(message, 0) for message in chunk[:-1]]
            self._socket.send(b"".join(requests) + self._pack(chunk[-1], NLM_F_ACK))
            refusals += [
                Refusal(start + sequence - first, code, reason) for sequence, code, reason in self._refusals(first)
            ]
            if refusals and stop_at_refusal:
                break
            start += len(chunk)
        return refusals

    def request(self, message: Message) -> None:
        """Send one request; raise NetlinkError with the kernel's words when it is refused."""
        for refusal in self.send([message]):
            raise NetlinkError(refusal.errno, refusal.reason)

    def dump(self, message: Message) -> list[bytes]:
        """Bodies (what follows nlmsghdr) of all messages that answer a dump request."""
        for _attempt in range(10):
            try:
                return self._dump(message)
            except InterruptedError:
                continue
        raise NetlinkError(errno.EINTR, "the kernel's state changes faster than it can be read")

    def _dump(self, message: Message) -> list[bytes]:
        self._socket.send(self._pack(message, NLM_F_DUMP))
        found: list[bytes] = []
        interrupted = 0
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted |= flags
                if kind > NLMSG_DONE:
                    found.append(body)
                elif kind == NLMSG_ERROR:
                    raise NetlinkError(*_refusal(flags, body))
                elif kind == NLMSG_DONE:
                    if interrupted & NLM_F_DUMP_INTR:
                        raise InterruptedError
                    return found

    def _pack(self, message: Message, flags: int) -> bytes:
        self._sequence += 1
        kind, more, body = message
        return HEADER.pack(HEADER.size + len(body), kind, flags | more | NLM_F_REQUEST, self._sequence, 0) + body

    def _refusals(self, first: int) -> Iterator[tuple[int, int, str]]:
        """(sequence, errno, reason) of each message from `first` on that was refused.

        Only the last one asked for an acknowledgement; refusals come unasked (netlink_rcv_skb).
        """
        answered = 0
        while answered != self._sequence:
            for kind, flags, sequence, body in self._receive():
                if kind != NLMSG_ERROR or sequence < first:
                    continue
                answered = sequence
                code, reason = _refusal(flags, body)
                if code:
                    yield sequence, code, reason

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, body) of the messages that wait first."""
        data = self._socket.recv(RECEIVE_BYTES)
        found = []
        offset, end, size = 0, len(data), HEADER.size
        while offset + size <= end:
            length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
            found.append((kind, flags, sequence, data[offset + size : offset + length]))
            offset += (length + 3) & ~3
        return found


def _chunks(messages: Sequence[Message]) -> Iterator[list[Message]]:
    chunk: list[Message] = []
    size = 0
    for message in messages:
        if chunk and (len(chunk) == SEND_CHUNK or size + len(message.body) > SEND_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.body)
    if chunk:
        yield chunk


def queue_of(rtnetlink: Socket, ifindex: int) -> tuple[int, int]:
    """(queue length in packets, bytes of the longest packet with an Ethernet header) of an interface."""
    for body in rtnetlink.dump(link_message(RTM_GETLINK, 0, 0)):
        if IFINFOMSG.unpack_from(body)[2] == ifindex:
            found = attributes(body, IFINFOMSG.size)
            return integer(found[IFLA_TXQLEN]), integer(found[IFLA_MTU]) + ETH_HLEN
    raise NetlinkError(errno.ENODEV, os.strerror(errno.ENODEV))


def _refusal(flags: int, body: bytes) -> tuple[int, str]:
    """(errno, words) of an NLMSG_ERROR; errno 0 is an acknowledgement."""
    code = -struct.unpack_from("=i", body)[0]
    if not code:
        return 0, ""
    words = ""
    if flags & NLM_F_ACK_TLVS:
        request_length = HEADER.size if flags & NLM_F_CAPPED else align(HEADER.unpack_from(body, 4)[0])
        words = text(attributes(body, 4 + request_length).get(NLMSGERR_ATTR_MSG, b""))
    return code, f"{os.strerror(code)}: {words}" if words else os.strerror(code)
