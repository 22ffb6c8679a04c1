# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small images of boards, and what may stand for a card: files and loop devices that the test makes and takes away."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.places import CHECKOUT, Done, run

MIB = 1 << 20
START = 4 * MIB  # of the root file system
SIZE = 24 * MIB  # of the image
CARD = 32 * MIB
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Yq1nq3y9mQm3m1nq3y9mQm3m1nq3y9mQm3m1nq3y9 operator"
HASH = "$6$saltsalt$9sXcVWsRYMmQeN4Yf2cKmNBhQo4xN1mWqGxDwPpgVcVbLKQyxq5UVQ8vlzKxqVhJ"
INTERFACES = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n\taddress 192.168.1.148/24\n"
_LINKS = "etc/systemd/system/basic.target.wants/armbian-resize-filesystem.service"
_AUTOLOGIN = "[Service]\nExecStart=\nExecStart=-/sbin/agetty --noissue --autologin root %I $TERM\n"
FILES = {
    "etc/hostname": "nanopineo\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 nanopineo\n::1 localhost\n",
    "etc/shadow": "root:$6$published$hash:0:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
    "etc/systemd/system/serial-getty@.service.d/override.conf": _AUTOLOGIN,
    "root/.not_logged_in_yet": "PRESET_ROOT_PASSWORD=1234\n",
    "boot/armbianEnv.txt": "verbosity=1\nbootlogo=false\nfdtfile=sun8i-h3-nanopi-neo.dtb\n",
    "boot/vmlinuz-4.19.88-sunxi": "kernel\n",
    "usr/sbin/ifup": "#!/bin/sh\n",
    "usr/sbin/brctl": "#!/bin/sh\n",
    "var/lib/dpkg/status": "Package: dpkg\nStatus: install ok installed\nArchitecture: armhf\nVersion: 1.21\n",
}


class Image(NamedTuple):
    """A published image."""

    path: Path
    sha256: str


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(folder: Path, without: tuple[str, ...] = (), kind: str = "ext4", size: int = SIZE) -> Image:
    """An image like Armbian's: msdos label, one ext4 at 4 MiB, a boot loader at 8 KiB."""
    tree, path = folder / "tree", folder / "board.img"
    for name, text in FILES.items():
        if name not in without:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
    if "etc/shadow" not in without:
        (tree / "etc/shadow").chmod(0o640)
        os.chown(tree / "etc/shadow", 0, 42)
    if _LINKS not in without:
        (tree / _LINKS).parent.mkdir(parents=True, exist_ok=True)
        (tree / _LINKS).symlink_to("/lib/systemd/system/armbian-resize-filesystem.service")
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(8192)
        file.write(random.Random(8192).randbytes(400_000))
    run(["sfdisk", "-q", str(path)], "label: dos\nlabel-id: 0x20260721\nstart=8192, type=83\n")
    options = ["-L", "armbi_root", "-E", f"offset={START},root_owner=0:0", "-d", str(tree)]
    if kind:
        run(["mke2fs", "-q", "-F", "-t", kind, *options, str(path), f"{(size - START) // 1024}k"])
        # as one that was mounted while it was built
        mounted = "set_super_value mnt_count 3\nset_super_value mtime @1700000000\n"
        run(["debugfs", "-w", "-f", "-", f"{path}?offset={START}"], mounted)
    return Image(path, sha256(path))


def card(path: Path, size: int = CARD) -> Path:
    """A used card: every bit of it is set."""
    path.write_bytes(b"\xff" * size)
    return path


def untouched(path: Path) -> bool:
    content = path.read_bytes()
    return content.count(0xFF) == len(content)


@contextlib.contextmanager
def loop(path: Path | str, *options: str) -> Iterator[str]:
    """A loop device on a file."""
    device = run(["losetup", "-f", "--show", *options, str(path)]).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "-d", device])


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """A file system that is full after `size` bytes."""
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", f"size={size}", "impair.testbed", str(folder)])
    try:
        yield folder
    finally:
        run(["umount", str(folder)])


def debugfs(path: Path | str, request: str) -> str:
    return run(["debugfs", "-R", request, f"{path}?offset={START}"]).stdout


def arguments(image: Image, onto: Path | str, cache: Path, **more: Any) -> dict[str, Any]:
    """All arguments of the module, as Ansible hands them over."""
    nothing = ("root_password", "interfaces", "kernel", "signature", "keyring", "progress")
    asked = {"src": str(image.path), "sha256": image.sha256, "target": str(onto), "cache_dir": str(cache)}
    named = {"hostname": "slave", "authorized_keys": [KEY], "environment": {}, "packages": [], "force": False}
    sizes = {"root_size": "first_boot", "card_min": "0B", "card_max": "137GB"}
    return {
        **dict.fromkeys(nothing),
        **asked,
        **named,
        **sizes,
        **more,
    }


def started(asked: dict[str, Any], *before: str) -> subprocess.Popen[str]:
    """The engine as a process of its own, which can be killed."""
    code = (
        "import json, sys; from plugins.module_utils.board import engine; engine.manage(json.loads(sys.argv[1]), False)"
    )
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, json.dumps(asked)],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def sh(script: str, check: bool = True) -> Done:
    return run(["sh", "-ec", script], check=check)
