# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind of node has to offer. The lab knows nothing else about UML, QEMU, a namespace or a board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from ..links import Attachment
from ..model import Node


class Place(NamedTuple):
    """Where a node lives: its own folder of the run directory, the cache, and the key that may log in."""

    directory: Path
    cache: Path
    public_key: str


class Process(NamedTuple):
    """What the keeper starts. `ends` are the ids of the links whose descriptors the process inherits; where the
    management link is not among them, the process has one of its own. `sshd`: address and port of the node's ssh
    server as the lab's namespace reaches it; empty where it has none.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    ends: tuple[str, ...]
    sshd: str


class Driver(Protocol):
    """One kind of node."""

    programs: Mapping[str, str]  # program that must be on the host → Debian package that brings it
    live: bool  # the node is on the host's kernel: links are plugged while it runs, and there is no ssh

    def image(self, cache: Path) -> tuple[Path, bool]:
        """Make what all nodes of this kind start from; its path, and whether it had to be made."""

    def image_identity(self, cache: Path) -> str:
        """Changes whenever nodes have to be made anew because of it. Never builds anything."""

    def image_missing(self, cache: Path) -> bool:
        """Whether image() would have work to do."""

    def prepare(self, node: Node, place: Place) -> None:
        """Write a new node's own files into its folder, which exists and is empty."""

    def process(self, node: Node, place: Place, management: Attachment, data: Mapping[str, Attachment]) -> Process:
        """How the node is started; `data` holds the attachment of each of its interfaces, by name."""
