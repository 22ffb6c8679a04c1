# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matchall classifier: every packet of its protocol (net/sched/cls_matchall.c, tc-matchall(8))."""

from __future__ import annotations

from typing import NamedTuple

from ... import schema
from ...netlink import attribute, attributes, integer, u32
from ..model import handle_text, parse_handle
from .base import Kind
from .filters import Action, check_target, decode_actions, encode_actions, parse_actions, render_actions

CLASSID, ACT = 1, 2  # TCA_MATCHALL_*
HANDLE = 1  # the kernel's number for the only filter of a priority


class Matchall(NamedTuple):
    """All go to the class `target`, and through the actions."""

    target: int
    actions: tuple[Action, ...] = ()


def _build(flowid: int | None = None, action: tuple[Action, ...] = ()) -> Matchall:
    return Matchall(check_target(flowid, action), action)


def _encode(options: Matchall) -> bytes:
    data = attribute(CLASSID, u32(options.target)) if options.target else b""
    return data + encode_actions(ACT, options.actions)


def _decode(data: bytes) -> Matchall:
    found = attributes(data)
    return Matchall(integer(found.get(CLASSID, b"")), decode_actions(found.get(ACT, b"")))


def _render(options: Matchall) -> str:
    line = f"classid {handle_text(options.target)}" if options.target else ""
    return f"{line} {render_actions(options.actions)}".strip()


def _unchangeable(_old: Matchall, _new: Matchall) -> str:
    return "matchall takes no change (mall_change)"


MATCHALL = Kind(
    "matchall",
    {"flowid": schema.leaf(parse_handle), "action": parse_actions},
    _build,
    _encode,
    _decode,
    _render,
    unchangeable=_unchangeable,
)
