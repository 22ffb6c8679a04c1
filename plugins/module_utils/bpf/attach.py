# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the module bpf: from its parameters to the kernel."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

from .. import guard
from ..converge import Report, Target, converge
from ..errors import InvalidInput
from ..netlink import Socket
from .asked import parse, parse_name
from .own import OwnDomain


def run(asked: Mapping[str, Any], check: bool = False) -> tuple[Report, dict[str, int] | None]:
    """Converge; the report, and the ids of the program's maps (None: it is to be absent).

    `asked`: the module's parameters, with the object file as base64 in `code`. Raises TestbedError.
    """
    name = parse_name(asked["name"])
    present = asked.get("state", "present") == "present"
    wanted = parse(asked, _object(asked), _file(asked)) if present else None
    with guard.alone(), Socket() as rtnetlink:
        domain = OwnDomain(rtnetlink, asked["interface"], name)
        if wanted:
            domain.claim(wanted)
        desired = domain.prepare(wanted) if wanted else domain.absent()
        try:
            report = converge([Target(domain, desired)], check)
        finally:
            if not check:
                domain.forget()
    return report, domain.maps if wanted else None


def _file(asked: Mapping[str, Any]) -> str:
    """What errors and steps call the object file."""
    source = asked.get("source")
    return f"{os.path.splitext(source)[0]}.o" if source else asked.get("object") or "the object"


def _object(asked: Mapping[str, Any]) -> bytes:
    if asked.get("code"):
        return base64.b64decode(asked["code"])
    path = asked.get("object")
    if not path or not asked.get("remote_src"):
        raise InvalidInput("source", asked.get("source"), "the controller compiles it, or reads the object")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput("object", path, f"it cannot be read on the node: {error.strerror}") from None
