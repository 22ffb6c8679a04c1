# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dropping by iptables' statistic match, where tc's gact cannot: any place in the group, kernels without gact.

One chain per interface tries the classes in their order; a class that drops has a chain of its own, so that its
one rule counts all alternatives of its match. See iptables-extensions(8), statistic and physdev.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ..chains.model import Chain, ChainsState, Jump, Rule, chain_name
from ..errors import InvalidInput
from .faults import Drop
from .match import ETHERTYPES, PROTOCOLS, Match
from .model import Interface, TrafficClass
from .packets import Packets, cut_text, sets

OWNER = "class"
TABLE = "mangle"  # nothing else of ours stands there: an edit on legacy restarts every count of its table
PROGRAMS = {"iptables": "ipv4", "ip6tables": "ipv6"}
BITS = {"ipv4": 32, "ipv6": 128}
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
                entry.impairment.drop.choice.every,
                "this drop is iptables' work, which does not see the bridge port of the node's own packets; "
                "match bridged traffic, or drop the last of each group on a kernel with CONFIG_GACT_PROB",
            )
        for match in entry.matches:
            if match.in_interface and interface.name not in bridges:
                raise InvalidInput(
                    f"{match.path}.in_interface", match.in_interface, "iptables forgets it where packets leave"
                )
            for packets in sets(match):
                _check_words(match, packets)


def _check_words(match: Match, packets: Packets) -> None:
    """Refuse what has no words: MAC addresses (iptables knows the source's only, and not where packets leave), tags."""
    part_of_protocols = packets.protocol.mask not in (0, 0xFF) or packets.ethertype.mask not in (0, 0xFFFF)
    unknown = {
        "a MAC address": packets.source_mac.mask or packets.destination_mac.mask,
        "a VLAN": packets.vlan.mask,
        "all protocols but some": part_of_protocols,
    }
    for what, asked in unknown.items():
        if asked:
            allowed = f"this drop is iptables' work, which cannot match {what} here"
            raise InvalidInput(match.path, cut_text(match), allowed)


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
    every, packet = str(drop.choice.every), str(drop.choice.packet)
    return ("-m", "statistic", "--mode", "nth", "--every", every, "--packet", packet, "-j", "DROP")


def _class_words(entry: TrafficClass, family: str) -> Iterator[Rule]:
    if not entry.matches:
        yield ()
    for match in entry.matches:
        yield from _words(match, family)


def _words(match: Match, family: str) -> Iterator[Rule]:
    """iptables' words for a match, once for each set of packets; none where the family does not know it."""
    device: Rule = ("-m", "physdev", "--physdev-in", match.in_interface) if match.in_interface else ()
    for packets in sets(match):
        if not (packets.ethertype.value ^ ETHERTYPES[family]) & packets.ethertype.mask:
            yield (*_packet_words(packets, BITS[family]), *device, *_mark_words(packets))


def _packet_words(packets: Packets, bits: int) -> Rule:
    """Addresses, protocol and ports: a masked port is a range."""
    words: Rule = ()
    for flag, address in (("-s", packets.source), ("-d", packets.destination)):
        if address.mask:
            version = IPv4Address if bits == 32 else IPv6Address
            words += (flag, f"{version(address.value)}/{address.mask.bit_count()}")
    if packets.protocol.mask:
        number = packets.protocol.value
        words += ("-p", next((name for name, known in PROTOCOLS.items() if known == number), str(number)))
    for flag, port in (("--sport", packets.source_port), ("--dport", packets.destination_port)):
        if port.mask:
            last = port.value | 0xFFFF & ~port.mask
            words += (flag, str(port.value) if last == port.value else f"{port.value}:{last}")
    return words


def _mark_words(packets: Packets) -> Rule:
    words: Rule = ()
    if packets.mark.mask:
        words += ("-m", "mark", "--mark", f"{packets.mark.value:#x}/{packets.mark.mask:#x}")
    if packets.dscp.mask == 0x3F:
        words += ("-m", "dscp", "--dscp", f"{packets.dscp.value:#04x}")
    elif packets.dscp.mask:
        words += ("-m", "tos", "--tos", f"{packets.dscp.value << 2:#04x}/{packets.dscp.mask << 2:#04x}")
    return words
