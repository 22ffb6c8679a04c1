# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Losing every nth packet: what is asked, checked."""

from __future__ import annotations

from typing import NamedTuple

from .. import schema
from ..errors import InvalidInput
from ..schema import not_supported, whole_number
from .match import interface_name


class Drop(NamedTuple):
    """One packet out of every `every` is lost: the one at the 0-based place `packet` of each group.

    `across`: interfaces whose classes of this name share the count; none: each counts for itself.
    """

    every: int
    packet: int
    across: tuple[str, ...] = ()


def parse_drop(value: object, path: str) -> Drop:
    fields = {
        "every": whole_number(1, 65535),
        "packet": whole_number(0, 65534),
        "pattern": not_supported("patterns need the bpf backend, which this version does not have"),
        "across": _interfaces,
    }
    found = schema.mapping(fields)(value, path)  # first what is known and refused: it may stand without every
    every = found.get("every")
    if every is None:
        raise InvalidInput(f"{path}.every", None, "this key is required")
    packet = found.get("packet", every - 1)
    if packet >= every:
        raise InvalidInput(
            f"{path}.packet", packet, f"write a place from 0 to {every - 1}: the first packet of each {every} is 0"
        )
    return Drop(every, packet, found.get("across", ()))


def _interfaces(value: object, path: str) -> tuple[str, ...]:
    names = schema.sequence(interface_name)(value, path)
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InvalidInput(
            path, value, "write two or more interfaces, each once: those whose packets are counted as one"
        )
    return tuple(sorted(names))
