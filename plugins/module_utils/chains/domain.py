# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chains domain: our chains in one table of one program, as converge() wants it.

The kernel's own spelling is the canonical one (`--set-mark 3` is saved as `--set-xmark 0x3/0xffffffff`), so the
desired chains are first restored in a throwaway namespace by the same program and read back: that normalises
them, and refuses bad rules before the node is touched.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..converge import Step
from ..errors import InvalidInput, MissingCapability, StepFailed
from ..namespace import throwaway_namespace
from ..programs import run
from . import plan as planning
from .model import HOOKS, PREFIX, Chain, ChainsState, Jump, Rule, counts_packets
from .text import Table, join, unfit
from .variants import Program, holding_ours, message

Chains = tuple[Chain, ...]


class _Line(NamedTuple):
    """One line of a restore file, and where in the user's input it comes from."""

    path: str
    arguments: Rule


class ChainsDomain:
    """Chains `impair-<owner>-…` in one table, and the jumps into them. An empty owner sees all chains of ours."""

    def __init__(self, program: Program, table: str, owner: str, paths: Mapping[str, str] | None = None) -> None:
        """`paths`: a chain's name → where its rules stand in the user's input; errors then name `<path>[2]`."""
        self.program = program
        self.table = table
        self.prefix = f"{PREFIX}{owner}-" if owner else PREFIX
        self.paths = dict(paths or {})
        self.name = f"{program.typed} {table}"
        self._foreign_chains: frozenset[str] = frozenset()
        self._canonical: dict[Chains, Chains] = {}

    def observe(self) -> ChainsState:
        """What stands in the table; a table that does not exist is empty, and is not created by looking."""
        table = self.program.save().get(self.table, Table({}, []))
        self._foreign_chains = frozenset(name for name in table.chains if not name.startswith(self.prefix))
        state = _state(table, self.prefix)
        self._canonical[state.chains] = state.chains
        return state

    def plan(self, current: ChainsState, desired: ChainsState) -> list[Step]:
        """Steps from current to desired; raises InvalidInput for a rule that the program refuses."""
        return planning.plan(self.program, self.table, current, self.canonical(desired))

    def apply(self, steps: Sequence[Step]) -> None:
        """All steps in one commit: the kernel takes all of them or none."""
        failure = self._restore([step.payload for step in steps], "--noflush")
        if failure:
            raise StepFailed("; ".join(step.command for step in steps), failure)

    def describe(self, state: ChainsState) -> list[str]:
        """The lines that would make this state."""
        return planning.describe(self.program, self.table, state)

    def canonical(self, desired: ChainsState) -> ChainsState:
        """The desired state in the program's own spelling. Raises InvalidInput; the node is not touched."""
        if desired.chains not in self._canonical:
            self._check(desired)
            with throwaway_namespace(f"checking rules of {self.program.typed} without touching the node"):
                self._canonical[desired.chains] = self._rehearse(desired)
        return desired._replace(chains=self._canonical[desired.chains])

    def _check(self, desired: ChainsState) -> None:
        names = [chain.name for chain in desired.chains]
        for name in names:
            if not name.startswith(self.prefix) or names.count(name) > 1:
                raise InvalidInput(self._path(name), name, f"chains are named once and start with {self.prefix}")
        for line in self._rules(desired):
            for argument in line.arguments:
                if unfit(argument):
                    raise InvalidInput(line.path, join(line.arguments[2:]), unfit(argument))

    def _rehearse(self, desired: ChainsState) -> Chains:
        """Restore and read back; to be called inside a throwaway namespace."""
        jumps = [_Line(self._path(jump.target), ("-A", jump.hook, *planning.jump_rule(jump))) for jump in desired.jumps]
        lines = [*jumps, *self._rules(desired)]  # jumps first: the kernel sees a loop only in chains that are reached
        if self._try(desired, lines):
            raise self._culprit(desired, lines)
        saved = _state(self.program.save().get(self.table, Table({}, [])), self.prefix)
        rules = {chain.name: chain.rules for chain in saved.chains}
        for chain in desired.chains:
            if len(rules.get(chain.name, ())) < len(chain.rules):
                allowed = f"{self.program.typed} skips some of these rules; `-4` and `-6` do that"
                raise InvalidInput(self._path(chain.name), [join(rule) for rule in chain.rules], allowed)
        return tuple(Chain(chain.name, rules[chain.name]) for chain in desired.chains)

    def _culprit(self, desired: ChainsState, lines: Sequence[_Line]) -> InvalidInput | MissingCapability:
        """The first line that the program refuses: it takes all those before."""
        refusal = self._try(desired, ())
        if refusal:
            return MissingCapability(f"the table {self.table} of {self.program.typed}", refusal)
        good, bad = 0, len(lines)  # lines[:good] pass, lines[:bad] do not
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (good, middle) if self._try(desired, lines[:middle]) else (middle, bad)
        refusal, line = self._try(desired, lines[:bad]), lines[bad - 1]
        self._try(desired, lines[: bad - 1])
        done = run([self.program.command, "-t", self.table, *line.arguments])  # says more than the restore program
        reason = message(done.stderr) if done.returncode else refusal
        return InvalidInput(line.path, shlex.join(line.arguments[2:]), f"{self.program.typed} says: {reason}")

    def _try(self, desired: ChainsState, lines: Iterable[_Line]) -> str:
        """Restore from nothing: our chains, empty stand-ins for foreign chains that rules name, and some lines."""
        named = {argument for chain in desired.chains for rule in chain.rules for argument in rule}
        hooks = set(HOOKS[self.program.family].get(self.table, ()))
        stand_ins = sorted((named & self._foreign_chains) - hooks)
        policy = "RETURN" if self.program.family == "ebtables" else "- [0:0]"
        names = [*stand_ins, *(chain.name for chain in desired.chains)]
        return self._restore([*(f":{name} {policy}" for name in names), *(join(line.arguments) for line in lines)])

    def _restore(self, lines: Iterable[str], *options: str) -> str:
        """Run the restore program; returns its complaint, empty when all went well."""
        wait = () if self.program.family == "ebtables" else ("-w", "10")  # seconds to wait for the lock of legacy
        text = "\n".join((f"*{self.table}", *lines, "COMMIT", ""))
        done = run([f"{self.program.command}-restore", *wait, *options], stdin=text)
        return message(done.stderr) if done.returncode else ""

    def _rules(self, desired: ChainsState) -> list[_Line]:
        return [
            _Line(f"{self._path(chain.name)}[{number}]", ("-A", chain.name, *rule))
            for chain in desired.chains
            for number, rule in enumerate(chain.rules)
        ]

    def _path(self, chain: str) -> str:
        return self.paths.get(chain, chain)


