# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user writes for the entries of maps, as the bytes that they are. Knows no kernel call."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .. import units
from ..errors import InvalidInput
from .elf import MapDefinition
from .syscall import ARRAY, HASH

LRU_HASH, LPM_TRIE = 9, 11  # enum bpf_map_type
KINDS = {HASH: "hash", ARRAY: "array", LRU_HASH: "lru_hash", LPM_TRIE: "lpm_trie"}  # one value a key, none a descriptor
NUMBERS = (1, 2, 4, 8)  # bytes


class Entry(NamedTuple):
    """An entry of a map; None: there is none under this key."""

    map: str
    key: bytes
    value: bytes | None


def parse(asked: Mapping[str, object], definitions: Mapping[str, MapDefinition]) -> tuple[Entry, ...]:
    """The entries of `maps`. Raises InvalidInput with the path of what does not fit its map."""
    return tuple(entry for name, content in asked.items() for entry in _map(name, content, definitions))


def _map(name: str, content: object, definitions: Mapping[str, MapDefinition]) -> Iterator[Entry]:
    path = f"maps.{name}"
    found = definitions.get(name)
    if found is None:
        raise InvalidInput(path, content, f"the program uses the maps {', '.join(sorted(definitions)) or '(none)'}")
    if found.type not in KINDS:
        raise InvalidInput(path, content, f"only entries of maps of the kinds {', '.join(KINDS.values())} can be set")
    if not isinstance(content, Mapping):
        raise InvalidInput(path, content, "write a mapping of keys to values")
    seen: set[bytes] = set()
    for key, value in content.items():
        place = f"{path}.{key}"
        packed = _bytes(key, found.key_size, place, "keys")
        if packed in seen:
            raise InvalidInput(place, key, "write each key once")
        seen.add(packed)
        if found.type == ARRAY and int.from_bytes(packed, sys.byteorder) >= found.max_entries:
            raise InvalidInput(place, key, f"this array has the keys 0 to {found.max_entries - 1}")
        yield Entry(name, packed, _bytes(value, found.value_size, place, "values"))


def _bytes(value: object, size: int, path: str, what: str) -> bytes:
    """A number in the node's byte order, or bytes as bpftool writes them: `hex 0a 00 00 00`."""
    if isinstance(value, str) and value.startswith("hex"):
        digits = re.sub(r"\s", "", value[3:])
        if not re.fullmatch(r"([0-9a-fA-F]{2})*", digits) or len(digits) != 2 * size:
            raise InvalidInput(path, value, f"the {what} of this map have {size} bytes: two hexadecimal digits each")
        return bytes.fromhex(digits)
    if size not in NUMBERS:
        example = "hex " + "00 " * min(size, 4) + ("…" if size > 4 else "")
        raise InvalidInput(path, value, f"the {what} of this map have {size} bytes: write them as '{example.strip()}'")
    bits = 8 * size
    try:
        number = units.parse_integer(value, -(1 << bits - 1), (1 << bits) - 1)
    except ValueError as error:
        raise InvalidInput(path, value, f"{error} (the {what} of this map have {size} bytes), or 'hex …'") from None
    return (number % (1 << bits)).to_bytes(size, sys.byteorder)


def text(data: bytes) -> str:
    """As bpftool takes it."""
    return f"hex {data.hex(' ')}"
