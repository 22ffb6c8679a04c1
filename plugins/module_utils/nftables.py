# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain nftables: tables of ours in the bridge family, each replaced whole in one transaction (nft(8)).

An empty chain of each table is named by a hash of all its rules: so what stands is known without reading rules back as
text, which nft writes in words of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .converge import Step
from .errors import StepFailed
from .programs import find, run

FAMILY = "bridge"
PREFIX = "impair_testbed_"  # of the names of our tables
IDENTITY = "made_of_"  # of the name of the empty chain


class Table(NamedTuple):
    """`content` makes it; `chains`: how many rules stand in each. Two tables are the same whose chains are."""

    name: str
    chains: tuple[tuple[str, int], ...]
    content: str


Tables = tuple[Table, ...]


def table(owner: str, chains: Mapping[str, tuple[str, Sequence[str]]]) -> Table:
    """`owner`: what it is for; `chains`: what goes before the rules ("" for a chain to go to), and the rules."""
    name = PREFIX + hashlib.sha256(owner.encode()).hexdigest()[:12]
    lines = []
    for chain, (head, rules) in chains.items():
        lines += [f"  chain {chain} {{", *(f"    {line}" for line in (head, *rules) if line), "  }"]
    identity = IDENTITY + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    body = "\n".join([f"table {FAMILY} {name} {{", *lines, f"  chain {identity} {{", "  }", "}", ""])
    counts = {chain: len(rules) for chain, (_head, rules) in chains.items()} | {identity: 0}
    return Table(name, tuple(sorted(counts.items())), body)


class NftablesDomain:
    """Observe, plan and apply the tables of ours."""

    name = "nftables"

    def observe(self) -> Tables:
        if find("nft") is None:
            return ()
        listed = _listed("tables", FAMILY)
        names = [entry["table"]["name"] for entry in listed if "table" in entry]
        return tuple(_observed(name) for name in sorted(names) if name.startswith(PREFIX))

    def plan(self, current: Tables, desired: Tables) -> list[Step]:
        known = {one.name: one.chains for one in current}
        wanted = {one.name for one in desired}
        steps = []
        for one in desired:
            if one.chains != known.get(one.name):
                renew = f"add table {FAMILY} {one.name}\ndelete table {FAMILY} {one.name}\n"
                steps.append(Step(f"nft -f - <<END\n{renew}{one.content}END", renew + one.content))
        for one in current:
            if one.name not in wanted:
                text = f"delete table {FAMILY} {one.name}"
                steps.append(Step(f"nft {text}", text + "\n", retire=True))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            done = run(["nft", "-f", "-"], step.payload)
            if done.returncode:
                raise StepFailed(step.command, done.stderr.strip())

    def describe(self, state: Tables) -> list[str]:
        return [line for one in state for line in one.content.splitlines()]


def _observed(name: str) -> Table:
    counts: dict[str, int] = {}
    for entry in _listed("table", FAMILY, name):
        if "chain" in entry:
            counts.setdefault(entry["chain"]["name"], 0)
        elif "rule" in entry:
            counts[entry["rule"]["chain"]] = counts.get(entry["rule"]["chain"], 0) + 1
    shown = run(["nft", "list", "table", FAMILY, name])
    return Table(name, tuple(sorted(counts.items())), shown.stdout)


def _listed(*words: str) -> Iterable[dict[str, dict[str, str]]]:
    """What `nft -j list` tells; nothing where the kernel has no nf_tables."""
    done = run(["nft", "-j", "list", *words])
    if done.returncode or not done.stdout.strip():
        return []
    found: list[dict[str, dict[str, str]]] = json.loads(done.stdout)["nftables"]
    return found
