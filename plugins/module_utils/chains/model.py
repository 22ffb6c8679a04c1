# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary of the chains domain: what we own in one table of iptables, ip6tables or ebtables.

We own chains whose names start with `impair-<owner>-`, and every rule elsewhere that jumps into them. Rules are
tuples of arguments, exactly as a person types them after `-A CHAIN`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from ..errors import InvalidInput

PREFIX = "impair-"
NAME_LIMIT = 28  # xtables allows 28 characters, ebtables 31

# The kernel's built-in chains of every table.
HOOKS: dict[str, dict[str, tuple[str, ...]]] = {
    "iptables": {
        "raw": ("PREROUTING", "OUTPUT"),
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "security": ("INPUT", "FORWARD", "OUTPUT"),
    },
    "ebtables": {
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
        "broute": ("BROUTING",),
    },
}
HOOKS["ip6tables"] = HOOKS["iptables"]

Rule = tuple[str, ...]


class Chain(NamedTuple):
    """A chain of ours and its rules, in order."""

    name: str
    rules: tuple[Rule, ...] = ()


class Jump(NamedTuple):
    """A rule `-A hook -j target` that leads packets into a chain of ours.

    `place` is the number of foreign rules before it. None asks for it to be appended where it is missing, and
    takes it anywhere afterwards; 0 asks for it before every foreign rule. Observed jumps always carry a number.
    `condition` are matches of the jump itself, such as ("-i", "eth0").
    """

    hook: str
    target: str
    place: int | None = None
    condition: Rule = ()


class ChainsState(NamedTuple):
    """All that one owner has in one table. The last two fields are only observed, and ignored when desired."""

    chains: tuple[Chain, ...] = ()
    jumps: tuple[Jump, ...] = ()
    layout: tuple[tuple[str, tuple[Jump | None, ...]], ...] = ()  # per hook: a jump of ours (any owner's), else None
    foreign_counts: tuple[str, ...] = ()  # rules of others that count packets (`--mode nth`)


EMPTY = ChainsState()


def chain_name(owner: str, text: str) -> str:
    """Name of an owner's chain; raises InvalidInput where the kernel's limit is passed."""
    name = f"{PREFIX}{owner}-{text}"
    if len(name) > NAME_LIMIT:
        room = NAME_LIMIT - len(name) + len(text)
        raise InvalidInput(
            f"chain {name}", text, f"the kernel takes names of {NAME_LIMIT} characters: here at most {room}"
        )
    return name


def counts_packets(rule: Rule) -> bool:
    """Whether the rule keeps a count that decides which packets it matches (xt_statistic, `--mode nth`)."""
    return any(pair == ("--mode", "nth") for pair in pairwise(rule))
