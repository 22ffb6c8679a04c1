# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the controller: the BPF program for impairments that may need it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..module_utils.errors import TestbedError
from . import clang

SOURCE = Path(__file__).resolve().parents[2] / "files/bpf/impair.c"
WORDS = {"drop", "corrupt", "duplicate", "loss", "set_mark", "mark", "vlan"}  # a program's work on some kernels
MANY = 1000  # matches and classes from which on a kernel without flower needs a program


def for_interfaces(interfaces: object) -> dict[str, str] | None:
    """The module's `program` for impairment_interfaces; None where nothing asked can need one."""
    keys = list(_keys(interfaces))
    if WORDS.isdisjoint(keys) and len(keys) < MANY:
        return None
    try:
        return {"code": base64.b64encode(clang.compile_program(SOURCE)).decode(), "missing": ""}
    except TestbedError as error:
        return {"code": "", "missing": f"a compiled BPF program ({error})"}


def _keys(value: Any) -> Iterator[str]:
    """All keys, at whatever depth."""
    if isinstance(value, Mapping):
        yield from map(str, value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _keys(entry)
