# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are changed together: read with owner and mode, written atomically, given back exactly."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple


class File(NamedTuple):
    """A file's content and rights; `text` is None where there is no file."""

    path: str
    text: str | None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def read(path: str) -> File:
    """The file as it is now."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            status = os.fstat(file.fileno())
            return File(path, file.read(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    except FileNotFoundError:
        return File(path, None)


def write(file: File) -> None:
    """Put the file there in one step, so that a reader or a power cut sees the old or the new one; None removes it.

    A symbolic link stays, its target is written. Folders that are missing are made.
    """
    path = os.path.realpath(file.path)
    if file.text is None:
        if os.path.lexists(path):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{path}.impair.testbed.new"
    with open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as output:
        os.fchmod(output.fileno(), file.mode)
        os.fchown(output.fileno(), file.uid, file.gid)
        output.write(file.text)
        output.flush()
        os.fsync(output.fileno())
    os.rename(aside, path)


def differing(current: Sequence[File], desired: Sequence[File]) -> list[File]:
    """Those of desired that are not so in current."""
    return [file for file in desired if file not in current]


def command(file: File) -> str:
    """What write() does, in a person's words."""
    return f"rm {file.path}" if file.text is None else f"install -m {file.mode:o} … {file.path}"


def diff(before: File, after: File) -> dict[str, str]:
    """One entry of Ansible's diff."""
    return {
        "before_header": before.path,
        "after_header": after.path,
        "before": printable(before.text),
        "after": printable(after.text),
    }


def printable(text: str | None) -> str:
    """Text that survives JSON: bytes that are no UTF-8 shown as U+FFFD."""
    return (text or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
