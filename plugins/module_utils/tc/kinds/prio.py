# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""prio and plug (linux/pkt_sched.h, tc-prio(8), net/sched/sch_plug.c)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ... import schema, units
from ...schema import leaf
from .base import Kind

PRIO = struct.Struct("=i16B")  # tc_prio_qopt: bands, the band of each priority of a packet (TC_PRIO_MAX 15)
PRIOMAP = (1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)  # tc-prio(8)
MOST_BANDS = 16  # TCQ_PRIO_BANDS


class Prio(NamedTuple):
    """bands: queues, the first is emptied first; priomap: the band, from 0 on, of each priority of a packet."""

    bands: int = 3
    priomap: tuple[int, ...] = PRIOMAP


def parse_priomap(value: object, path: str) -> tuple[int, ...]:
    """16 bands, from 0 on."""
    found = schema.sequence(schema.whole_number(0, MOST_BANDS - 1))(value, path)
    if len(found) != len(PRIOMAP):
        raise schema.InvalidInput(path, value, "write 16 bands, one for each priority of a packet, counted from 0")
    return tuple(found)


def _build_prio(bands: int = 3, priomap: tuple[int, ...] = PRIOMAP) -> Prio:
    if max(priomap) >= bands:
        raise ValueError(f"priomap names band {max(priomap)}; {bands} bands count from 0 to {bands - 1}")
    return Prio(bands, priomap)


def _decode_prio(data: bytes) -> Prio:
    bands, *priomap = PRIO.unpack_from(data)
    return Prio(bands, tuple(priomap))


def _render_prio(options: Prio) -> str:
    return f"bands {options.bands} priomap {' '.join(map(str, options.priomap))}"


PRIO_KIND = Kind(
    "prio",
    {"bands": schema.whole_number(2, MOST_BANDS), "priomap": parse_priomap},
    _build_prio,
    lambda options: PRIO.pack(options.bands, *options.priomap),
    _decode_prio,
    _render_prio,
    slots=lambda options: options.bands,
)


PLUG = struct.Struct("=iI")  # tc_plug_qopt: action, limit in bytes
TCQ_PLUG_LIMIT = 3


class Plug(NamedTuple):
    """limit: bytes; None: queue length times longest packet, by the kernel, and what every dump shows: nothing.

    What is asked can only be sent when the plug is made. Buffer and release are actions, no state (`nl-qdisc-add
    --update plug`): a plug holds everything back from the start, until somebody releases it.
    """

    limit: int | None = None


def _encode_plug(options: Plug) -> bytes:
    return b"" if options.limit is None else PLUG.pack(TCQ_PLUG_LIMIT, options.limit)


def _decode_plug(data: bytes) -> Plug:
    return Plug(PLUG.unpack_from(data)[1] if data else None)


def _same_plug(desired: Plug, observed: Plug) -> bool:
    """A kernel that shows nothing cannot be compared with (net/sched/sch_plug.c has no dump)."""
    return observed.limit is None or desired in (Plug(), observed)


def _render_plug(options: Plug) -> str:
    return "" if options.limit is None else f"limit {options.limit}"


PLUG_KIND = Kind("plug", {"limit": leaf(units.parse_size)}, Plug, _encode_plug, _decode_plug, _render_plug, _same_plug)
