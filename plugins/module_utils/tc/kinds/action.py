# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions of filters and their parameters: gact, mirred and skbedit (linux/tc_act/, tc-mirred(8), tc-skbedit(8))."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from ... import schema
from ...errors import InvalidInput
from ...netlink import attribute, attributes, integer, u32, u64
from ..model import Raw, handle_text, parse_handle
from .base import Kind, words
from .filters import GACT, SIZES, TCA_GACT_PARMS, Action

PARMS = TCA_GACT_PARMS  # of mirred and skbedit too
PROB = struct.Struct("=HHi")  # tc_gact_p: type, value, verdict
TCA_GACT_PROB = 3
MIRRED = struct.Struct("=iI")  # the rest of tc_mirred: eaction, ifindex
TCA_MIRRED_BLOCKID = 5  # from Linux 6.8: to every device of a block
TC_ACT_STOLEN, TC_ACT_PIPE = 4, 3
# Verdicts by tc's words (linux/pkt_cls.h, TC_ACT_*).
CONTROLS = {"pass": 0, "reclassify": 1, "drop": 2, "pipe": 3, "trap": 8, "continue": -1}
ALIASES = {"ok": 0, "shot": 2}
RANDOM = {"netrand": 1, "determ": 2}  # PGACT_*
WAYS = {("egress", "redirect"): 1, ("egress", "mirror"): 2, ("ingress", "redirect"): 3, ("ingress", "mirror"): 4}
PACKET_TYPES = {"host": 0, "broadcast": 1, "multicast": 2, "otherhost": 3}  # linux/if_packet.h
SKBEDIT = {"priority": 3, "queue_mapping": 4, "mark": 5, "ptype": 7, "mask": 8, "flags": 9, "queue_mapping_max": 10}
WIDTHS = {"queue_mapping": 2, "ptype": 2, "flags": 8, "queue_mapping_max": 2}  # bytes, where they are not 4


class Gact(NamedTuple):
    """A verdict; or by chance, or each nth packet, another one: (type, value, verdict)."""

    control: int
    random: tuple[int, int, int] | None = None


class Mirred(NamedTuple):
    """way: TCA_EGRESS_REDIR and so on; ifindex: where to, 0 of an interface that is gone; control: and then."""

    way: int
    ifindex: int
    control: int


class Skbedit(NamedTuple):
    """What is written to the packet; None: left as it is. flags: SKBEDIT_F_* that no other value implies."""

    priority: int | None = None
    queue_mapping: int | None = None
    mark: int | None = None
    mask: int | None = None
    ptype: int | None = None
    control: int = TC_ACT_PIPE
    flags: int | None = None
    queue_mapping_max: int | None = None


def codec(kind: str) -> Kind:
    """The kind of an action; each has a key in filters.SIZES."""
    if kind == "police":
        from .police import POLICE

        return POLICE
    return {"gact": GACT_KIND, "mirred": MIRRED_KIND, "skbedit": SKBEDIT_KIND}[kind]


def parse(value: object, path: str) -> Action:
    """An action of its own, or with `index` alone one that exists. Raises InvalidInput with the path."""
    if not isinstance(value, Mapping):
        raise InvalidInput(path, value, "write a mapping with kind, and the kind's parameters or an index")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in SIZES:
        raise InvalidInput(f"{path}.kind", kind, "known kinds of actions: " + ", ".join(SIZES))
    if value.get("index") is not None:
        shared: dict[str, schema.Parser] = {"kind": schema.text, "index": schema.whole_number(1, 2**32 - 1)}
        if len(value) > len(shared):
            raise InvalidInput(path, dict(value), "an action with an index exists already: leave its parameters out")
        return Action(kind, schema.mapping(shared)(value, path)["index"])
    known = codec(kind)
    values = schema.mapping({"kind": schema.text, "index": schema.text, **known.parameters})(value, path)
    del values["kind"]
    try:
        return Action(kind, 0, known.build(**values))
    except ValueError as error:
        raise InvalidInput(path, dict(value), str(error)) from None


