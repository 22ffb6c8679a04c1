# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of the boards' root file system, side by side in the store; and of each what its boards fetch to start.

A tree is made once from a published image and is its owner's from then on: edited in place, never made anew.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..board import contents, prepare, source
from ..board.layout import find_root
from ..board.progress import Progress
from ..errors import InvalidInput, MissingCapability, StepFailed, TestbedError
from . import loader, ramdisk
from .model import Image

HOSTNAME = "netboot"  # in the tree; each board has its own above it
MOST = 1 << 37  # bytes of an image
EXTRACT_WITHIN = 1800  # seconds for copying a whole root file system
DEVICE_TREES = ("boot/dtb", "boot/dtb-{0}", "usr/lib/linux-image-{0}", "boot/dtbs/{0}")

# Runs in a mount namespace of its own, so that nothing stays mounted whatever ends it; e2fsck found it clean before.
EXTRACT = """\
set -e
mount -t ext4 -o "ro,noload,loop,offset=$2,sizelimit=$3" "$1" "$4"
cp -a "$4/." "$5"
"""


class Made(NamedTuple):
    """A version just made: its tree, and the image of a card that starts it."""

    tree: Path
    card: bytes


def fetch(image: Image, place: str, cache: Path, work: Path) -> Path:
    """The published image, held to its checksum and signature. Raises TestbedError where it is another."""
    if image.source is None:
        raise InvalidInput(
            place, image.name, "there is no such tree in the store, and no src to make it from; give one"
        )
    say = Progress()
    path = prepare.published(image.source, cache, say)
    if image.signature:
        source.verify(path, image.signature, image.keyring, work, say)
    return path


def extract(image: Image, path: Path, cache: Path, work: Path, target: Path) -> bytes:
    """Make the tree as role board_image prepares cards, without a board's own files. Returns the boot loader."""
    if image.source is None:
        raise TestbedError(f"image {image.name} has no src")
    nobody = contents.Asked(HOSTNAME, (), "", (), (), contents.NO_PASSWORD, "", "image")
    copy = prepare.prepared(path, image.source.sha256, nobody, MOST, cache, work, Progress())
    root = find_root(str(copy.path), copy.size)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="mount-", dir=work) as mounted:
        argv = ["sh", "-c", EXTRACT, "sh", str(copy.path), str(root.start), str(root.size), mounted, str(part)]
        done = programs.run(["unshare", "--mount", *argv], timeout=EXTRACT_WITHIN)
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        raise StepFailed(f"mount -o ro,loop,offset={root.start} {copy.path}", done.stderr.strip())
    part.rename(target)
    with open(copy.path, "rb") as file:
        return file.read(root.start)


def kernel(tree: Path, image: str, asked: str) -> tuple[str, Path]:
    """Release and file of the kernel that the tree starts: the highest one that fits what is asked."""
    found = {
        release: file
        for release in ramdisk.releases(tree)
        if (file := ramdisk.inside(tree, f"boot/vmlinuz-{release}")) and (not asked or prepare.fits(asked, release))
    }
    if not found:
        have = ", ".join(ramdisk.releases(tree)) or "none"
        raise InvalidInput(
            f"images.{image}.kernel", asked, f"no boot/vmlinuz-… fits it; the tree has the modules of: {have}"
        )
    release = max(found, key=_order)
    return release, found[release]


def _order(release: str) -> list[tuple[int, str]]:
    """6.1.10 comes after 6.1.9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", release)]


def device_tree(tree: Path, release: str, name: str) -> bytes:
    """The file that describes the board's hardware to the kernel."""
    for folder in DEVICE_TREES:
        found = ramdisk.inside(tree, f"{folder.format(release)}/{name}")
        if found and found.is_file():
            return found.read_bytes()
    raise InvalidInput("dtb", name, f"the tree of kernel {release} has no such device tree; see boot/dtb in it")


def boot_files(tree: Path, image: str, asked: str, dtbs: Sequence[str], drivers: ramdisk.Drivers) -> dict[str, bytes]:
    """What the boards of this version fetch by TFTP: name → content."""
    release, file = kernel(tree, image, asked)
    files = {"kernel": file.read_bytes(), "ramdisk": ramdisk.build(tree, release, drivers)}
    return files | {dtb.rsplit("/", 1)[-1]: device_tree(tree, release, dtb) for dtb in sorted(set(dtbs))}


def write_card(head: bytes, server: str, target: Path) -> None:
    """A small image with the boot loader of the image whose first bytes are given, and one ext4 for what boards keep.

    image_write takes it as any other board's image.
    """
    start = len(head)
    with tempfile.TemporaryDirectory(prefix="impair-netboot-") as folder:
        tree, draft = Path(folder, "tree"), Path(folder, "card")
        (tree / "boot").mkdir(parents=True)
        (tree / "boot/boot.scr").write_bytes(loader.script(loader.BOOT.replace("SERVER", server)))
        (tree / "etc").mkdir()
        (tree / "etc/shadow").write_text(f"root:{contents.NO_PASSWORD}:20000:0:99999:7:::\n", encoding="ascii")
        with open(draft, "wb") as file:
            file.write(loader.without_table(head))
            file.truncate(start + loader.CARD)
        _run(["sfdisk", "-q", str(draft)], f"label: dos\nstart={start // 512}, type=83\n")
        options = [
            "-L",
            "netboot",
            "-O",
            "^64bit,^metadata_csum",
            "-E",
            f"offset={start},root_owner=0:0",
            "-d",
            str(tree),
        ]
        _run(["mke2fs", "-q", "-F", "-t", "ext4", *options, str(draft), f"{loader.CARD // 1024}k"])
        shutil.copyfile(draft, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)


def _run(argv: Sequence[str], stdin: str = "") -> None:
    if programs.find(argv[0]) is None:
        raise MissingCapability("making a card", f"the program {argv[0]}", "install fdisk and e2fsprogs")
    done = programs.run(argv, stdin)
    if done.returncode != 0:
        raise StepFailed(" ".join(argv), done.stderr.strip())
