# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program needs to be started, read from its file (elf(5)), whatever processor it is for."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import TestbedError

LOAD, DYNAMIC, INTERPRETER = 1, 2, 3  # p_type
NEEDED, STRINGS = 1, 5  # d_tag


class Segment(NamedTuple):
    """A program header; places and size in bytes."""

    kind: int
    offset: int
    address: int
    size: int


def needed(content: bytes) -> tuple[str, list[str]]:
    """Loader and libraries that a little-endian program names; nothing for a static one.

    Raises TestbedError for anything else than a program.
    """
    if content[:4] != b"\x7fELF" or content[5:6] != b"\x01":
        raise TestbedError("the image's busybox is no little-endian ELF program; take an image for the board")
    wide = content[4] == 2
    segments = list(_segments(content, wide))
    named = [segment for segment in segments if segment.kind == INTERPRETER]
    loader = _text(content, named[0].offset) if named else ""
    entries = [
        entry
        for segment in segments
        if segment.kind == DYNAMIC
        for entry in struct.iter_unpack(
            "<qQ" if wide else "<iI", content[segment.offset : segment.offset + segment.size]
        )
    ]
    strings = next((value for tag, value in entries if tag == STRINGS), 0)
    base = next(
        (
            strings - segment.address + segment.offset
            for segment in segments
            if segment.kind == LOAD and 0 <= strings - segment.address < segment.size
        ),
        0,
    )
    return loader, [_text(content, base + value) for tag, value in entries if tag == NEEDED]


def _segments(content: bytes, wide: bool) -> list[Segment]:
    if wide:
        start, size, count = *struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54)
        return [Segment(*struct.unpack_from("<I4xQQ8xQ", content, start + number * size)) for number in range(count)]
    start, size, count = *struct.unpack_from("<I", content, 28), *struct.unpack_from("<HH", content, 42)
    return [Segment(*struct.unpack_from("<III4xI", content, start + number * size)) for number in range(count)]


def _text(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at)].decode()
