# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The u32 classifier: masked 32-bit words of the packet (net/sched/cls_u32.c, tc-u32(8))."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ... import schema
from ...netlink import attribute, attributes, integer, string, text, u32
from ..model import Raw, parse_handle
from .base import Kind
from .filters import (
    Action,
    check_target,
    decode_actions,
    encode_actions,
    parse_actions,
    parse_interface,
    render_actions,
    target_text,
)

TCA_U32_CLASSID, TCA_U32_LINK, TCA_U32_SEL, TCA_U32_POLICE, TCA_U32_ACT = 1, 3, 5, 6, 7
TCA_U32_INDEV, TCA_U32_MARK = 8, 10
SELECTOR = struct.Struct("=BBBxHHhhI")  # tc_u32_sel: flags, offset shift, keys, offset mask, offset, …, hash mask
KEY = struct.Struct("=4s4sii")  # tc_u32_key: mask and value in network order, offset, offset mask
MASK_AND_VALUE, OFFSETS = struct.Struct(">II"), struct.Struct("=ii")  # the same, in two parts
WORD = struct.Struct(">I")
MARK = struct.Struct("=3I")  # tc_u32_mark: value, mask, successes
TERMINAL = 1  # TC_U32_TERMINAL
NEXT_HEADER = -1  # offset mask: the offset counts from where a link left off
MAX_KEYS = 128


class Key(NamedTuple):
    """One word at `offset` bytes from the network header (negative: the link header) must have `value` under `mask`."""

    value: int
    mask: int
    offset: int
    offset_mask: int = 0


class U32(NamedTuple):
    """All keys, the ingress device (a name) and the mark (value, mask) must match."""

    target: int
    keys: tuple[Key, ...]
    indev: str = ""
    mark: tuple[int, int] | None = None
    actions: tuple[Action, ...] = ()


def merge(keys: Sequence[Key]) -> tuple[Key, ...]:
    """Keys of the same word become one, as tc packs them; ValueError where they contradict each other."""
    words: dict[tuple[int, int], Key] = {}
    for key in keys:
        place = (key.offset, key.offset_mask)
        known = words.get(place, Key(0, 0, *place))
        if (known.value ^ key.value) & known.mask & key.mask:
            raise ValueError(f"two keys ask for different values at offset {key.offset}")
        words[place] = Key(known.value | key.value & key.mask, known.mask | key.mask, *place)
    return tuple(words.values())


def key(value: int, mask: int, offset: int, width: int = 4, offset_mask: int = 0) -> Key:
    """A key of `width` bytes (1, 2 or 4) at any offset, moved into its aligned word."""
    shift = 8 * (4 - width - offset % 4)
    if shift < 0:
        raise ValueError(f"{width} bytes at offset {offset} cross a 32-bit word")
    return Key((value & mask) << shift, mask << shift, offset - offset % 4, offset_mask)


def address_keys(network: ipaddress.IPv4Network | ipaddress.IPv6Network, offset: int) -> list[Key]:
    """Keys of an address prefix at `offset`; words of IPv6 without a masked bit are left out, as tc does."""
    value, mask = int(network.network_address), int(network.netmask)
    count = network.max_prefixlen // 32
    parts = [(value >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF) for shift in range(32 * (count - 1), -1, -32)]
    return [Key(part, bits, offset + 4 * index) for index, (part, bits) in enumerate(parts) if bits or count == 1]


def mac_keys(address: str, offset: int) -> list[Key]:
    """Keys of a MAC address at `offset` (-14 destination, -8 source: before the network header)."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", address):
        raise ValueError("a MAC address has six bytes, such as 52:54:00:00:00:01")
    number = int(address.replace(":", ""), 16)
    return [key(number >> shift & 0xFFFF, 0xFFFF, offset + 4 - shift // 8, 2) for shift in (32, 16, 0)]


def _plain(count: int) -> tuple[int, ...]:
    """The selector of a filter with so many keys, without the kernel's arts of hashing and offsets."""
    return TERMINAL, 0, count, 0, 0, 0, 0, 0


