# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image's root file system lies: the partition table by sfdisk, the file system by its superblock."""

from __future__ import annotations

import json
import os
import struct
from typing import Any, NamedTuple

from .. import programs
from ..errors import TestbedError

ARMBIAN = "armbi_root"  # the label that Armbian gives to its root file system
_SUPERBLOCK = (
    1024  # bytes from the start of the file system, and its size; fields: fs/ext4/ext4.h, struct ext4_super_block
)
_MAGIC = 0xEF53


class Root(NamedTuple):
    """The ext4 file system of one partition. Sizes in bytes."""

    partition: int  # counted as sfdisk counts, from 1
    start: int
    size: int  # of the partition
    label: str
    mounts: (
        int  # how often it was mounted, and when last (seconds since 1970): another value, and somebody has booted it
    )
    mounted: int

    @property
    def uses(self) -> list[int]:
        return [self.mounts, self.mounted]


def partitions(path: str) -> list[dict[str, Any]]:
    """As `sfdisk --json` has them, `start` and `size` in bytes; none where there is no partition table."""
    done = programs.run(["sfdisk", "--json", path])
    if done.returncode != 0:
        return []
    table = json.loads(done.stdout)["partitiontable"]
    sector = int(table.get("sectorsize", 512))
    return [
        {
            **partition,
            "number": int(partition["node"].removeprefix(path).lstrip("p")),
            "start": partition["start"] * sector,
            "size": partition["size"] * sector,
        }
        for partition in table.get("partitions", [])
    ]


def superblock(path: str, number: int, start: int, size: int) -> Root | None:
    """The ext4 file system in these bytes of the file or device, if there is one."""
    with open(path, "rb") as file:
        file.seek(start + _SUPERBLOCK)
        found = file.read(_SUPERBLOCK)
    if len(found) < _SUPERBLOCK or struct.unpack_from("<H", found, 0x38)[0] != _MAGIC:
        return None
    mounted, _written, mounts = struct.unpack_from("<IIH", found, 0x2C)
    label = found[0x78:0x88].split(b"\0")[0].decode("utf-8", errors="replace")
    return Root(number, start, size, label, mounts, mounted)


def find_root(path: str, total: int) -> Root:
    """The one ext4 partition of an image of `total` bytes; of several the one with Armbian's label.

    Raises TestbedError for what cannot be the image of a board.
    """
    listed = partitions(path)
    if not listed:
        raise TestbedError(
            f"the image has no partition table; src has to be the image of a whole card, as Armbian's are ({path})"
        )
    end = max(partition["start"] + partition["size"] for partition in listed)
    if end > total:
        raise TestbedError(
            f"the image is truncated: it has {total} bytes, and its last partition ends at byte {end}; "
            f"fetch src again ({path})"
        )
    roots = [
        root
        for partition in listed
        if (root := superblock(path, partition["number"], partition["start"], partition["size"]))
    ]
    if len(roots) > 1:
        roots = [root for root in roots if root.label == ARMBIAN] or roots
    if len(roots) != 1:
        raise TestbedError(
            f"the image has {len(roots) or 'no'} ext4 among its {len(listed)} partitions; "
            f"exactly one ext4, or one labelled {ARMBIAN}, can be prepared: give src another image ({path})"
        )
    return roots[0]


def find_any_root(path: str) -> Root | None:
    """What `find_root` would find on a card of any content; None where it would refuse."""
    try:
        with open(path, "rb") as file:
            return find_root(path, file.seek(0, os.SEEK_END))
    except TestbedError:
        return None