def parse_control(value: object) -> int:
    """A verdict by its word. Raises ValueError."""
    if isinstance(value, str) and value.split()[:1] in (["goto"], ["jump"]):
        raise ValueError("chains of filters are not supported, nor jumps; allowed: " + ", ".join(CONTROLS))
    found = {**CONTROLS, **ALIASES}.get(str(value))
    if found is None:
        raise ValueError("allowed: " + ", ".join({**CONTROLS, **ALIASES}))
    return found


def control_text(control: int) -> str:
    return next((word for word, number in CONTROLS.items() if number == control), str(control))


# --- gact -------------------------------------------------------------------------------------------------------------


def _build_gact(control: int | None = None, random: Mapping[str, Any] | None = None) -> Gact:
    if control is None:
        raise ValueError("gact needs a control: " + ", ".join(CONTROLS))
    return Gact(control, (RANDOM[random["type"]], random["value"], random["control"]) if random else None)


def _encode_gact(options: Gact) -> bytes:
    data = attribute(PARMS, GACT.pack(0, 0, options.control, 0, 0))
    return data + (attribute(TCA_GACT_PROB, PROB.pack(*options.random)) if options.random else b"")


def _decode_gact(data: bytes) -> Gact:
    found = attributes(data)
    kind, value, control = PROB.unpack_from(found.get(TCA_GACT_PROB, bytes(PROB.size)))
    return Gact(GACT.unpack_from(found[PARMS])[2], (kind, value, control) if kind else None)


def _render_gact(options: Gact) -> str:
    if not options.random:
        return control_text(options.control)
    kind, value, control = options.random
    word = next(word for word, number in RANDOM.items() if number == kind)
    return f"{control_text(options.control)} random {word} {control_text(control)} {value}"


_CHANCE = schema.mapping(
    {
        "type": schema.choice(*RANDOM),
        "control": schema.leaf(parse_control),
        "value": schema.whole_number(1, 10000),  # as tc bounds it; netrand means one packet in so many, too
    },
    ("type", "control", "value"),
)
GACT_KIND = Kind(
    "gact",
    {"control": schema.leaf(parse_control), "random": _CHANCE},
    _build_gact,
    _encode_gact,
    _decode_gact,
    _render_gact,
)


# --- mirred -----------------------------------------------------------------------------------------------------------


def parse_device(value: object) -> int:
    """The index of an interface of this node. Raises ValueError with those that there are."""
    try:
        return socket.if_nametoindex(str(value))
    except (OSError, ValueError):
        present = ", ".join(sorted(name for _index, name in socket.if_nameindex()))
        raise ValueError(f"this node has the interfaces {present}") from None


def _build_mirred(egress: str = "", ingress: str = "", dev: int | None = None, control: int | None = None) -> Mirred:
    if bool(egress) == bool(ingress) or dev is None:
        raise ValueError("mirred needs one of egress and ingress (redirect or mirror), and dev")
    what = egress or ingress
    if what == "redirect" and control is not None:
        raise ValueError("a redirected packet is gone: control belongs to mirror")
    way = WAYS["egress" if egress else "ingress", what]
    return Mirred(way, dev, TC_ACT_STOLEN if what == "redirect" else TC_ACT_PIPE if control is None else control)


def _encode_mirred(options: Mirred) -> bytes:
    parameters = GACT.pack(0, 0, options.control, 0, 0) + MIRRED.pack(options.way, options.ifindex)
    return attribute(PARMS, parameters)


def _decode_mirred(data: bytes) -> Mirred | Raw:
    found = attributes(data)
    if TCA_MIRRED_BLOCKID in found:
        return Raw(data)
    way, ifindex = MIRRED.unpack_from(found[PARMS], GACT.size)
    return Mirred(way, ifindex, GACT.unpack_from(found[PARMS])[2])


