# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What classifiers share: a target class, an ingress device and actions (linux/pkt_cls.h)."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from ...netlink import attribute, attributes, each_attribute, integer, nested, string, text

TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
TCA_GACT_PARMS = 2
GACT = struct.Struct("=IIiii")  # tc_gact: index, capabilities, verdict, references, bindings


def parse_interface(value: object) -> str:
    """A name that an interface can have (IFNAMSIZ); whether there is one, the kernel says."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value):
        raise ValueError("write the name of an interface: 1 to 15 characters without blanks, slashes and colons")
    return value


class Action(NamedTuple):
    """An action that a filter shares with others: its kind and its index."""

    kind: str
    index: int  # type: ignore[assignment]  # hides tuple.index


def encode_actions(kind: int, actions: tuple[Action, ...]) -> bytes:
    """Bind existing actions by their index; the kernel keeps their parameters (ACT_P_BOUND, net/sched/act_api.c)."""
    if not actions:
        return b""
    return nested(
        kind,
        *(
            nested(
                order,
                attribute(TCA_ACT_KIND, string(action.kind)),
                nested(TCA_ACT_OPTIONS, attribute(TCA_GACT_PARMS, GACT.pack(action.index, 0, 0, 0, 0))),
            )
            for order, action in enumerate(actions, 1)
        ),
    )


def decode_actions(data: bytes) -> tuple[Action, ...]:
    """Kind and index of each action; every action's parameters start with its index."""
    actions = []
    for _order, entry in each_attribute(data):
        found = attributes(entry)
        parameters = attributes(found.get(TCA_ACT_OPTIONS, b"")).get(TCA_GACT_PARMS, bytes(4))
        actions.append(Action(text(found[TCA_ACT_KIND]), integer(parameters[:4])))
    return tuple(actions)


def render_actions(actions: tuple[Action, ...]) -> str:
    return " ".join(f"action {action.kind} index {action.index}" for action in actions)
