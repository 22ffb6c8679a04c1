# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write an image to a card, so that a card that is not whole never looks like one that is.

The first block, with the partition table, says "not whole" before anything else is written, and becomes the image's own
when all the rest has been read back. dd carries the bytes, cmp compares them, past the page cache on devices.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import MissingCapability, StepFailed
from ..orphans import die_with_parent
from .progress import Progress
from .target import Target, again

FIRST = 4096  # bytes written last: one block of any card
CHUNK = 4 << 20  # bytes at once; a card's own erase blocks are of this order
NOT_WHOLE = b"impair.testbed: this card is not whole. Its writing was interrupted; run playbooks/flash.yml again.\n"


class Range(NamedTuple):
    """Bytes of the image and of the card alike; written and read in pieces of `piece` bytes."""

    start: int
    end: int
    piece: int


def ranges(size: int) -> list[Range]:
    """All of the image, in the order of writing: the bulk on the bounds of a card's erase blocks, block 0 last."""
    cut = min(CHUNK, size)
    parts = [Range(cut, size, CHUNK), Range(FIRST, cut, CHUNK), Range(0, FIRST, FIRST)]
    return [part for part in parts if part.start < part.end]


def not_whole(descriptor: int) -> bool:
    """Whether a write to this card was interrupted."""
    return os.pread(descriptor, len(NOT_WHOLE), 0) == NOT_WHOLE


def same(descriptor: int, image: Path, size: int, say: Progress) -> bool:
    """Whether the card holds exactly this image, byte for byte. `size` in bytes."""
    _forget(descriptor)
    order = reversed(ranges(size))  # from the first byte up: another card differs at once
    return all(_difference(descriptor, image, part, "comparing", size, say) is None for part in order)


def write(descriptor: int, target: Target, image: Path, size: int, say: Progress) -> None:
    """Write the image and read all of it back.

    Raises StepFailed at the first error; the card then says that it is not whole, if it still takes a block.
    """
    try:
        _write_all(descriptor, target, image, size, say)
    except OSError as error:
        raise StepFailed(
            command(target, image, size), f"{error.strerror}; {target.path} is not whole: try another card or reader"
        ) from error


def _write_all(descriptor: int, target: Target, image: Path, size: int, say: Progress) -> None:
    mark(descriptor)
    *rest, first = ranges(size)
    for part in rest:
        _write(descriptor, target, image, part, size, say)
    _forget(descriptor)
    for part in reversed(rest):
        _verify(descriptor, target, image, part, size, say)
    _write(descriptor, target, image, first, size, say)
    _forget(descriptor)
    try:
        _verify(descriptor, target, image, first, size, say)
    except StepFailed:
        mark(descriptor)
        raise


def mark(descriptor: int) -> None:
    """Say on the card itself that it is not whole."""
    os.pwrite(descriptor, NOT_WHOLE.ljust(FIRST, b"\0"), 0)
    os.fsync(descriptor)


def command(target: Target, image: Path, size: int) -> str:
    """All of `write` as a person would type it, for reports."""
    flags = "" if target.kind == "file" else " oflag=direct"
    return f"dd if={image} of={target.path} bs=4M conv=notrunc,fsync{flags}  # {size} bytes, the first {FIRST} last"


def _flags(descriptor: int) -> list[str]:
    """Files may lie where O_DIRECT is unknown (tmpfs)."""
    return ["direct"] if stat.S_ISBLK(os.fstat(descriptor).st_mode) else []


def _forget(descriptor: int) -> None:
    """Have the next reading come from the card rather than from the page cache."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _dd(*operands: str) -> list[str]:
    path = programs.find("dd")
    if path is None:
        raise MissingCapability("writing a card", "the program dd", "install coreutils")
    return [path, *operands, "status=progress"]


def _write(descriptor: int, target: Target, image: Path, part: Range, size: int, say: Progress) -> None:
    with open(image, "rb") as source:
        output = again(descriptor, os.O_WRONLY)
        try:
            argv = _dd(
                f"bs={part.piece}",
                f"skip={part.start}",
                f"count={part.end - part.start}",
                "iflag=skip_bytes,count_bytes,fullblock",
                f"seek={part.start}",
                ",".join(["oflag=seek_bytes", *_flags(descriptor)]),
                "conv=notrunc,fsync",
            )
            with _started(argv, source.fileno(), output) as writing:
                said = _watch(writing, "writing", part, size, say)
        finally:
            os.close(output)
    if writing.returncode != 0:
        raise StepFailed(
            command(target, image, size),
            f"{said or f'dd ended with {writing.returncode}'}; {target.path} is not whole, and says so: "
            "try again, and with another card or reader where it fails again",
        )


def _verify(descriptor: int, target: Target, image: Path, part: Range, size: int, say: Progress) -> None:
    at = _difference(descriptor, image, part, "reading back", size, say)
    if at is not None:
        raise StepFailed(
            f"cmp {image} {target.path}",
            f"the card gives back other bytes than were written, from byte {at} on; it is worn out or smaller than it "
            "says: take another one. It is marked as not whole",
        )


def _difference(descriptor: int, image: Path, part: Range, stage: str, size: int, say: Progress) -> int | None:
    """The first byte in which image and card differ; None where they do not."""
    compare = programs.find("cmp")
    if compare is None:
        raise MissingCapability("reading a card back", "the program cmp", "install diffutils")
    length = part.end - part.start
    flags = ["skip_bytes", "count_bytes", "fullblock", *_flags(descriptor)]
    argv = _dd(f"bs={part.piece}", f"skip={part.start}", f"count={length}", "iflag=" + ",".join(flags))
    source = again(descriptor, os.O_RDONLY)
    try:
        with (
            _started(argv, source, subprocess.PIPE) as reading,
            subprocess.Popen(
                [compare, "-i", f"{part.start}:0", "-n", str(length), str(image), "-"],
                stdin=reading.stdout,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
                preexec_fn=die_with_parent,
            ) as comparing,
        ):
            if reading.stdout:
                reading.stdout.close()  # cmp has it; dd is to notice when cmp ends
            said = _watch(reading, stage, part, size, say)
            verdict = comparing.communicate()[0].decode(errors="replace")
    finally:
        os.close(source)
    if comparing.returncode == 0 and reading.returncode == 0:
        return None
    differs = re.search(r"differ: (?:byte|char) (\d+)", verdict)
    if differs:
        return part.start + int(differs.group(1)) - 1
    raise StepFailed(" ".join(argv), said or verdict.strip() or f"dd ended with {reading.returncode}")


def _started(argv: list[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        preexec_fn=die_with_parent,
    )


def _watch(running: subprocess.Popen[bytes], stage: str, part: Range, size: int, say: Progress) -> str:
    """Tell how far dd is until it ends; returns what it complained about."""
    text = b""
    while chunk := os.read(running.stderr.fileno(), 4096) if running.stderr else b"":
        text = (text + chunk)[-8192:]
        counted = re.findall(rb"(\d+) bytes", text)
        if counted:
            say(stage, part.start + int(counted[-1]), size)
    running.wait()
    return "; ".join(line for line in text.decode(errors="replace").splitlines() if "dd: " in line)