def _render_mirred(options: Mirred) -> str:
    direction, what = next(way for way, number in WAYS.items() if number == options.way)
    try:
        name = socket.if_indextoname(options.ifindex)
    except OSError:  # it is gone
        name = f"if{options.ifindex}"
    control = f" {control_text(options.control)}" if what == "mirror" and options.control != TC_ACT_PIPE else ""
    return f"{direction} {what} dev {name}{control}"


MIRRED_KIND = Kind(
    "mirred",
    {
        "egress": schema.choice("redirect", "mirror"),
        "ingress": schema.choice("redirect", "mirror"),
        "dev": schema.leaf(parse_device, keep=False),
        "control": schema.leaf(parse_control),
    },
    _build_mirred,
    _encode_mirred,
    _decode_mirred,
    _render_mirred,
)


# --- skbedit ----------------------------------------------------------------------------------------------------------


def _parse_mark(value: object) -> tuple[int, int | None]:
    """`5` or `0x5/0xff`: a mark, and which of its bits are written."""
    found = re.fullmatch(r"(0x[0-9a-fA-F]{1,8}|\d{1,10})(?:/(0x[0-9a-fA-F]{1,8}|\d{1,10}))?", str(value))
    if isinstance(value, bool) or not found:
        raise ValueError("write a mark, or mark/mask, such as 0x5/0xff")
    mark, mask = (None if part is None else int(part, 0 if "x" in part else 10) for part in found.groups())
    if mark is None or max(mark, mask or 0) >= 2**32 or (mask is not None and mark & ~mask):
        raise ValueError("mark and mask have 32 bits, and the mark none outside of its mask")
    return mark, mask


def _build_skbedit(
    mark: tuple[int, int | None] | None = None,
    priority: int | None = None,
    queue_mapping: int | None = None,
    ptype: str | None = None,
    control: int = TC_ACT_PIPE,
) -> Skbedit:
    if mark is None and priority is None and queue_mapping is None and ptype is None:
        raise ValueError("skbedit needs one of mark, priority, queue_mapping and ptype")
    bits, mask = mark or (None, None)
    return Skbedit(priority, queue_mapping, bits, mask, None if ptype is None else PACKET_TYPES[ptype], control)


def _encode_skbedit(options: Skbedit) -> bytes:
    data = attribute(PARMS, GACT.pack(0, 0, options.control, 0, 0))
    for name, number in SKBEDIT.items():
        value = getattr(options, name)
        if value is not None:
            wide = u64(value) if WIDTHS.get(name) == 8 else struct.pack("=H", value) if name in WIDTHS else u32(value)
            data += attribute(number, wide)
    return data


def _decode_skbedit(data: bytes) -> Skbedit:
    found = attributes(data)
    values = {name: integer(found[number]) for name, number in SKBEDIT.items() if number in found}
    return Skbedit(**values, control=GACT.unpack_from(found[PARMS])[2])


def _render_skbedit(options: Skbedit) -> str:
    mark = None if options.mark is None else f"{options.mark:#x}"
    ptype = next((word for word, number in PACKET_TYPES.items() if number == options.ptype), None)
    return words(
        queue_mapping=options.queue_mapping,
        priority=None if options.priority is None else handle_text(options.priority),
        mark=mark if options.mask is None else f"{mark}/{options.mask:#x}",
        ptype=ptype,
    ) + (f" {control_text(options.control)}" if options.control != TC_ACT_PIPE else "")


SKBEDIT_KIND = Kind(
    "skbedit",
    {
        "mark": schema.leaf(_parse_mark),
        "priority": schema.leaf(parse_handle),
        "queue_mapping": schema.whole_number(0, 0xFFFF),
        "ptype": schema.choice(*PACKET_TYPES),
        "control": schema.leaf(parse_control),
    },
    _build_skbedit,
    _encode_skbedit,
    _decode_skbedit,
    _render_skbedit,
)
