# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States and policies as bytes (linux/xfrm.h), each way."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

from ..netlink import Message, attribute, attributes, integer, text, u8, u32
from .model import DIRECTIONS, IPTFS, Algorithm, Count, Iptfs, Key, Policy, Selector, State

NETLINK_XFRM = 6
NEWSA, DELSA, GETSA, NEWPOLICY, DELPOLICY, GETPOLICY, UPDPOLICY = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x19
ALG_AUTH, ALG_CRYPT, TMPL, REPLAY_VAL, ALG_AEAD, ALG_AUTH_TRUNC, MARK = 1, 2, 5, 10, 18, 20, 21
REPLAY_ESN_VAL, SA_EXTRA_FLAGS, IF_ID, SA_DIR = 23, 24, 31, 33
DROP_TIME, REORDER_WINDOW, DONT_FRAG, INIT_DELAY, MAX_QSIZE, PKT_SIZE = range(36, 42)  # XFRMA_IPTFS_…
AF_UNSPEC_FLAG, ESN_FLAG = 32, 128  # XFRM_STATE_…: any family inside; sequence numbers of 64 bits
OSEQ_MAY_WRAP = 2  # XFRM_SA_XFLAG_…
SA_DIRECTIONS = {"in": 1, "out": 2}

SELECTOR = struct.Struct("=16s16s4HHBBBxxxiI")  # destination, source, ports, family, prefixes, protocol, ifindex, user
IDENTITY = struct.Struct("=16s4sBxxx")  # xfrm_id: destination, SPI, protocol
LIMITS = struct.pack("=8Q", *[2**64 - 1] * 4, *[0] * 4)  # xfrm_lifetime_cfg: none
PASSED = bytes(32)  # xfrm_lifetime_cur
SA = struct.Struct("=56s24s16s64s32s12sIIHBBB7x")  # xfrm_usersa_info
SA_ID = struct.Struct("=16s4sHBx")
POLICY = struct.Struct("=56s64s32sIIBBBB4x")  # xfrm_userpolicy_info
POLICY_ID = struct.Struct("=56sIBxxx")
TEMPLATE = struct.Struct("=24sHxx16sIBBBxIII")  # xfrm_user_tmpl
ESN = struct.Struct("=6I")  # xfrm_replay_state_esn: words, sent, received, their upper halves, window
REPLAY = struct.Struct("=3I")  # xfrm_replay_state: sent, received, bitmap
ANY = 2**32 - 1  # all algorithms
ALGORITHMS = {"aead": ALG_AEAD, "auth-trunc": ALG_AUTH_TRUNC, "enc": ALG_CRYPT}


class Found(NamedTuple):
    """A state of anybody's: enough to know whom it belongs to."""

    state: State
    protocol: int


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed.ljust(16, b"\0")


def _address(data: bytes, family: int) -> str:
    return str(ipaddress.ip_address(data if family == socket.AF_INET6 else data[:4]))


def _selector(selector: Selector) -> bytes:
    source, destination = (ipaddress.ip_network(one) for one in selector)
    return SELECTOR.pack(
        *(network.network_address.packed.ljust(16, b"\0") for network in (destination, source)),
        *(0, 0, 0, 0, _family(selector.source), destination.prefixlen, source.prefixlen, 0, 0, 0),
    )


def encode_state(state: State) -> Message:
    """A request that adds the state; its sequence numbers go on from `numbers`."""
    esn = state.window > 0
    flags = AF_UNSPEC_FLAG | state.flags | (ESN_FLAG if esn else 0)
    identity = IDENTITY.pack(_packed(state.destination), struct.pack("!I", state.spi), socket.IPPROTO_ESP)
    body = SA.pack(
        *(bytes(SELECTOR.size), identity, _packed(state.source), LIMITS, PASSED, bytes(12)),
        *(0, state.reqid, _family(state.destination), state.mode, 0, flags),
    )
    body += b"".join(_algorithm(one) for one in state.algorithms)
    body += _esn(state) if esn else attribute(REPLAY_VAL, REPLAY.pack(state.numbers.sent & ANY, 0, 0))
    if not esn and state.direction != "in":
        body += attribute(SA_EXTRA_FLAGS, u32(OSEQ_MAY_WRAP))
    if state.direction:
        body += attribute(SA_DIR, u8(SA_DIRECTIONS[state.direction]))
    return Message(NEWSA, 0, body + (_iptfs(state.iptfs, state.direction) if state.iptfs else b""))


def _algorithm(one: Algorithm) -> bytes:
    lengths = [len(one.key.data) * 8] + ([one.icv] if one.role != "enc" else [])
    return attribute(
        ALGORITHMS[one.role],
        one.name.encode().ljust(64, b"\0") + struct.pack(f"={len(lengths)}I", *lengths) + one.key.data,
    )


