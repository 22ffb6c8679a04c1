# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of iptables, ip6tables and ebtables: each variant restores rules in the throwaway namespace of the caller."""

from __future__ import annotations

import subprocess

from ..capabilities import Finding
from ..chains.variants import FAMILIES, VARIANTS, message, program
from ..programs import run

_MARK = ("-m mark --mark 0x1/0xff -j MARK --set-xmark 0x1/0xff",)
_STATISTIC = ("-m statistic --mode nth --every 20 --packet 19 -j RETURN",)
_PHYSDEV = ("-m physdev --physdev-in probe -j RETURN",)
_EBTABLES_MARK = ("--mark 0x1/0xff -j mark --mark-or 0x1 --mark-target CONTINUE",)

_OPTIONS = {
    "iptables.nft": "CONFIG_NF_TABLES_IPV4 and CONFIG_NFT_COMPAT",
    "ip6tables.nft": "CONFIG_NF_TABLES_IPV6 and CONFIG_NFT_COMPAT",
    "iptables.legacy": "CONFIG_IP_NF_MANGLE (and CONFIG_IP_NF_IPTABLES_LEGACY since 6.17)",
    "ip6tables.legacy": "CONFIG_IP6_NF_MANGLE (and CONFIG_IP6_NF_IPTABLES_LEGACY since 6.17)",
    "ebtables.nft": "CONFIG_NF_TABLES_BRIDGE and CONFIG_NFT_COMPAT",
}
_RULES = {
    "mark": ("CONFIG_NETFILTER_XT_MARK", _MARK),
    "statistic": ("CONFIG_NETFILTER_XT_MATCH_STATISTIC", _STATISTIC),
    "physdev": ("CONFIG_NETFILTER_XT_MATCH_PHYSDEV", _PHYSDEV),
}
_EBTABLES_RULES = {"mark": ("CONFIG_BRIDGE_EBT_MARK and CONFIG_BRIDGE_EBT_MARK_T", _EBTABLES_MARK)}

# xt_physdev loads br_netfilter, and from then on all bridged packets of the node reach iptables: never by a probe.
UNTRIED = "br_netfilter, which is not loaded (CONFIG_BRIDGE_NETFILTER); with it, bridged packets reach iptables"


def probe(bridge_netfilter: bool) -> dict[str, Finding]:
    """Try every variant of every family, and the matches and targets that we use."""
    found = {"br_netfilter": Finding(True if bridge_netfilter else UNTRIED)}
    for family in FAMILIES:
        for variant in VARIANTS[family]:
            found |= _probe(family, variant, bridge_netfilter)
    return found


def _probe(family: str, variant: str, bridge_netfilter: bool) -> dict[str, Finding]:
    name = f"{family}.{variant}"
    rules = _EBTABLES_RULES if family == "ebtables" else _RULES
    tried = {key: row for key, row in rules.items() if key != "physdev" or bridge_netfilter}
    untried = {f"{name}.{key}": Finding(UNTRIED) for key in rules if key not in tried}
    every = [rule for _option, some in tried.values() for rule in some]
    if _restore(family, variant, every).result is True:  # the usual case, in one run
        return {name: Finding(True), **{f"{name}.{key}": Finding(True) for key in tried}, **untried}
    plain = _named(_OPTIONS[name], _restore(family, variant, ()))
    if plain.result is not True:
        return {name: plain, **{f"{name}.{key}": plain for key in rules}}
    each = {f"{name}.{key}": _named(option, _restore(family, variant, some)) for key, (option, some) in tried.items()}
    return {name: plain, **each, **untried}


def _named(option: str, finding: Finding) -> Finding:
    """A refusal of the kernel, with the option that it comes from; a program that is not installed is reason enough."""
    if finding.result is True or str(finding.result).startswith("the program "):
        return finding
    return finding._replace(result=f"{option} ({finding.result})")


def _restore(family: str, variant: str, rules: tuple[str, ...] | list[str]) -> Finding:
    found = program(family, variant)
    if found is None:
        return Finding(f"the program {family}-{variant}")
    table, declaration = ("filter", "RETURN") if family == "ebtables" else ("mangle", "- [0:0]")
    wait = () if family == "ebtables" else ("-w", "10")  # seconds to wait for the lock of legacy
    text = "\n".join((f"*{table}", f":probe {declaration}", *(f"-A probe {rule}" for rule in rules), "COMMIT", ""))
    try:
        done = run([f"{found.command}-restore", *wait], stdin=text)
    except subprocess.TimeoutExpired:
        return Finding(f"{found.command}-restore gave no answer within a minute", certain=False)
    if done.returncode == 0:
        return Finding(True)
    return Finding(f"{found.command}-restore says: {message(done.stderr)}", certain=done.returncode > 0)
