# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own BPF program and where it is to stand: what is asked, checked. Knows no kernel call."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import schema, units
from ..errors import InvalidInput
from ..schema import leaf
from ..tc.hooks import ARRIVING, LEAVING, OWN, PRIORITY
from ..tc.model import (
    EGRESS_FILTERS,
    INGRESS,
    INGRESS_FILTERS,
    PROTOCOLS,
    ROOT,
    handle_text,
    parse_handle,
    protocol_text,
)
from . import contents
from .elf import EXECUTABLE, BadObject, MapDefinition, Object, functions, read
from .program import Code, link

NAME = r"[A-Za-z0-9_.-]{1,64}"
ATTACH = {"egress": LEAVING, "ingress": ARRIVING["clsact"]}
HASH_DIGITS = 16
SHORT = 15  # characters of a map's name that the kernel keeps


class Attached(NamedTuple):
    """A bpf filter of ours; `label` names the program and has the hash of all that it is made of."""

    parent: int
    priority: int
    protocol: int
    target: int  # a class, 0: none
    direct: bool  # what the program returns is the verdict
    label: str

    @property
    def at_ends(self) -> bool:
        return self.parent in (INGRESS_FILTERS, EGRESS_FILTERS)

    @property
    def place(self) -> str:
        """In tc's words."""
        parent = f"parent {handle_text(self.parent)}"
        return f"{parent} protocol {protocol_text(self.protocol)} prio {self.priority}"

    @property
    def how(self) -> str:
        return ("direct-action" if self.direct else "") + (f" flowid {handle_text(self.target)}" if self.target else "")


class Wanted(NamedTuple):
    """What a run of the module has to bring about; `file` is what errors and steps call the object."""

    attached: Attached
    data: bytes
    file: str
    section: str
    function: str
    code: Code
    entries: tuple[contents.Entry, ...]
    pin: str

    @property
    def maps(self) -> dict[str, MapDefinition]:
        """The maps that the program uses, without its global variables."""
        return _maps(self.code)


def prefix(name: str) -> str:
    """What the labels of a program have in common, whatever it is made of."""
    return f"{OWN}{name}:"


def parse_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise InvalidInput("name", value, "write 1 to 64 letters, digits, dots, dashes and underscores")
    return value


def parse(asked: Mapping[str, Any], data: bytes, file: str) -> Wanted:
    """`asked`: the module's parameters; `data`: the object file. Raises InvalidInput, BadObject."""
    made = read(data, file)
    section = asked.get("section") or _section(made)
    function = asked.get("program") or ""
    code = link(made, section, function)
    attached = _attached(asked, _identity(code, made.licence))
    entries = contents.parse(asked.get("maps") or {}, _maps(code))
    return Wanted(attached, data, file, section, function, code, entries, _pin(asked.get("pin")))


def _attached(asked: Mapping[str, Any], identity: str) -> Attached:
    attach, parent = asked.get("attach"), asked.get("parent")
    if bool(attach) == bool(parent):
        raise InvalidInput("attach", attach, "write attach (egress or ingress), or the parent in a tree of queues")
    target = asked.get("flowid")
    if attach and target:
        raise InvalidInput(
            "flowid", target, "classes stand in a tree of queues: write its parent in the place of attach"
        )
    direct = asked.get("direct_action")
    where = ATTACH[attach] if attach else _handle(parent, "parent")
    if where in (ROOT, INGRESS) or not where >> 16 or (parent and where >> 16 == 0xFFFF):
        raise InvalidInput("parent", parent, 'write the handle of a qdisc or class, such as "1:", or attach: egress')
    return Attached(
        where,
        schema.whole_number(1, PRIORITY - 1)(asked.get("priority", 100), "priority"),
        PROTOCOLS[schema.choice(*PROTOCOLS)(asked.get("protocol") or "all", "protocol")],
        _handle(target, "flowid") if target else 0,
        not parent if direct is None else leaf(units.parse_boolean)(direct, "direct_action"),
        prefix(parse_name(asked.get("name"))) + identity,
    )


def _handle(value: object, path: str) -> int:
    return int(leaf(parse_handle)(value, path))


def _identity(code: Code, licence: str) -> str:
    """Of what the kernel gets: paths and times in the file's debugging information are no other program."""
    facts = repr((code.name, licence, sorted(code.maps.items()))).encode()
    return hashlib.sha256(code.instructions + facts).hexdigest()[:HASH_DIGITS]


def _section(made: Object) -> str:
    """The only one with programs, else `classifier`."""
    with_code = [number for number, one in enumerate(made.sections) if one.flags & EXECUTABLE and one.name != ".text"]
    names = sorted({made.sections[number].name for number in with_code if any(functions(made, number))})
    if len(names) == 1:
        return names[0]
    if "classifier" in names:
        return "classifier"
    if names:
        raise InvalidInput("section", None, f"{made.name} has several: {', '.join(names)}; say which")
    raise BadObject(f'{made.name} has no program: no section with code and a function (SEC("classifier"))')


def _maps(code: Code) -> dict[str, MapDefinition]:
    found = {one.name: one for one, _offset in code.maps.values() if not one.content}
    if len({name[:SHORT] for name in found}) < len(found):
        raise BadObject(f"the names of maps have to differ in their first {SHORT} characters: {', '.join(found)}")
    return found


def _pin(value: object) -> str:
    if value is None:
        return ""
    allowed = "write the absolute path of a folder in the BPF file system, without dots: /sys/fs/bpf/mine"
    # The kernel keeps names with dots for itself (kernel/bpf/inode.c, bpf_lookup).
    if not isinstance(value, str) or not re.fullmatch(r"(/[^./\0]+)+/?", value):
        raise InvalidInput("pin", value, allowed)
    return value.rstrip("/")
