# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node's side says, found in a stream into which a kernel writes at any byte (files/console/agent says it)."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

# A line of printk's, with CONFIG_PRINTK_TIME and perhaps CONFIG_PRINTK_CALLER; it begins at any byte of ours.
KERNEL_LINE = re.compile(rb"(?:<\d{1,3}>)?\[ *\d+\.\d{6}\][^\r\n]*\r*\n")
MODULUS = 2147483647  # a prime that awk's doubles multiply by 257 without loss
GZIP = 16 + zlib.MAX_WBITS


class Answer(NamedTuple):
    """What a command did."""

    code: int
    stdout: bytes
    stderr: bytes


class Torn(Exception):
    """All frames are there, but they are not what was sent."""


def views(heard: bytes) -> tuple[bytes, ...]:
    """What was heard; and without the kernel's lines, which mends what they tore."""
    without = KERNEL_LINE.sub(b"", heard)
    return (heard,) if without == heard else (heard, without)


def said(token: str, what: str) -> re.Pattern[bytes]:
    """A short thing, which is said twice; group 1 is all of it, groups of `what` follow."""
    return re.compile(rf"~{token}:({what}):\1~".encode())


def checksum(id_: int, number: int, block: bytes) -> int:
    """Of one frame or line, with its place and the request that it belongs to."""
    total = 0
    for byte in b"%d:%d:%s" % (id_, number, block):
        total = (total * 257 + byte) % MODULUS
    return total


class Frames:
    """The frames of one answer, whichever arrive whole."""

    def __init__(self, token: str, id_: int) -> None:
        self._id = id_
        self._split = f"~{token}~\n".encode()
        self._frame = re.compile(rf"~{token}:(\d{{1,9}}):(\d{{1,10}}):([A-Za-z0-9+/=]+)~".encode())
        self._blocks: dict[int, bytes] = {}

    def take(self, heard: bytes) -> None:
        """Keep every whole frame of what was heard."""
        for view in views(heard):
            for number, total, block in self._found(view):
                if number not in self._blocks and checksum(self._id, number, block) == total:
                    self._blocks[number] = block

    def _found(self, text: bytes) -> Iterator[tuple[int, int, bytes]]:
        """What looks like a frame. The end of a torn one may be the beginning of the next: no byte is used up."""
        place = 0
        while (found := self._frame.search(text, place)) is not None:
            place = found.end() - 1
            yield int(found[1]), int(found[2]), found[3]

    def missing(self, count: int) -> list[tuple[int, int]]:
        """Which of so many frames are not there yet, as ranges without their end."""
        ranges: list[tuple[int, int]] = []
        for number in range(count):
            if number in self._blocks:
                continue
            if ranges and ranges[-1][1] == number:
                ranges[-1] = (ranges[-1][0], number + 1)
            else:
                ranges.append((number, number + 1))
        return ranges

    def answer(self, count: int) -> Answer:
        """What the first `count` frames say. Raises Torn: gzip's own checksum does not agree."""
        try:
            packed = base64.b64decode(b"".join(self._blocks[number] for number in range(count)), validate=True)
            unpacking = zlib.decompressobj(GZIP)
            document = unpacking.decompress(packed)
            if not unpacking.eof:
                raise Torn("the answer ends early")
            head, _newline, rest = document.partition(b"\n")
            code = int(head)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise Torn(str(error)) from None
        stdout, _split, stderr = rest.partition(self._split)
        return Answer(code, stdout, stderr)

    def forget(self) -> None:
        self._blocks.clear()
