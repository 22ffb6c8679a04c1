# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The media of a gadget that we make: files below one folder, whose names hold a hash of what they were made from.

What the host writes into a volume stays; another definition is another file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..converge import Step
from ..errors import StepFailed, TestbedError
from .fat import volume

FOLDER = Path("/var/lib/impair.testbed/usb_gadget")


class Volume(NamedTuple):
    """What a volume is made from; `size` in bytes."""

    size: int
    label: str
    contents: tuple[tuple[str, bytes], ...]


Volumes = Mapping[str, "Volume | None"]  # file names; None for what stands already


class VolumesDomain:
    """The volumes of the gadget with this name; their names begin with it."""

    name = "volumes"

    def __init__(self, gadget: str, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._pattern = f"{gadget}-{'[0-9a-f]' * 12}.img"

    def observe(self) -> Volumes:
        return {path.name: None for path in sorted(self._folder.glob(self._pattern))}

    def plan(self, current: Volumes, desired: Volumes) -> list[Step]:
        """Make what is missing, before the gadget; remove what is not wanted any more, after it."""
        made = [self._make(name, wanted) for name, wanted in desired.items() if name not in current]
        gone = [self._remove(name) for name in current if name not in desired]
        return made + gone

    def _make(self, name: str, wanted: Volume | None) -> Step:
        path = self._folder / name
        if wanted is None:
            raise TestbedError(f"{path} is gone, and what the host had written went with it")
        files = ", ".join(name for name, _content in wanted.contents) or "no files"
        return Step(f"make {path}  # FAT of {wanted.size} bytes, label {wanted.label}: {files}", (path, wanted))

    def _remove(self, name: str) -> Step:
        return Step(f"rm {self._folder / name}", (self._folder / name, None), retire=True)

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            path, wanted = step.payload
            try:
                if wanted is None:
                    path.unlink(missing_ok=True)
                else:
                    _write(path, volume(wanted.size, wanted.label, dict(wanted.contents)))
            except OSError as error:
                raise StepFailed(step.command, error.strerror or str(error)) from error

    def describe(self, state: Volumes) -> list[str]:
        return [f"volume {self._folder / name}" for name in state]


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; sparse, as most of it is empty."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data.rstrip(b"\0"))
        file.truncate(len(data))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