def encode(options: U32) -> bytes:
    data = attribute(TCA_U32_CLASSID, u32(options.target))
    selector = SELECTOR.pack(*_plain(len(options.keys)))
    for word in options.keys:
        selector += MASK_AND_VALUE.pack(word.mask, word.value) + OFFSETS.pack(word.offset, word.offset_mask)
    data += attribute(TCA_U32_SEL, selector)
    if options.indev:
        data += attribute(TCA_U32_INDEV, string(options.indev))
    if options.mark is not None:
        data += attribute(TCA_U32_MARK, MARK.pack(*options.mark, 0))
    return data + encode_actions(TCA_U32_ACT, options.actions)


def decode(data: bytes) -> U32 | Raw:
    """Raw of one that leads to another table, hashes, or polices in the way of old."""
    found = attributes(data)
    selector = found[TCA_U32_SEL]
    if found.keys() & {TCA_U32_LINK, TCA_U32_POLICE} or SELECTOR.unpack_from(selector) != _plain(selector[2]):
        return Raw(data)
    keys = []
    for at in range(SELECTOR.size, SELECTOR.size + selector[2] * KEY.size, KEY.size):
        mask, value = MASK_AND_VALUE.unpack_from(selector, at)
        keys.append(Key(value, mask, *OFFSETS.unpack_from(selector, at + MASK_AND_VALUE.size)))
    mark = MARK.unpack_from(found[TCA_U32_MARK])[:2] if TCA_U32_MARK in found else None
    return U32(
        integer(found.get(TCA_U32_CLASSID, b"")),
        tuple(keys),
        text(found[TCA_U32_INDEV]) if TCA_U32_INDEV in found else "",
        mark,
        decode_actions(found[TCA_U32_ACT]) if TCA_U32_ACT in found else (),
    )


def render(options: U32) -> str:
    parts = []
    for word in options.keys:
        place = f"nexthdr+{word.offset}" if word.offset_mask else str(word.offset)
        parts.append(f"match u32 {word.value:#010x} {word.mask:#010x} at {place}")
    if options.mark:
        parts.append(f"match mark {options.mark[0]:#x} {options.mark[1]:#x}")
    if options.indev:
        parts.append(f"indev {options.indev}")
    parts.append(f"flowid {target_text(options.target)}")
    if options.actions:
        parts.append(render_actions(options.actions))
    return " ".join(parts)


# Fields by tc's names: (offset, width). Ports stand there in packets without IP options or extension headers.
_FIELDS = {
    "ip": {"dsfield": (1, 1), "tos": (1, 1), "protocol": (9, 1), "sport": (20, 2), "dport": (22, 2), "ihl": (0, 1)},
    "ip6": {"protocol": (6, 1), "sport": (40, 2), "dport": (42, 2)},
}
_ADDRESSES = {"ip": {"src": 12, "dst": 16}, "ip6": {"src": 8, "dst": 24}}
_LENGTHS = {str(length): 2**32 - 2 ** (32 - length) for length in range(33)}  # and the mask of each
_WIDTHS = {"u8": 1, "u16": 2, "u32": 4}
ALLOWED = (
    "write a match of tc-u32(8), such as `ip dport 7575 0xffff`, `ip src 10.0.0.0/8`, `u16 0x1d97 0xffff at 22`, "
    "`mark 0x2 0xff` or `ether dst 52:54:00:00:00:01`"
)


