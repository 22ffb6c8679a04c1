# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which iptables and ebtables programs of this node work, and which of them to use.

The two variants of a family (nft and legacy) keep separate rules in the kernel. Which of them works differs:
Debian's User-Mode Linux kernels have no nf_tables for IPv4, newer kernels have no legacy tables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import MissingCapability, StepFailed
from ..programs import find, run
from .model import PREFIX
from .text import Table, parse_save

# ebtables-legacy is left out: its restore program cannot edit single chains, and loses rules while saying nothing.
VARIANTS = {"iptables": ("nft", "legacy"), "ip6tables": ("nft", "legacy"), "ebtables": ("nft",)}
FAMILIES = tuple(VARIANTS)


class Program(NamedTuple):
    """One variant of one family: how to run it, and what a person types."""

    family: str
    variant: str
    command: str  # the program that is run; its companions are <command>-save and <command>-restore
    typed: str  # the plain name where that points at this variant

    def save(self) -> dict[str, Table]:
        """All its tables that exist; asking for a single table would create it."""
        done = run([f"{self.command}-save"])
        if done.returncode != 0:
            raise StepFailed(f"{self.command}-save", message(done.stderr))
        return parse_save(done.stdout)


def message(stderr: str) -> str:
    """What a program complained about, without its advice to read the manual."""
    chatter = ("Try `", "Error occurred at line", "# Warning")
    lines = [line.strip() for line in stderr.split("\n") if line.strip() and not line.startswith(chatter)]
    return "; ".join(lines) or "it gave no reason"


def program(family: str, variant: str) -> Program | None:
    """The program of this family and variant, None where it is not installed."""
    command, plain = f"{family}-{variant}", plain_variant(family) == variant
    if find(f"{command}-restore") is None:
        if not plain:
            return None
        command = family
    return Program(family, variant, command, family if plain else command)


def plain_variant(family: str) -> str:
    """The variant that the plain name (`iptables`) points at; empty where it is not installed."""
    path = find(family)
    if path is None:
        return ""
    target = os.path.basename(os.path.realpath(path))
    for variant in ("nft", "legacy"):
        if variant in target:
            return variant
    return "nft" if "nf_tables" in run([family, "-V"]).stdout else "legacy"


def working(capabilities: Mapping[str, bool | str], family: str) -> list[Program]:
    """The variants that this kernel carries; what the plain name points at comes first."""
    found = [
        program(family, variant) for variant in VARIANTS[family] if capabilities.get(f"{family}.{variant}") is True
    ]
    return sorted((each for each in found if each is not None), key=lambda each: each.typed != family)


def choose(capabilities: Mapping[str, bool | str], family: str, variant: str = "auto") -> Program:
    """The program to use. Raises MissingCapability with the kernel's answers where none works.

    Where both variants work: the one that holds chains of ours, else the only one that holds anybody's rules,
    else what the plain name points at.
    """
    able = [each for each in working(capabilities, family) if variant in ("auto", each.variant)]
    if not able:
        wanted = VARIANTS[family] if variant == "auto" else (variant,)
        reasons = "; ".join(f"{family}-{each}: {capabilities.get(f'{family}.{each}')}" for each in wanted)
        raise MissingCapability(f"rules of {family}", f"a working {' or '.join(wanted)} variant ({reasons})")
    if len(able) == 1:
        return able[0]
    saved = [(each, each.save()) for each in able]
    for holds in (_ours, _anything):
        holding = [each for each, tables in saved if any(holds(table) for table in tables.values())]
        if len(holding) == 1:
            return holding[0]
    return able[0]


def holding_ours(capabilities: Mapping[str, bool | str]) -> list[tuple[Program, str]]:
    """Every program and table that holds a chain of ours, whoever of us made it."""
    return [
        (each, name)
        for family in FAMILIES
        for each in working(capabilities, family)
        for name, table in each.save().items()
        if _ours(table)
    ]


def _ours(table: Table) -> bool:
    return any(name.startswith(PREFIX) for name in table.chains)


def _anything(table: Table) -> bool:
    return bool(table.rules)
