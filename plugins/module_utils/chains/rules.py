# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules as somebody has them in a script → desired states: what the modules iptables and ebtables share."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..converge import Report, Target, converge
from ..errors import InvalidInput, MissingCapability
from .domain import ChainsDomain
from .model import EMPTY, HOOKS, PREFIX, Chain, ChainsState, Jump, Rule, chain_name
from .variants import FAMILIES, Program, choose, working

OWNER = "rules"

_BRIDGE_FLAGS = ("/proc/sys/net/bridge/bridge-nf-call-*tables", "/sys/class/net/*/bridge/nf_call_*tables")


def hold(
    capabilities: Mapping[str, bool | str],
    families: Sequence[str],
    chains: Sequence[Mapping[str, Any]],
    variant: str = "auto",
    check: bool = False,
) -> tuple[Report, dict[str, str]]:
    """Make the rules of these families exactly `chains`; return the report, and the variant of each family.

    Each entry has `table`, `hook`, `rules` (texts) and `position` (`first` or `last`). No entry: nothing of ours stays.
    Raises InvalidInput with the path of the value, and MissingCapability where no program works.
    """
    targets: list[Target] = []
    variants: dict[str, str] = {}
    for family in families:
        wanted = desired(family, chains)
        _refuse_to_load(capabilities, wanted.values())
        able = working(capabilities, family)
        if wanted:
            chosen = choose(capabilities, family, variant)
            variants[family] = chosen.variant
            targets += [Target(_domain(chosen, table, chains), state) for table, state in wanted.items()]
            targets += _left_over(able, {(chosen.command, table) for table in wanted})
        else:
            targets += _left_over(able, set())
    return converge(targets, check), variants


def desired(family: str, chains: Sequence[Mapping[str, Any]]) -> dict[str, ChainsState]:
    """One state per table that is named. Pure: the programs' own opinion of the rules is asked for later."""
    states: dict[str, ChainsState] = {}
    for number, entry in enumerate(chains):
        path, table, hook = f"chains[{number}]", entry["table"], entry["hook"]
        if table not in HOOKS[family]:
            raise InvalidInput(f"{path}.table", table, f"tables of {family}: {', '.join(HOOKS[family])}")
        if hook not in HOOKS[family][table]:
            raise InvalidInput(f"{path}.hook", hook, f"hooks of the table {table}: {', '.join(HOOKS[family][table])}")
        rules = tuple(_rule(text, f"{path}.rules[{index}]") for index, text in enumerate(entry["rules"]))
        state = states.get(table, EMPTY)
        name = chain_name(OWNER, hook)
        if any(chain.name == name for chain in state.chains):
            raise InvalidInput(f"{path}.hook", hook, "a hook stands once for each table: put its rules together")
        jump = Jump(hook, name, 0 if entry["position"] == "first" else None)
        states[table] = ChainsState((*state.chains, Chain(name, rules)), (*state.jumps, jump))
    return states


def warnings(
    capabilities: Mapping[str, bool | str], families: Sequence[str], chains: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What will surprise: bridged packets pass iptables only where the kernel is told so."""
    forwarding = {"FORWARD", "PREROUTING", "POSTROUTING"} & {entry["hook"] for entry in chains}
    if "ebtables" in families or not forwarding or not glob.glob("/sys/class/net/*/bridge"):
        return []
    for pattern in _BRIDGE_FLAGS:
        for path in glob.glob(pattern):
            with open(path, encoding="ascii") as file:
                if file.read().strip() == "1" and "arptables" not in path:
                    return []
    loaded = capabilities.get("br_netfilter") is True
    how = "set net.bridge.bridge-nf-call-iptables or a bridge's nf_call_iptables" if loaded else "load br_netfilter"
    blind = ", ".join(sorted(forwarding))
    return [f"bridged packets do not pass iptables on this node, so {blind} sees routed packets only; {how}"]


def _refuse_to_load(capabilities: Mapping[str, bool | str], states: Iterable[ChainsState]) -> None:
    """Merely trying a physdev rule loads br_netfilter, and from then on all bridged packets pass iptables."""
    for state in states:
        used = any("physdev" in rule for chain in state.chains for rule in chain.rules)
        if used and capabilities["br_netfilter"] is not True:
            raise MissingCapability("-m physdev", str(capabilities["br_netfilter"]), "`modprobe br_netfilter`")


def _rule(text: str, path: str) -> Rule:
    try:
        arguments = tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidInput(path, text, f"quotes must be closed ({error})") from None
    if not arguments:
        raise InvalidInput(path, text, "write the arguments that follow `-A HOOK`")
    if arguments[0] in (*FAMILIES, "-t", "--table", "-A", "--append", "-I", "--insert"):
        raise InvalidInput(path, text, "write only what follows `-A HOOK`; table and hook have keys of their own")
    return arguments


def _domain(program: Program, table: str, chains: Sequence[Mapping[str, Any]]) -> ChainsDomain:
    paths = {
        chain_name(OWNER, entry["hook"]): f"chains[{number}].rules"
        for number, entry in enumerate(chains)
        if entry["table"] == table
    }
    return ChainsDomain(program, table, OWNER, paths)


def _left_over(programs: Sequence[Program], kept: set[tuple[str, str]]) -> list[Target]:
    """Tables where rules of an earlier run stand that are no longer asked for, in every variant."""
    prefix = f"{PREFIX}{OWNER}-"
    return [
        Target(ChainsDomain(program, name, OWNER), EMPTY)
        for program in programs
        for name, table in program.save().items()
        if (program.command, name) not in kept and any(chain.startswith(prefix) for chain in table.chains)
    ]
