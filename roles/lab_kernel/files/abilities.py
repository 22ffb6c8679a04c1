# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel under this program can do, found by trying, as JSON. Run by `try`, in the collection's folder.

It sleeps for a thousand seconds: without time travel it takes too long.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time

NETLINK_XFRM, XFRM_MSG_NEWSA = 6, 0x10  # linux/netlink.h, linux/xfrm.h
XFRMA_ALG_AEAD, XFRMA_SA_DIR, XFRM_SA_DIR_OUT, XFRM_MODE_IPTFS = 18, 33, 2, 5
NLM_F_CREATE_ACK = 0x405
INFINITE = 2**64 - 1


def time_travels() -> bool:
    begun = time.monotonic()
    time.sleep(1000)
    return 1000 <= time.monotonic() - begun < 1001


def address(text: str) -> bytes:
    return socket.inet_aton(text).ljust(16, b"\0")


def attribute(number: int, body: bytes) -> bytes:
    return (struct.pack("=HH", 4 + len(body), number) + body).ljust(4 + (len(body) + 3) // 4 * 4, b"\0")


def iptfs() -> bool:
    """Whether an IPsec state may have the mode of RFC 9347 (struct xfrm_usersa_info)."""
    selector = struct.pack("=16s16s8xH14x", address("0.0.0.0"), address("0.0.0.0"), socket.AF_INET)
    identity = address("192.0.2.2") + struct.pack("!IBxxx", 1000, socket.IPPROTO_ESP)
    limits = struct.pack("=8Q", *[INFINITE] * 4, *[0] * 4) + bytes(32 + 12)  # what has passed: nothing
    rest = struct.pack("=IIHBBBxxxxxxx", 0, 1, socket.AF_INET, XFRM_MODE_IPTFS, 0, 0)
    cipher = struct.pack("=64sII20x", b"rfc4106(gcm(aes))", 160, 128)
    body = selector + identity + address("192.0.2.1") + limits + rest
    body += attribute(XFRMA_ALG_AEAD, cipher) + attribute(XFRMA_SA_DIR, bytes([XFRM_SA_DIR_OUT]))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(body), XFRM_MSG_NEWSA, NLM_F_CREATE_ACK, 1, 0) + body)
        return struct.unpack_from("=i", kernel.recv(4096), 16) == (0,)


def netdevsim() -> bool:
    """Whether interfaces with virtual functions can be simulated."""
    try:
        with open("/sys/bus/netdevsim/new_device", "w", encoding="ascii") as file:
            file.write("1 1")
        with open("/sys/bus/netdevsim/devices/netdevsim1/sriov_numvfs", "w", encoding="ascii") as file:
            file.write("2")
        return len(os.listdir("/sys/bus/netdevsim/devices/netdevsim1/net")) == 1
    except OSError:
        return False


def main() -> None:
    sys.path.insert(0, "")
    from plugins.module_utils.capabilities import load

    print(
        json.dumps(
            {
                "version": os.uname().release,
                "time_travel": time_travels(),
                "netdevsim": netdevsim(),
                "iptfs": iptfs(),
                "capabilities": dict(load()),
            }
        )
    )


if __name__ == "__main__":
    main()
