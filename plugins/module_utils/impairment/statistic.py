# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dropping by iptables' statistic match, where tc's gact cannot: any place in the group, kernels without gact.

One chain per interface tries the classes in their order; a class that drops has a chain of its own, so that its
one rule counts all alternatives of its match. See iptables-extensions(8), statistic and physdev.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..chains.model import Chain, ChainsState, Jump, Rule, chain_name
from ..errors import InvalidInput
from .match import FAMILIES, TRANSPORTS, Match
from .model import Drop, Interface, TrafficClass

OWNER = "class"
TABLE = "mangle"  # nothing else of ours stands there: an edit on legacy restarts every count of its table
PROGRAMS = {"iptables": "ipv4", "ip6tables": "ipv6"}
COUNTS_APART = "drop: iptables counts IPv4 and IPv6 apart, and no ARP; it counts from the moment the rule stands"


class Place(NamedTuple):
    """Where an interface's packets pass: the hook and what tells the interface there."""

    hook: str
    condition: Rule


def state(
    program: str, interfaces: Sequence[Interface], passing: Sequence[Match], bridges: Mapping[str, str]
) -> ChainsState:
    """Our chains in TABLE of `program` for interfaces of which a class drops; `bridges`: a port's bridge."""
    chains: list[Chain] = []
    jumps: list[Jump] = []
    for interface in interfaces:
        place = _place(interface, bridges)
        made = _chains(interface, passing, PROGRAMS[program])
        chains += made
        jumps.append(Jump(place.hook, made[0].name, None, place.condition))
    return ChainsState(tuple(chains), tuple(jumps))


def check(interface: Interface, bridges: Mapping[str, str]) -> None:
    """Refuse what iptables cannot tell."""
    last = _last_dropping(interface)
    for entry in interface.classes[: last + 1]:
        if (
            interface.name in bridges
            and entry.impairment.drop
            and not all(match.bridged for match in entry.matches or (Match(),))
        ):
            raise InvalidInput(
                f"{entry.path}.drop",
                entry.impairment.drop.every,
                "this drop is iptables' work, which does not see the bridge port of the node's own packets; "
                "match bridged traffic, or drop the last of each group on a kernel with CONFIG_GACT_PROB",
            )
        for match in entry.matches:
            if match.mac:
                raise InvalidInput(
                    f"{entry.path}.match.mac",
                    match.mac,
                    "iptables knows the source address only; this drop cannot use it",
                )
            if match.in_interface and interface.name not in bridges:
                raise InvalidInput(
                    f"{entry.path}.match.in_interface", match.in_interface, "iptables forgets it where packets leave"
                )


def _last_dropping(interface: Interface) -> int:
    return max(
        index for index, entry in enumerate(interface.classes) if entry.impairment.drop and entry.impairment.enabled
    )


def _place(interface: Interface, bridges: Mapping[str, str]) -> Place:
    if interface.name in bridges:
        return Place("FORWARD", ("-m", "physdev", "--physdev-out", interface.name, "--physdev-is-bridged"))
    return Place("POSTROUTING", ("-o", interface.name))


def _name(*parts: str) -> str:
    return chain_name(OWNER, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12])


def _chains(interface: Interface, passing: Sequence[Match], family: str) -> list[Chain]:
    """The interface's chain first, then those of its dropping classes."""
    rules: list[Rule] = [(*words, "-j", "RETURN") for match in passing for words in _words(match, family)]
    counting: list[Chain] = []
    for entry in interface.classes[: _last_dropping(interface) + 1]:
        verdict: Rule = ("-j", "RETURN")
        if entry.impairment.drop and entry.impairment.enabled:
            counting.append(Chain(_name(interface.name, entry.name), (_nth(entry.impairment.drop),)))
            verdict = ("-g", counting[-1].name)
        rules += [(*words, *verdict) for words in _class_words(entry, family)]
    return [Chain(_name(interface.name), tuple(rules)), *counting]


def _nth(drop: Drop) -> Rule:
    return ("-m", "statistic", "--mode", "nth", "--every", str(drop.every), "--packet", str(drop.packet), "-j", "DROP")


def _class_words(entry: TrafficClass, family: str) -> Iterator[Rule]:
    if not entry.matches:
        yield ()
    for match in entry.matches:
        yield from _words(match, family)


def _words(match: Match, family: str) -> Iterator[Rule]:
    """iptables' words for a match, once for each alternative; none where the family does not know it."""
    addresses = [address for address in (match.address, match.source, match.destination) if address is not None]
    if any(f"ipv{address.version}" != family for address in addresses):
        return
    if match.protocol in FAMILIES and match.protocol != family:
        return
    if (match.protocol in {"icmp", 1} and family == "ipv6") or (match.protocol in {"icmpv6", 58} and family == "ipv4"):
        return
    fixed: Rule = ()
    if match.in_interface:
        fixed += ("-m", "physdev", "--physdev-in", match.in_interface)
    if match.mark:
        fixed += ("-m", "mark", "--mark", f"{match.mark[0]:#x}/{match.mark[1]:#x}")
    if match.dscp is not None:
        fixed += ("-m", "dscp", "--dscp", f"{match.dscp:#04x}")
    for address, transport in itertools.product(_address_words(match), _transport_words(match)):
        yield (*address, *transport, *fixed)


def _address_words(match: Match) -> list[Rule]:
    if match.address is not None:
        return [("-s", str(match.address)), ("-d", str(match.address))]
    words: Rule = ()
    if match.source is not None:
        words += ("-s", str(match.source))
    if match.destination is not None:
        words += ("-d", str(match.destination))
    return [words]


def _transport_words(match: Match) -> list[Rule]:
    pairs: list[Rule] = []
    if match.port is not None:
        pairs = [("--sport", str(match.port)), ("--dport", str(match.port))]
    elif match.source_port is not None or match.destination_port is not None:
        sides = (("--sport", match.source_port), ("--dport", match.destination_port))
        pairs = [tuple(itertools.chain.from_iterable((side, str(port)) for side, port in sides if port is not None))]
    protocols = [str(match.protocol)]
    if match.protocol in (None, *FAMILIES):
        protocols = list(TRANSPORTS) if pairs else [""]
    return [(("-p", protocol) if protocol else ()) + words for protocol in protocols for words in (pairs or [()])]
