# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges chains by what iptables-save and ebtables-save print. Imports nothing of ours."""

from __future__ import annotations

import re

OURS = "impair-"


def tables(saved: str) -> dict[str, list[str]]:
    """Table → its lines, without comments (they carry the date) and COMMIT."""
    found: dict[str, list[str]] = {}
    for line in saved.split("\n"):
        if line.startswith("*"):
            rows = found.setdefault(line[1:], [])
        elif line and not line.startswith("#") and line != "COMMIT":
            rows.append(line)
    return found


def as_typed(saved: str) -> dict[str, list[str]]:
    """Table → rules only, with every jump into a chain of ours replaced by the rules of that chain.

    Two nodes for which this is equal treat packets alike, wherever one of them keeps its rules.
    """
    return {table: flat for table, lines in tables(saved).items() if (flat := _flat(lines))}


def rules_of(saved: str, table: str, chain: str) -> list[str]:
    """What follows `-A chain` in each of its rules."""
    start = f"-A {chain} "
    return [line[len(start) :] for line in tables(saved).get(table, []) if line.startswith(start)]


def foreign(saved: str) -> dict[str, list[str]]:
    """Table → all lines, with their counters, that neither belong to chains of ours nor jump into them.

    Tables without rules go. So do counters of policies: iptables-legacy zeroes them at any edit, whoever makes it.
    """
    found = {}
    for table, lines in tables(saved).items():
        kept = [re.sub(r"^(:.*) \[\d+:\d+\]$", r"\1", line) for line in lines if OURS not in line]
        if any("-A " in line for line in kept):
            found[table] = kept
    return found


def packets(saved: str, chain: str, containing: str) -> int:
    """The packet counter of the one rule of a chain that contains a text; `saved` comes from `-save -c`."""
    pattern = re.compile(rf"^\[(\d+):\d+\] -A {re.escape(chain)} .*{re.escape(containing)}")
    (count,) = [int(match[1]) for line in saved.split("\n") if (match := pattern.match(line))]
    return count


def _flat(lines: list[str]) -> list[str]:
    ours: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(f"-A {OURS}"):
            name, rest = line[3:].split(" ", 1)
            ours.setdefault(name, []).append(rest)
    flat = []
    for line in lines:
        if not line.startswith("-A ") or line.startswith(f"-A {OURS}"):
            continue
        hook, rest = line[3:].split(" ", 1)
        if rest.startswith(f"-j {OURS}"):
            flat += [f"-A {hook} {rule}" for rule in ours.get(rest[3:], [])]
        else:
            flat.append(line)
    return sorted(flat, key=lambda line: line.split(" ")[1])  # by hook; stable, so the order within a hook stays
