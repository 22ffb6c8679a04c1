# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A FAT12 volume with a few files, as a debug probe shows it; boards have no mkfs.vfat.

Source: Microsoft's FAT32 File System Specification, version 1.03, which has FAT12 too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

SECTOR = 512
ROOT_ENTRIES = 512
SMALLEST, LARGEST = 64 * 1024, 64 * 1024 * 1024  # bytes of a volume
MOST_CLUSTERS = 4084  # with one more it would be FAT16
DATE = (46 << 9) | (1 << 5) | 1  # 2026-01-01: the same volume at each making
NAME = re.compile(r"([A-Z0-9_~-]{1,8})(?:\.([A-Z0-9_~-]{1,3}))?")
LABEL = re.compile(r"[A-Z0-9_ -]{1,11}")

_BOOT = struct.Struct("<3s8sHBHBHHBHHHIIBBBI11s8s")
_ENTRY = struct.Struct("<11sBBBHHHHHHHI")
_END_OF_CHAIN = 0xFFF


def volume(size: int, label: str, contents: Mapping[str, bytes]) -> bytes:
    """The volume's bytes. `size` in bytes, from SMALLEST to LARGEST; names of `contents` are as NAME, `label` as LABEL.

    Raises ValueError where the files do not fit.
    """
    sectors = size // SECTOR
    per_cluster = 1
    while sectors // per_cluster > MOST_CLUSTERS:
        per_cluster *= 2
    fat_sectors = -(-(sectors // per_cluster + 2) * 3 // 2 // SECTOR) + 1
    first = 1 + 2 * fat_sectors + ROOT_ENTRIES * 32 // SECTOR
    clusters = (sectors - first) // per_cluster
    cluster_bytes = per_cluster * SECTOR

    chain = [0xFF8, _END_OF_CHAIN]
    root = [_entry(_padded(label, ""), 0x08, 0, 0)]
    data = b""
    for name, content in contents.items():
        needed = -(-len(content) // cluster_bytes)
        root.append(_entry(_short(name), 0x20, len(chain) if needed else 0, len(content)))
        chain += [*range(len(chain) + 1, len(chain) + needed), _END_OF_CHAIN] if needed else []
        data += content.ljust(needed * cluster_bytes, b"\0")
    if len(chain) - 2 > clusters or len(root) > ROOT_ENTRIES:
        raise ValueError(
            f"the files need {len(chain) - 2} clusters of {cluster_bytes} bytes, the volume has {clusters}"
        )
    fat = _packed(chain).ljust(fat_sectors * SECTOR, b"\0")
    directory = b"".join(root).ljust(ROOT_ENTRIES * 32, b"\0")
    return (_boot(sectors, per_cluster, fat_sectors, label) + fat + fat + directory + data).ljust(size, b"\0")


def _boot(sectors: int, per_cluster: int, fat_sectors: int, label: str) -> bytes:
    small, large = (sectors, 0) if sectors < 0x10000 else (0, sectors)
    fields = (
        b"\xeb\x3c\x90",
        b"MSDOS5.0",
        SECTOR,
        per_cluster,
        1,
        2,
        ROOT_ENTRIES,
        small,
        0xF8,
        fat_sectors,
        32,
        64,
        0,
        large,
    )
    boot = _BOOT.pack(*fields, 0x80, 0, 0x29, 0x7E57BED0, _padded(label, ""), b"FAT12   ")
    return boot.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return _ENTRY.pack(name, attributes, 0, 0, 0, DATE, DATE, 0, 0, DATE, cluster, size)


def _short(name: str) -> bytes:
    stem, _dot, suffix = name.partition(".")
    return _padded(stem, suffix)


def _padded(stem: str, suffix: str) -> bytes:
    return (stem.ljust(8) + suffix.ljust(3)).encode("ascii") if len(stem) <= 8 else stem.ljust(11).encode("ascii")


def _packed(chain: list[int]) -> bytes:
    """Two entries of 12 bits in three bytes."""
    pairs = [*chain, 0] if len(chain) % 2 else chain
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in zip(pairs[::2], pairs[1::2]))
