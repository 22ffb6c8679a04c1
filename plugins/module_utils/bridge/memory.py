# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stood before the bridge: one small JSON file on the node, and copies of the files for a person in need.

Written before the first change, removed by clear.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from . import files, links
from .files import File
from .links import Links

FOLDER = "/var/lib/impair.testbed"
PATH = f"{FOLDER}/bridge.json"
COPIES = f"{FOLDER}/saved"
VERSION = 1


class Memory(NamedTuple):
    """What we made, and what stood before us."""

    name: str
    ports: tuple[str, ...]
    address: str
    gateway: str
    hw_port: str
    links: Links  # before us
    missing: tuple[str, ...]  # files that were not there before us
    boot: str
    committed: bool


def load() -> Memory | None:
    """What is remembered, committed or not; None where nothing of ours stands."""
    found = files.read(PATH)
    if found.text is None:
        return None
    data = json.loads(found.text)
    data.pop("version")
    tuples = {"ports": tuple(data["ports"]), "missing": tuple(data["missing"])}
    return Memory(**{**data, **tuples, "links": links.from_json(data["links"])})


def save(memory: Memory) -> None:
    """Write it in one step."""
    data = {"version": VERSION, **memory._asdict(), "links": links.to_json(memory.links)}
    files.write(File(PATH, json.dumps(data, indent=2) + "\n", 0o600))


def forget() -> None:
    """Clear is done: nothing of ours stands."""
    files.write(File(PATH, None))
    for path in _copies():
        os.unlink(path)
    for folder, _folders, _names in os.walk(COPIES, topdown=False):
        os.rmdir(folder)
    try:
        os.rmdir(FOLDER)
    except OSError:
        pass  # others remember things there, or it never was


def copy(originals: Sequence[File]) -> None:
    """Keep a copy of each file as it was; a copy that is there already is the older one, and stays."""
    for file in originals:
        path = COPIES + file.path
        if file.text is not None and not os.path.exists(path):
            files.write(file._replace(path=path))


def boot_id() -> str:
    """The kernel's name of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _copies() -> list[str]:
    return [os.path.join(folder, name) for folder, _folders, names in os.walk(COPIES) for name in names]
