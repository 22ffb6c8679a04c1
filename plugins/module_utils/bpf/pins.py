# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pins of a user's own program: maps under their names in a folder, and which of them were made by us."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from ..converge import Step
from ..errors import InvalidInput, TestbedError
from ..memory import Memory
from . import files, syscall


class Pins:
    """Pins of one program. `held`: descriptors by the ids of maps, as a map lives as long as somebody holds it."""

    def __init__(self, key: str) -> None:
        """`key`: under which it is remembered what we pinned."""
        self._memory = Memory()
        self._key = key
        self._folder = ""
        self._names: tuple[str, ...] = ()
        self.held: dict[int, int] = {}

    def want(self, folder: str, names: Sequence[str]) -> None:
        """Maps of these names are to be pinned there, or none where the folder is "". Raises InvalidInput."""
        if folder and not files.can_hold(folder):
            raise InvalidInput("pin", folder, f"write a folder in a BPF file system, such as {files.ROOT}/mine")
        self._folder, self._names = folder, tuple(names) if folder else ()

    def maps(self) -> dict[str, int]:
        """Descriptors of what is pinned there by now."""
        found = {name: syscall.pinned(self._path(name)) for name in self._names}
        return {name: self.keep(one) for name, one in found.items() if one is not None}

    def check(self, wanted: Mapping[str, int]) -> None:
        """Raise TestbedError where the name of a pin is taken by a map of somebody else. `wanted`: descriptors."""
        for name, descriptor in self.maps().items():
            path = self._path(name)
            if path not in self._made() and descriptor != wanted[name]:
                raise TestbedError(f"pin: {path} is another map than the program has; remove it, or pin elsewhere")

    def of(self, ids: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """The pins of these maps."""
        return tuple((self._path(name), ids[name]) for name in self._names)

    def observe(self) -> tuple[tuple[str, int], ...]:
        """Paths that are wanted, or were made by us, with the ids of what is there."""
        paths = sorted({*map(self._path, self._names), *self._made()})
        return tuple((path, found) for path in paths if (found := self._pinned(path)))

    def step(self, path: str, identity: int) -> Step:
        def pin() -> None:
            self._memory.remember(self._key, sorted({*self._made(), path}), renew=True)
            files.pin(os.path.dirname(path), {os.path.basename(path): self.held[identity]})

        return Step(f"bpftool map pin id {identity} {path}", pin)

    def removal(self, path: str) -> Step:
        return Step(f"rm {path}", partial(files.remove, path), retire=True)

    def forget(self) -> None:
        """Pins that are gone need not be remembered."""
        left = [path for path in self._made() if self._pinned(path)]
        self._memory.forget(self._key)
        if left:
            self._memory.remember(self._key, left)

    def keep(self, descriptor: int) -> int:
        """The same descriptor for the same map each time."""
        return self.held.setdefault(syscall.map_info(descriptor).id, descriptor)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _made(self) -> list[str]:
        return list(self._memory.recall(self._key) or ())

    def _pinned(self, path: str) -> int:
        """The id of the map at this path, 0 for none."""
        descriptor = syscall.pinned(path)
        return 0 if descriptor is None else syscall.map_info(self.keep(descriptor)).id
