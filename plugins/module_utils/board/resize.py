# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A larger root file system in an image: its partition by sfdisk, itself by resize2fs."""

from __future__ import annotations

import os
from pathlib import Path

from .. import programs
from ..errors import InvalidInput, StepFailed
from .contents import Asked
from .files import LIMIT
from .layout import Root, find_root, partitions

SECTOR = 512  # what the offsets of an image are counted in


def resized(draft: Path, root: Root, asked: Asked, card: int) -> Root:
    """The root file system as large as asked, where that is now rather than at the first boot."""
    if asked.root_size in ("image", "first_boot"):
        return root
    last = max(partitions(str(draft)), key=lambda partition: partition["start"])
    if last["number"] != root.partition:
        raise InvalidInput(
            "root_size", asked.root_size, "another partition stands behind the root file system; write `image`"
        )
    end = card if asked.root_size == "card" else root.start + int(asked.root_size)
    end -= end % (1 << 20)
    if end > card:
        raise InvalidInput(
            "root_size", asked.root_size, f"the card ends at byte {card}, and this at {end}; write less, or `card`"
        )
    if end - root.start < root.size:
        raise InvalidInput(
            "root_size", asked.root_size, f"the image's own root has {root.size} bytes; write more, or `image`"
        )
    return _grown(draft, root, end)


def _grown(draft: Path, root: Root, end: int) -> Root:
    """The root file system up to byte `end` of the image, or to what the partition table needs there.

    resize2fs cuts a plain file behind what it takes for its end, whatever the offset (resize/main.c): so it gets the
    file system alone.
    """
    alone = draft.with_name("root")
    _copy(draft, root.start, root.size, alone, 0)
    os.truncate(draft, root.start)
    os.truncate(draft, end)
    sfdisk = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe-partitions=never"]
    _must([*sfdisk, "-N", str(root.partition), str(draft)], f"start={root.start // SECTOR}, size=+\n")
    size = next(each["size"] for each in partitions(str(draft)) if each["number"] == root.partition)
    os.truncate(alone, size)
    _must(["resize2fs", str(alone)])
    _copy(alone, 0, size, draft, root.start)
    alone.unlink()
    return find_root(str(draft), end)


def _copy(source_path: Path, skip: int, size: int, target: Path, seek: int) -> None:
    """Bytes from one file into another; where they are zero, the other one stays as it is."""
    argv = ["dd", f"if={source_path}", f"of={target}", "bs=1M", f"skip={skip}", f"seek={seek}", f"count={size}"]
    _must([*argv, "iflag=skip_bytes,count_bytes", "oflag=seek_bytes", "conv=notrunc,sparse", "status=none"])
    if target.stat().st_size < seek + size:
        os.truncate(target, seek + size)


def _must(argv: list[str], stdin: str = "") -> None:
    done = programs.run(argv, stdin, timeout=LIMIT)
    if done.returncode != 0:
        raise StepFailed(" ".join(argv), " | ".join((done.stdout + done.stderr).strip().splitlines()[-3:]))
