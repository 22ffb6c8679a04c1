# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fw classifier: the packet's mark chooses the class (net/sched/cls_fw.c, tc-fw(8)). Its handle is the mark."""

from __future__ import annotations

from typing import NamedTuple

from ... import schema, units
from ...netlink import attribute, attributes, integer, string, text, u32
from ..model import Raw, parse_handle
from .base import Kind, words
from .filters import (
    Action,
    check_target,
    decode_actions,
    encode_actions,
    parse_actions,
    parse_interface,
    render_actions,
    target_text,
)

TCA_FW_CLASSID, TCA_FW_POLICE, TCA_FW_INDEV, TCA_FW_ACT, TCA_FW_MASK = 1, 2, 3, 4, 5
WHOLE_MARK = 0xFFFFFFFF


class Fw(NamedTuple):
    """target: class handle; mask: the bits of the mark that count (one mask for all filters of a priority)."""

    target: int
    mask: int = WHOLE_MARK
    indev: str = ""
    actions: tuple[Action, ...] = ()


def _build(flowid: int | None = None, mask: int = WHOLE_MARK, indev: str = "", action: tuple[Action, ...] = ()) -> Fw:
    return Fw(check_target(flowid, action), mask, indev, action)


def _encode(options: Fw) -> bytes:
    data = attribute(TCA_FW_CLASSID, u32(options.target))
    if options.mask != WHOLE_MARK:
        data += attribute(TCA_FW_MASK, u32(options.mask))
    if options.indev:
        data += attribute(TCA_FW_INDEV, string(options.indev))
    return data + encode_actions(TCA_FW_ACT, options.actions)


def _decode(data: bytes) -> Fw | Raw:
    """Raw of one that polices in the way of old."""
    found = attributes(data)
    if TCA_FW_POLICE in found:
        return Raw(data)
    return Fw(
        integer(found.get(TCA_FW_CLASSID, b"")),
        integer(found.get(TCA_FW_MASK, u32(WHOLE_MARK))),
        text(found.get(TCA_FW_INDEV, b"")),
        decode_actions(found.get(TCA_FW_ACT, b"")),
    )


def _render(options: Fw) -> str:
    line = words(indev=options.indev or None, flowid=target_text(options.target))
    return f"{line} {render_actions(options.actions)}".strip()


def _unchangeable(old: Fw, new: Fw) -> str:
    return "fw keeps its ingress device when a change names none" if old.indev and not new.indev else ""


FW = Kind(
    "fw",
    {
        "flowid": schema.leaf(parse_handle),
        "mask": schema.leaf(lambda value: units.parse_integer(value, 1)),
        "indev": schema.leaf(parse_interface),
        "action": parse_actions,
    },
    _build,
    _encode,
    _decode,
    _render,
    unchangeable=_unchangeable,
)
