# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one state of a table to another in as few lines as possible. Pure: nothing here runs a program.

Every step is one line of a restore file, and only rules that differ are named. So on nft the other rules keep
their counters and counts; on legacy the kernel replaces the whole table and every `--mode nth` starts over.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from ..converge import Step
from .model import Chain, ChainsState, Jump, Rule, counts_packets
from .text import join
from .variants import Program


def plan(program: Program, table: str, current: ChainsState, desired: ChainsState) -> list[Step]:
    """Steps from an observed state to a canonical desired one."""
    lines = _Lines(program, table)
    have = {chain.name: chain.rules for chain in current.chains}
    want = {chain.name: chain.rules for chain in desired.chains}
    steps = [lines.create(name) for name in want if name not in have]
    for name, rules in want.items():
        steps.extend(_edit(lines, name, have.get(name, ()), rules))
    for hook in _hooks(current, desired):
        steps.extend(_place(lines, hook, current, desired))
    gone = [chain for chain in current.chains if chain.name not in want]
    steps.extend(_drop(lines, current.jumps, gone, desired))
    return _with_restarts(program, current, want, steps)


class _Lines:
    """Restore lines and what a person would type for them."""

    def __init__(self, program: Program, table: str) -> None:
        self.program = program
        self.table = table

    def step(self, *arguments: str, retire: bool = False, caution: str = "") -> Step:
        return Step(self.typed(*arguments), join(arguments), retire, caution)

    def typed(self, *arguments: str) -> str:
        return shlex.join((self.program.typed, "-t", self.table, *arguments))

    def create(self, name: str) -> Step:
        """The restore file's own way to declare a chain also empties it, should it have come to exist meanwhile."""
        if self.program.family == "ebtables":
            return Step(self.typed("-N", name, "-P", "RETURN"), f":{name} RETURN")
        return Step(self.typed("-N", name), f":{name} - [0:0]")


def describe(program: Program, table: str, state: ChainsState) -> list[str]:
    """The lines that would make this state."""
    lines = _Lines(program, table)
    described = [lines.create(chain.name).command for chain in state.chains]
    described += [lines.typed("-A", chain.name, *rule) for chain in state.chains for rule in chain.rules]
    described += [lines.typed(*_stand(jump, state), *jump_rule(jump)) for jump in state.jumps]
    return described


def _stand(jump: Jump, state: ChainsState) -> Rule:
    """`-A` for a jump behind every foreign rule, `-I` with its number for one before any."""
    layout = dict(state.layout).get(jump.hook, ())
    if jump.place is None or jump.place >= layout.count(None):
        return ("-A", jump.hook)
    return ("-I", jump.hook, str(layout.index(jump) + 1 if jump in layout else jump.place + 1))


def jump_rule(jump: Jump) -> Rule:
    """The jump as a rule of its hook."""
    return (*jump.condition, "-j", jump.target)


def _edit(lines: _Lines, name: str, old: tuple[Rule, ...], new: tuple[Rule, ...]) -> Iterator[Step]:
    """Edits of one chain; rule numbers hold in the order in which the steps are applied."""
    if old == new:
        return
    from difflib import SequenceMatcher  # only a change needs it

    number = 1  # of the next rule in the chain as edited so far
    for _tag, low, high, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if _tag == "equal":
            number += high - low
            continue
        replaced = 0 if lines.program.family == "ebtables" else min(high - low, last - first)  # ebtables has no -R
        for before, after in zip(old[low : low + replaced], new[first : first + replaced]):
            caution = f"the count of `{join(before)}` starts over" if counts_packets(before) else ""
            yield lines.step("-R", name, str(number), *after, caution=caution)
            number += 1
        for _rule in old[low + replaced : high]:
            yield lines.step("-D", name, str(number))
        at_end = high == len(old)
        for rule in new[first + replaced : last]:
            yield lines.step("-A", name, *rule) if at_end else lines.step("-I", name, str(number), *rule)
            number += 1


def _hooks(current: ChainsState, desired: ChainsState) -> Iterable[str]:
    return dict.fromkeys(jump.hook for jump in (*desired.jumps, *current.jumps))


def _place(lines: _Lines, hook: str, current: ChainsState, desired: ChainsState) -> Iterator[Step]:
    """Bring the jumps of one hook in order: those that already stand right, counted from the first, are left alone."""
    layout = list(dict(current.layout).get(hook, ()))
    want = sorted((jump for jump in desired.jumps if jump.hook == hook), key=_rank)
    wanted = {jump_rule(jump) for jump in want}
    have = [jump for jump in current.jumps if jump.hook == hook and jump_rule(jump) in wanted]
    kept = 0
    while kept < min(len(have), len(want)) and _stands(have[kept], want[kept], layout):
        kept += 1
    for jump in have[kept:]:
        layout.remove(jump)
        yield lines.step("-D", hook, *jump_rule(jump))
    floor = max((layout.index(jump) + 1 for jump in have[:kept]), default=0)
    for jump in want[kept:]:
        if jump.place is None:
            yield lines.step("-A", hook, *jump_rule(jump))
            layout.append(jump)
            continue
        floor = max(floor, _index(layout, jump.place))
        yield lines.step("-I", hook, str(floor + 1), *jump_rule(jump))
        layout.insert(floor, jump)
        floor += 1


def _rank(jump: Jump) -> float:
    return float("inf") if jump.place is None else jump.place


def _stands(have: Jump, want: Jump, layout: list[Jump | None]) -> bool:
    if jump_rule(have) != jump_rule(want):
        return False
    return want.place is None or have.place == min(want.place, layout.count(None))


def _index(layout: list[Jump | None], place: int) -> int:
    """Where `place` foreign rules lie before; the end where there are fewer."""
    index = foreign = 0
    while foreign < place and index < len(layout):
        foreign += layout[index] is None
        index += 1
    return index


def _drop(lines: _Lines, jumps: Iterable[Jump], gone: Iterable[Chain], desired: ChainsState) -> Iterator[Step]:
    """Jumps first, then the rules of all dropped chains (they may refer to each other), then the chains."""
    wanted = {(jump.hook, jump_rule(jump)) for jump in desired.jumps}
    for jump in jumps:
        if (jump.hook, jump_rule(jump)) not in wanted:
            yield lines.step("-D", jump.hook, *jump_rule(jump), retire=True)
    names = [chain.name for chain in gone]
    for option in ("-F", "-X"):
        for name in names:
            yield lines.step(option, name, retire=True)


def _with_restarts(
    program: Program, current: ChainsState, want: dict[str, tuple[Rule, ...]], steps: list[Step]
) -> list[Step]:
    """On legacy any edit restarts every count of the table: say so once, as all steps are one commit."""
    if program.variant != "legacy" or program.family == "ebtables" or not steps:
        return steps
    counts = [
        f"-A {chain.name} {join(rule)}"
        for chain in current.chains
        for rule in chain.rules
        if counts_packets(rule) and rule in want.get(chain.name, ())
    ]
    counts.extend(current.foreign_counts)
    if not counts:
        return steps
    caution = "iptables-legacy replaces the whole table, so these counts start over: " + "; ".join(counts)
    return [steps[0]._replace(caution=caution), *(step._replace(caution="") for step in steps[1:])]
