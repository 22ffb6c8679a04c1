# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text format of the *-save and *-restore programs.

Its quoting is not the shell's: only double quotes group, a backslash escapes only within them, and a line is a
line whatever the quotes (iptables/xshared.c, add_param_to_argv).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from .model import Rule

_ARGUMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^ \t"]+)')
_LONGEST = 1000  # the programs refuse arguments of 1024 bytes


class Table(NamedTuple):
    """One table as saved: its chains (name → policy, `-` for a chain of somebody's own in iptables) and rules."""

    chains: dict[str, str]
    rules: list[tuple[str, Rule]]


def parse_save(text: str) -> dict[str, Table]:
    """Tables of the output of a *-save program; comments and counters are left out."""
    tables: dict[str, Table] = {}
    table = Table({}, [])
    for line in text.split("\n"):  # not splitlines: comments may hold other separators
        if line.startswith("*"):
            table = tables.setdefault(line[1:], Table({}, []))
        elif line.startswith(":"):
            name, policy = line[1:].split(" ")[:2]
            table.chains[name] = policy
        elif line.startswith("-A "):
            arguments = split(line)
            table.rules.append((arguments[1], arguments[2:]))
    return tables


def split(line: str) -> Rule:
    """Arguments of one line, read as the restore programs read it."""
    return tuple(bare or re.sub(r"\\(.)", r"\1", quoted) for quoted, bare in _ARGUMENT.findall(line))


def join(arguments: Iterable[str]) -> str:
    """One line that the restore programs read as exactly these arguments."""
    return " ".join(map(_quote, arguments))


def _quote(argument: str) -> str:
    if argument and not set(argument) & set(" \t\"'\\"):
        return argument
    return '"' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unfit(argument: str) -> str:
    """Why an argument cannot be written in a restore file; empty where it can."""
    if any(ord(character) < 32 or ord(character) == 127 for character in argument):
        return "control characters and line breaks cannot be part of a rule"
    if len(os.fsencode(argument)) > _LONGEST:
        return f"an argument has at most {_LONGEST} bytes"
    return ""
