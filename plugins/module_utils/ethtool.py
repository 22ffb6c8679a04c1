# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Features of interfaces, as `ethtool -k` shows and `ethtool -K` changes them, by the kernel's names for them.

Layouts: linux/ethtool.h (struct ethtool_gstrings, ethtool_gfeatures, ethtool_sfeatures).
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

SIOCETHTOOL = 0x8946  # linux/sockios.h
GSTRINGS, GFEATURES, SFEATURES = 0x1B, 0x3A, 0x3B
ETH_SS_FEATURES, ETH_GSTRING_LEN = 4, 32
WORDS = 8  # of 32 features each; the kernel has two, and says how many
_HEAD = struct.Struct("=II")  # command, number of words


class Features(NamedTuple):
    """Names of features: those that can be switched, those that somebody asked for, those that are on."""

    available: frozenset[str]
    requested: frozenset[str]
    active: frozenset[str]


def features(interface: str) -> Features:
    """Raises OSError where the interface is gone, or has none."""
    names = _names(interface)
    data = _call(interface, _HEAD.pack(GFEATURES, WORDS) + bytes(16 * WORDS))
    count = _HEAD.unpack_from(data)[1]
    words = [struct.unpack_from("=4I", data, _HEAD.size + 16 * number) for number in range(min(count, WORDS))]
    sets: list[set[str]] = [set(), set(), set(), set()]
    for bit, name in enumerate(names):
        if name and bit // 32 < len(words):
            for found, word in zip(sets, words[bit // 32]):
                if word >> bit % 32 & 1:
                    found.add(name)
    return Features(*(frozenset(found) for found in sets[:3]))


def switch(interface: str, wanted: Mapping[str, bool]) -> None:
    """Ask for features, or no longer. Raises OSError where the kernel refuses; it does not tell where a driver does."""
    names = _names(interface)
    data = _call(interface, _HEAD.pack(GFEATURES, WORDS) + bytes(16 * WORDS))
    count = min(_HEAD.unpack_from(data)[1], WORDS)  # the kernel takes no other
    words = [[0, 0] for _word in range(count)]
    for name, on in wanted.items():
        bit = names.index(name)
        words[bit // 32][0] |= 1 << bit % 32
        words[bit // 32][1] |= on << bit % 32
    _call(interface, _HEAD.pack(SFEATURES, count) + b"".join(struct.pack("=2I", *word) for word in words))


@lru_cache(maxsize=1)
def _strings(data: bytes) -> list[str]:
    count = struct.unpack_from("=I", data, 8)[0]
    parts = [data[12 + ETH_GSTRING_LEN * number :][:ETH_GSTRING_LEN] for number in range(count)]
    return [part.split(b"\0", 1)[0].decode(errors="replace") for part in parts]


def _names(interface: str) -> list[str]:
    """The names of all features that this kernel knows, by their bits."""
    head = struct.pack("=III", GSTRINGS, ETH_SS_FEATURES, 0)
    return _strings(_call(interface, head + bytes(ETH_GSTRING_LEN * 32 * WORDS)))


def _call(interface: str, data: bytes) -> bytes:
    """What the kernel wrote into `data`."""
    buffer = ctypes.create_string_buffer(data, len(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(buffer))
        fcntl.ioctl(handle, SIOCETHTOOL, request)
    return buffer.raw
