# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/etc/network/interfaces as text: our block, and the stanzas that it replaces.

Nothing of the user's text is thrown away. Stanzas of the bridge and of its ports become comments behind PREFIX,
our own stanzas stand in one marked block, and everything else stays as it is. So the file itself remembers:
`original()` of what we wrote gives back the text before, byte for byte, also after edits elsewhere in the file.
Syntax: interfaces(5) of ifupdown 0.8.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ..errors import TestbedError
from .model import Bridge

MAIN = "/etc/network/interfaces"
PREFIX = "#impair.testbed# "
BEGIN = "# BEGIN impair.testbed bridge: `playbooks/clear.yml` gives back what stood here before"
JOINED = " (no newline before)"
END = "# END impair.testbed bridge"
_KEYWORDS = {"iface", "mapping", "auto", "source", "source-directory", "rename", "template"}
_NO_PREFIXES = ("allow-", "no-auto-down", "no-scripts")
# ifupdown takes only these names from a source-directory (interfaces(5))
_DIRECTORY_NAME = re.compile(r"[a-zA-Z0-9_-]+")


class Document(NamedTuple):
    """One file that ifupdown reads."""

    path: str
    text: str


def original(text: str) -> str:
    """The text without our block, and with the stanzas that it replaced."""
    lines = _without_block(text.split("\n"))
    return "\n".join(line[len(PREFIX) :] if line.startswith(PREFIX) else line for line in lines)


def managed(text: str) -> bool:
    """Whether anything in the text is ours."""
    return any(line.startswith((PREFIX, BEGIN)) for line in text.split("\n"))


def retire(text: str, names: Collection[str]) -> str:
    """The text with the stanzas of these interfaces (and of their aliases, eth0:1) as comments."""
    lines = text.split("\n")
    for start, end in _stanzas(lines, names):
        for index in range(start, end):
            if _content(lines[index]):
                lines[index] = PREFIX + lines[index]
    return "\n".join(lines)


def with_block(text: str, stanzas: str) -> str:
    """The text followed by our block."""
    joined = bool(text) and not text.endswith("\n")
    head = BEGIN + (JOINED if joined else "")
    return f"{text}{chr(10) if joined else ''}{head}\n{stanzas}{END}\n"


def block(bridge: Bridge, mac: str) -> str:
    """Our stanzas: the bridge, and its ports without addresses."""
    options = _address_options(bridge)
    options += [
        f"bridge_ports {' '.join(bridge.ports)}",
        f"bridge_hw {mac}",
        f"bridge_stp {'on' if bridge.stp else 'off'}",
        f"bridge_fd {bridge.forward_delay}",
        "bridge_maxwait 0",
        # a port on USB may appear after the bridge at boot; costs nothing where it is there
        f"bridge_waitport 10 {' '.join(bridge.ports)}",
    ]
    method = "static" if bridge.address else "manual"
    lines = [f"auto {bridge.name}", f"iface {bridge.name} {bridge.family} {method}"]
    lines += [f"\t{option}" for option in options]
    lines += [f"iface {port} inet manual" for port in bridge.ports]
    return "\n".join(lines) + "\n"


def _address_options(bridge: Bridge) -> list[str]:
    options = [f"address {bridge.address}"] if bridge.address else []
    if bridge.gateway:
        options.append(f"gateway {bridge.gateway}")
    return options


def stanzas_of(documents: Sequence[Document], names: Collection[str]) -> str:
    """The stanzas of these interfaces alone: a file for `ifup --interfaces` while nothing is committed."""
    found: list[str] = []
    for document in documents:
        lines = document.text.split("\n")
        for start, end in _stanzas(lines, names):
            found += lines[start:end]
    return "\n".join(found) + "\n" if found else ""


def load(main: str = MAIN) -> list[Document]:
    """The main file (also where it is absent) and every file that it sources, each once."""
    documents: list[Document] = []
    waiting = [main]
    while waiting:
        path = waiting.pop(0)
        if any(document.path == path for document in documents):
            continue
        text = _read(path)
        if text is None and path != main:
            continue
        documents.append(Document(path, text or ""))
        waiting += _sourced(text or "", os.path.dirname(path))
    return documents


def _read(path: str) -> str | None:
    try:
        # bytes that are no UTF-8 survive the round trip
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _sourced(text: str, folder: str) -> list[str]:
    """Paths of `source` and `source-directory` lines, in order; relative ones are relative to the file."""
    paths: list[str] = []
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 1 and words[0] == "source":
            paths += [path for pattern in words[1:] for path in sorted(glob.glob(os.path.join(folder, pattern)))]
        elif len(words) > 1 and words[0] == "source-directory":
            for pattern in words[1:]:
                for place in sorted(glob.glob(os.path.join(folder, pattern))):
                    paths += sorted(_directory(place))
    return paths


def _directory(place: str) -> Iterator[str]:
    if os.path.isdir(place):
        for name in os.listdir(place):
            if _DIRECTORY_NAME.fullmatch(name):
                yield os.path.join(place, name)


def _without_block(lines: list[str]) -> list[str]:
    starts = [index for index, line in enumerate(lines) if line.startswith(BEGIN)]
    if not starts:
        return lines
    start = starts[0]
    try:
        end = lines.index(END, start)
    except ValueError:
        raise TestbedError(f"the line `{END}` is missing below `{BEGIN}`; put it back, or remove our block") from None
    before, after = lines[:start], lines[end + 1 :]
    if lines[start].endswith(JOINED) and after == [""]:
        return before  # the newline between them was ours
    return before + after


def _stanzas(lines: Sequence[str], names: Collection[str]) -> list[tuple[int, int]]:
    """(first line, line after the last) of each iface or mapping stanza of these interfaces."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    continued = False
    for index, line in enumerate(lines):
        words = line.split()
        if not continued and words and _is_keyword(words[0]):
            if start is not None:
                found.append((start, index))
            start = index if _concerns(words, names) else None
        continued = line.endswith("\\") and (continued or _content(line))
    if start is not None:
        found.append((start, len(lines)))
    return found


def _is_keyword(word: str) -> bool:
    return word in _KEYWORDS or word.startswith(_NO_PREFIXES)


def _concerns(words: Sequence[str], names: Collection[str]) -> bool:
    if words[0] == "iface":
        return len(words) > 1 and words[1].split(":")[0] in names
    return words[0] == "mapping" and any(word in names for word in words[1:])


def _content(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#")