def parse_match(value: object) -> list[Key] | tuple[int, int]:
    """Keys, or (value, mask) of a mark, of one `match` as tc takes it. Raises ValueError with what is allowed."""
    parts = str(value).split()
    try:
        if parts[0] in _WIDTHS:
            return [_parse_word(parts)]
        if parts[0] == "mark" and len(parts) == 3:
            return _fitting(_number(parts[1]), 4), _fitting(_number(parts[2]), 4)
        if parts[0] == "ether" and parts[1] in ("src", "dst") and len(parts) == 3:
            return mac_keys(parts[2], -8 if parts[1] == "src" else -14)
        if parts[1] in _ADDRESSES[parts[0]] and len(parts) == 3:
            return _parse_network(parts[0], parts[2], _ADDRESSES[parts[0]][parts[1]])
        offset, width = _FIELDS[parts[0]][parts[1]]
        if len(parts) != 4:
            raise IndexError
        return [_checked(_number(parts[2]), _mask(parts[3]), offset, width)]
    except (IndexError, KeyError):
        raise ValueError(ALLOWED) from None
    except ValueError as error:
        raise ValueError(f"{ALLOWED} ({error})") from None


def _parse_network(family: str, text: str, offset: int) -> list[Key]:
    """Keys of an address with its prefix; the usual IPv4 ones are read by the C library, as there may be thousands."""
    address, _slash, length = text.partition("/")
    if family == "ip" and length in _LENGTHS:
        try:
            (value,) = WORD.unpack(socket.inet_pton(socket.AF_INET, address))
        except OSError:
            value = -1
        mask = _LENGTHS[length]
        if value & ~mask == 0:
            return [Key(value, mask, offset)]
    version = ipaddress.IPv4Network if family == "ip" else ipaddress.IPv6Network
    return address_keys(version(text), offset)


def _parse_word(parts: list[str]) -> Key:
    """`u32 VALUE MASK [at [nexthdr+]OFFSET]`."""
    if len(parts) not in (3, 5) or parts[3:4] not in ([], ["at"]):
        raise IndexError
    place = parts[4] if len(parts) == 5 else "0"
    offset_mask = NEXT_HEADER if place.startswith("nexthdr+") else 0
    place = place.removeprefix("nexthdr+")
    offset = -_number(place[1:]) if place.startswith("-") else _number(place)
    if not -(2**15) <= offset < 2**15:
        raise ValueError("an offset lies between -32768 and 32767")
    return _checked(_number(parts[1]), _mask(parts[2]), offset, _WIDTHS[parts[0]], offset_mask)


def _number(word: str) -> int:
    """Values and offsets are decimal, or hexadecimal with 0x (tc would read a leading 0 as octal: refused)."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", word):
        raise ValueError(f"`{word}` is no number")
    return int(word, 0)


def _mask(word: str) -> int:
    """Masks are hexadecimal to tc, with or without 0x."""
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]+", word):
        raise ValueError(f"`{word}` is no mask")
    return int(word, 16)


def _fitting(number: int, width: int) -> int:
    if number >= 1 << 8 * width:
        raise ValueError(f"value and mask must fit {width} bytes")
    return number


def _checked(number: int, mask: int, offset: int, width: int, offset_mask: int = 0) -> Key:
    return key(_fitting(number, width), _fitting(mask, width), offset, width, offset_mask)


def _build(
    match: Sequence[list[Key] | tuple[int, int]] = (),
    flowid: int | None = None,
    indev: str = "",
    action: tuple[Action, ...] = (),
) -> U32:
    target = check_target(flowid, action)
    marks = [part for part in match if isinstance(part, tuple)]
    if len(marks) > 1:
        raise ValueError("only one mark can be matched")
    parts = [part for part in match if not isinstance(part, tuple)]
    keys = tuple(parts[0]) if len(parts) == 1 == len(parts[0]) else merge([word for part in parts for word in part])
    if not keys and not marks and not indev:
        raise ValueError("u32 needs a match; `u32 0 0` matches everything")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"u32 takes {MAX_KEYS} keys at most")
    return U32(target, keys, indev, marks[0] if marks else None, action)


FILTER = Kind(
    "u32",
    {
        "match": schema.sequence(schema.leaf(parse_match)),
        "flowid": schema.leaf(parse_handle),
        "indev": schema.leaf(parse_interface),
        "action": parse_actions,
    },
    _build,
    encode,
    decode,
    render,
)