def _esn(state: State) -> bytes:
    """Numbers of the other direction, and a window of a state that sends, are refused where the direction is known."""
    sends, receives = state.direction != "in", state.direction != "out"
    sent, received = state.numbers.sent * sends, state.numbers.received * receives
    words = -(-state.window // 32) * receives
    parts = (words, sent & ANY, received & ANY, sent >> 32, received >> 32, state.window * receives)
    return attribute(REPLAY_ESN_VAL, ESN.pack(*parts) + bytes(4 * words))


def _iptfs(options: Iptfs, direction: str) -> bytes:
    if direction == "in":
        window = attribute(REORDER_WINDOW, struct.pack("=H", options.reorder_window))
        return attribute(DROP_TIME, u32(options.drop_time)) + window
    numbers = ((INIT_DELAY, options.init_delay), (MAX_QSIZE, options.max_queue), (PKT_SIZE, options.packet_size))
    sent = b"".join(attribute(kind, u32(number)) for kind, number in numbers)
    return sent + (attribute(DONT_FRAG, b"") if options.dont_fragment else b"")


def encode_deletion(state: State) -> Message:
    identity = (
        _packed(state.destination),
        struct.pack("!I", state.spi),
        _family(state.destination),
        socket.IPPROTO_ESP,
    )
    return Message(DELSA, 0, SA_ID.pack(*identity))


def decode_state(body: bytes) -> Found:
    _sel, identity, source, _limits, _passed, _stats, _seq, reqid, family, mode, window, flags = SA.unpack_from(body)
    destination, spi, protocol = IDENTITY.unpack(identity)
    found = attributes(body, SA.size)
    sides = {number: name for name, number in SA_DIRECTIONS.items()}
    direction = sides.get(integer(found.get(SA_DIR, b"")), "")
    count = Count()
    if REPLAY_ESN_VAL in found:
        _words, sent, received, sent_upper, received_upper, window = ESN.unpack_from(found[REPLAY_ESN_VAL])
        count = Count(sent_upper << 32 | sent, received_upper << 32 | received)
    elif REPLAY_VAL in found:
        count = Count(*REPLAY.unpack_from(found[REPLAY_VAL])[:2])
    esn = bool(flags & ESN_FLAG)
    state = State(
        *(_address(source, family), _address(destination, family), struct.unpack("!I", spi)[0], reqid, mode),
        _algorithms(found),
        window,
        direction,
        _found_iptfs(found) if mode == IPTFS else None,
        flags & ~(AF_UNSPEC_FLAG | ESN_FLAG),
        count,
    )
    return Found(state._replace(window=1) if esn and direction == "out" else state, protocol)


def _algorithms(found: dict[int, bytes]) -> tuple[Algorithm, ...]:
    """In the order of ALGORITHMS; the kernel repeats ALG_AUTH_TRUNC as ALG_AUTH for old programs."""
    result = []
    for role, kind in ALGORITHMS.items():
        if kind not in found:
            continue
        data = found[kind]
        start = 68 if role == "enc" else 72
        bits = integer(data[64:68])
        icv = 0 if role == "enc" else integer(data[68:72])
        result.append(Algorithm(role, text(data[:64]), Key(data[start : start + (bits + 7) // 8]), icv))
    return tuple(result)


def _found_iptfs(found: dict[int, bytes]) -> Iptfs:
    numbers = [integer(found.get(kind, b"")) for kind in (INIT_DELAY, MAX_QSIZE, DROP_TIME, REORDER_WINDOW)]
    return Iptfs(integer(found.get(PKT_SIZE, b"")), DONT_FRAG in found, *numbers)


def encode_policy(policy: Policy, kind: int = NEWPOLICY) -> Message:
    """A request that adds the policy, or with UPDPOLICY replaces the one of the same packets."""
    place = (policy.priority, 0, DIRECTIONS[policy.direction], 0, 0, 0)
    body = POLICY.pack(_selector(policy.selector), LIMITS, PASSED, *place)
    identity = IDENTITY.pack(_packed(policy.destination), bytes(4), socket.IPPROTO_ESP)
    outer = (_family(policy.destination), _packed(policy.source), policy.reqid, policy.mode, 0, 0, ANY, ANY, ANY)
    return Message(kind, 0, body + attribute(TMPL, TEMPLATE.pack(identity, *outer)))


def encode_policy_deletion(policy: Policy) -> Message:
    return Message(DELPOLICY, 0, POLICY_ID.pack(_selector(policy.selector), 0, DIRECTIONS[policy.direction]))


def decode_policy(body: bytes) -> Policy | None:
    """A policy of anybody's; None for those of sockets, which are their programs' own.

    `foreign` says what a policy of ours has not: ports, several templates, a mark, another action.
    """
    selector, limits, _passed, priority, _index, side, action, flags, share = POLICY.unpack_from(body)
    direction = {number: name for name, number in DIRECTIONS.items()}.get(side)
    if direction is None:
        return None
    destination, source, *ports, family, bits_to, bits_from, protocol, ifindex, _user = SELECTOR.unpack(selector)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = attributes(body, POLICY.size)
    templates = found.get(TMPL, b"")
    strange = [
        name
        for name, odd in (
            ("ports", any(ports) or protocol or ifindex),
            ("limits", limits != LIMITS),
            ("action", action or flags or share),
            ("mark", MARK in found or IF_ID in found),
            ("templates", len(templates) != TEMPLATE.size),
        )
        if odd
    ]
    packets = Selector(
        f"{_address(source, family)}/{bits_from}",
        f"{_address(destination, family)}/{bits_to}",
    )
    if len(templates) < TEMPLATE.size:
        return Policy(direction, packets, "", "", 0, 0, priority, " ".join(strange))
    identity, outer, outer_source, reqid, mode, tmpl_share, optional, *_algos = TEMPLATE.unpack_from(templates)
    if tmpl_share or optional:
        strange.append("template")
    ends = (_address(outer_source, outer), _address(identity[:16], outer))
    return Policy(direction, packets, *ends, reqid, mode, priority, " ".join(strange))