def owned(capabilities: Mapping[str, bool | str]) -> list[ChainsDomain]:
    """A domain for every table that holds chains of ours, whoever of us made them: EMPTY for each is a clear."""
    return [ChainsDomain(program, table, "") for program, table in holding_ours(capabilities)]


def _state(table: Table, prefix: str) -> ChainsState:
    """Our part of a saved table."""
    names = [name for name in table.chains if name.startswith(prefix)]
    ours: dict[str, list[Rule]] = {name: [] for name in names}
    layout: dict[str, list[Jump | None]] = {}
    foreign: list[str] = []
    for chain, rule in table.rules:
        if chain in ours:
            ours[chain].append(rule)
        elif not chain.startswith(PREFIX):
            layout.setdefault(chain, []).append(_jump(chain, rule, layout))
        if chain not in ours and counts_packets(rule):
            foreign.append(f"-A {chain} {join(rule)}")
    jumps = [jump for row in layout.values() for jump in row if jump is not None and jump.target.startswith(prefix)]
    return ChainsState(
        tuple(Chain(name, tuple(rules)) for name, rules in ours.items()),
        tuple(jumps),
        tuple((hook, tuple(row)) for hook, row in layout.items()),
        tuple(foreign),
    )


def _jump(hook: str, rule: Rule, layout: Mapping[str, Sequence[Jump | None]]) -> Jump | None:
    """The rule as a jump into a chain of ours, or None."""
    if len(rule) < 2 or rule[-2] != "-j" or not rule[-1].startswith(PREFIX):
        return None
    return Jump(hook, rule[-1], list(layout.get(hook, ())).count(None), rule[:-2])
