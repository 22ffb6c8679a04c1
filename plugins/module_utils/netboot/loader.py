# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card that only starts a boot loader: the script that u-boot runs from it, and the bytes before its file system."""

from __future__ import annotations

import struct
import zlib

CARD = 32 << 20  # bytes of the card's file system; role board_image can make it larger
TABLE = slice(440, 512)  # disk signature and partition table in an msdos label's first sector

# u-boot's own order would try the network once, and then stand still; a board is to wait for its server.
BOOT = """\
echo netboot: asking SERVER
setenv autoload no
while true; do
    if dhcp; then
        setenv serverip SERVER
        if pxe get; then pxe boot; fi
    fi
    echo netboot: no answer from SERVER, asking again
    sleep 5
done
"""


def script(text: str) -> bytes:
    """As `mkimage -T script` makes it (u-boot's include/image.h, struct legacy_img_hdr), with a fixed time."""
    content = text.encode()
    data = struct.pack(">II", len(content), 0) + content
    linux, arm, a_script, unpacked = 5, 2, 6, 0
    fields = (0, len(data), 0, 0, zlib.crc32(data), linux, arm, a_script, unpacked, b"netboot")

    def head(checksum: int) -> bytes:
        return struct.pack(">7I4B32s", 0x27051956, checksum, *fields)

    return head(zlib.crc32(head(0))) + data


def without_table(head: bytes) -> bytes:
    """The first bytes of an image, up to its first partition, without its partition table."""
    return head[: TABLE.start] + bytes(TABLE.stop - TABLE.start) + head[TABLE.stop :]
