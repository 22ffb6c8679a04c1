# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of an ext4 file system inside an image, or on a card, by debugfs: nothing is mounted, no root is needed.

debugfs exits with 0 whatever happens, so that all that is written is read back. Every time is a fixed one: the same
image with the same settings gives the same bytes, today and tomorrow.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import StepFailed
from .layout import Root

NOW = 1767225600  # seconds since 1970: 2026-01-01, the time of all that is written
LIMIT = 3600  # seconds for one run of a program over a file system


class Edit(NamedTuple):
    """A file as it is to be, root's own; content None: no such file. With `link`, a symbolic link to there."""

    path: str
    content: bytes | None
    mode: int = 0o644
    group: int = 0
    link: str = ""

    @property
    def kind(self) -> int:
        return stat.S_IFLNK | 0o777 if self.link else stat.S_IFREG | self.mode


class Entry(NamedTuple):
    """What a folder says about one of its files."""

    mode: int
    group: int


class Disk(NamedTuple):
    """The root file system in an image or on a card."""

    path: str
    root: Root

    @property
    def name(self) -> str:
        """As the programs of e2fsprogs take it (ext2fs_open2: what follows ? are options)."""
        return f"{self.path}?offset={self.root.start}"

    def read(self, path: str) -> bytes | None:
        """Content of a file; None where there is none."""
        return self._read_all([path])[0]

    def _read_all(self, paths: Sequence[str]) -> list[bytes | None]:
        """Contents of many files, by one run of debugfs."""
        with tempfile.TemporaryDirectory(prefix="impair-board-") as work:
            targets = [Path(work, str(number)) for number in range(len(paths))]
            lines = [f'dump "{path}" "{target}"\n' for path, target in zip(paths, targets)]
            programs.run(["debugfs", "-f", "-", self.name], "".join(lines), timeout=LIMIT)
            return [target.read_bytes() if target.exists() else None for target in targets]

    def names(self, folder: str) -> dict[str, Entry]:
        """What a folder has; empty where there is no such folder."""
        done = programs.run(["debugfs", "-R", f'ls -p "{folder}"', self.name], timeout=LIMIT)
        found = {}
        for line in done.stdout.splitlines():  # /inode/mode/uid/gid/name/size/
            fields = line.split("/")
            if len(fields) > 6 and fields[1] not in ("", "0"):
                found[fields[5]] = Entry(int(fields[2], 8), int(fields[4]))
        return found

    def exists(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def write(self, edits: Sequence[Edit], work: Path) -> None:
        """Carry out the edits, and read all of them back."""
        lines = [f"set_current_time @{NOW}"]
        names = functools.cache(self.names)
        made: set[str] = set()
        for number, edit in enumerate(edits):
            folder, name = os.path.split(edit.path)
            if name in names(folder):
                lines += [f'cd "{folder}"', f'rm "{name}"']
            if edit.content is None:
                continue
            lines += [*_folders(folder, names, made), f'cd "{folder}"']
            if edit.link:
                lines += [f'symlink "{name}" "{edit.link}"', *_fields(name, edit.kind, edit.group)]
                continue
            source = work / f"edit-{number}"
            source.write_bytes(edit.content)
            lines += [f'write "{source}" "{name}"', *_fields(name, edit.kind, edit.group)]
        done = programs.run(
            ["debugfs", "-w", "-f", "-", self.name], "".join(f"{line}\n" for line in lines), timeout=LIMIT
        )
        self._judge(edits, done.stderr)

    def _judge(self, edits: Sequence[Edit], said: str) -> None:
        """All of it reads back as it was written."""
        names = functools.cache(self.names)
        for edit, content in zip(edits, self._read_all([edit.path for edit in edits])):
            folder, name = os.path.split(edit.path)
            found = names(folder).get(name)
            if edit.content is None:
                same = found is None
            else:
                same = (bool(edit.link) or content == edit.content) and found == Entry(edit.kind, edit.group)
            if not same:
                reason = " | ".join(line for line in said.splitlines()[1:4] if line.strip())
                raise StepFailed(
                    f"debugfs -w {self.name}",
                    f"{edit.path} reads back otherwise than it was written ({reason or 'no reason given'}); "
                    "is the image's file system full? A size in root_size makes it larger",
                )

    def check(self, repair: bool = False) -> None:
        """e2fsck has nothing to say. With `repair` it may do what it does at every boot: replay the journal, say."""
        mode = "-fp" if repair else "-fn"
        # the time of the last check in the superblock
        done = programs.run(["env", f"E2FSCK_TIME={NOW}", "e2fsck", mode, self.name], timeout=LIMIT)
        if done.returncode not in ((0, 1) if repair else (0,)):
            said = " | ".join((done.stdout + done.stderr).strip().splitlines()[-4:])
            raise StepFailed(
                f"e2fsck {mode} {self.name}", f"the image's file system is damaged: {said}; take another image"
            )


def _folders(folder: str, names: Callable[[str], dict[str, Entry]], made: set[str]) -> list[str]:
    """mkdir for what is missing of a path. `made` has what earlier edits of the same run make."""
    lines = []
    parts = folder.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        path = "/" + "/".join(parts[:depth])
        parent, name = os.path.split(path)
        if path not in made and name not in names(parent):
            mode = 0o700 if name == ".ssh" else 0o755
            lines += [f'cd "{parent}"', f'mkdir "{name}"', *_fields(name, stat.S_IFDIR | mode, 0)]
        made.add(path)
    return lines


def _fields(name: str, mode: int, group: int) -> list[str]:
    fields = {"mode": f"0{mode:o}", "uid": "0", "gid": str(group)}
    fields.update(dict.fromkeys(("atime", "ctime", "mtime", "crtime"), f"@{NOW}"))
    return [f'set_inode_field "{name}" {field} {value}' for field, value in fields.items()]
