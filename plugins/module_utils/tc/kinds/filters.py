# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What classifiers share: a target class, an ingress device and actions (linux/pkt_cls.h)."""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

from ... import schema
from ...errors import InvalidInput
from ...netlink import attribute, attributes, each_attribute, integer, nested, string, text, u32
from ..model import Raw, handle_text

TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
MOST_ACTIONS = 32  # TCA_ACT_MAX_PRIO: the kernel passes over what is beyond
TCA_GACT_PARMS = 2
GACT = struct.Struct("=IIiii")  # tc_gact: index, capabilities, verdict, references, bindings
COUNTS = struct.Struct("=ii")  # references and bindings, at 12 bytes behind the index, of police at 44
# Bytes of the parameters (struct tc_gact, tc_skbedit, tc_mirred, tc_police), whose attribute is 2, and 1 of police.
SIZES = {"gact": 20, "skbedit": 20, "mirred": 28, "police": 56}


def parse_interface(value: object) -> str:
    """A name that an interface can have (IFNAMSIZ); whether there is one, the kernel says."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value):
        raise ValueError("write the name of an interface: 1 to 15 characters without blanks, slashes and colons")
    return value


class Action(NamedTuple):
    """An action of a filter: shared with others under its index, or the filter's own with index 0 and its options."""

    kind: str
    index: int  # type: ignore[assignment]  # hides tuple.index
    options: Any = None


def encode_actions(kind: int, actions: tuple[Action, ...]) -> bytes:
    """Bind what exists by its index (the kernel keeps its parameters: ACT_P_BOUND), make the others."""
    if not actions:
        return b""
    return nested(kind, *(nested(order, *_encode(action)) for order, action in enumerate(actions, 1)))


def _encode(action: Action) -> tuple[bytes, bytes]:
    if action.options is None:
        parameters = u32(action.index).ljust(SIZES.get(action.kind, GACT.size), b"\0")
        options = attribute(_parameters(action.kind), parameters)
    else:
        from .action import codec

        options = codec(action.kind).encode(action.options)
    return attribute(TCA_ACT_KIND, string(action.kind)), nested(TCA_ACT_OPTIONS, options)


def _parameters(kind: str) -> int:
    return 1 if kind == "police" else TCA_GACT_PARMS


def decode_actions(data: bytes) -> tuple[Action, ...]:
    """The kernel gave an index to the filter's own actions too: these have one reference, and it is the filter's."""
    actions = []
    for _order, entry in each_attribute(data):
        found = attributes(entry)
        kind, options = text(found[TCA_ACT_KIND]), found.get(TCA_ACT_OPTIONS, b"")
        parameters = attributes(options).get(_parameters(kind), bytes(56))
        index = integer(parameters[:4])
        if not index or COUNTS.unpack_from(parameters, 44 if kind == "police" else 12) == (1, 1):
            actions.append(Action(kind, 0, _decode(kind, options)))
        else:
            actions.append(Action(kind, index))
    return tuple(actions)


def _decode(kind: str, options: bytes) -> Any:
    """Raw where no codec knows all of it."""
    from .action import codec

    return codec(kind).decode(options) if kind in SIZES else Raw(options)


def render_actions(actions: tuple[Action, ...]) -> str:
    return " ".join(f"action {action.kind} {_render(action)}".rstrip() for action in actions)


def _render(action: Action) -> str:
    if action.options is None:
        return f"index {action.index}"
    if isinstance(action.options, Raw):
        return ""
    from .action import codec

    return codec(action.kind).render(action.options)


def parse_actions(value: object, path: str) -> tuple[Action, ...]:
    """What stands under `action`. Raises InvalidInput with the path of what cannot be used."""
    from .action import parse

    actions = tuple(schema.sequence(parse)(value, path))
    if len(actions) > MOST_ACTIONS:
        raise InvalidInput(path, f"{len(actions)} actions", f"a filter has {MOST_ACTIONS} actions at most")
    return actions


def check_target(flowid: int | None, actions: tuple[Action, ...]) -> int:
    """The class, 0 for none: a filter whose actions do all the work needs no class."""
    if flowid is None and not actions:
        raise ValueError("a filter needs a flowid or an action")
    return flowid or 0


def target_text(target: int) -> str:
    """Said also where there is none: before Linux 6.1.45 and 6.5 a filter keeps its class when a change names none."""
    return handle_text(target) if target else "none"
