# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dropping by nftables' numgen on a bridge, for kernels without BPF: exact, and counts every family's frames (nft(8)).

One table per bridge port tries the classes in their order; a class that drops has a chain of its own, so that one count
holds all alternatives of its match.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

from .. import nftables
from ..errors import InvalidInput
from .classify import Rule, rules
from .match import Match
from .model import Interface
from .packets import ANY, Packets, cut_text

NOWHERE = 0  # rules are read for what they match only
IP, IPV6 = 0x0800, 0x86DD


def state(
    interfaces: Sequence[Interface], passing: Sequence[Match], other_ports: Mapping[str, Sequence[str]]
) -> nftables.Tables:
    """Tables for bridge ports of which a class drops."""
    return tuple(sorted(_table(interface, passing, other_ports) for interface in interfaces))


def check(interface: Interface, bridges: Mapping[str, str]) -> None:
    """Refuse what a bridge's forward hook does not see. Raises InvalidInput."""
    for entry in interface.classes:
        drop = entry.impairment.drop
        bridged = bool(entry.matches) and all(match.bridged for match in entry.matches)
        if drop and not (interface.name in bridges and bridged):
            allowed = "nftables counts what a bridge forwards; match bridged traffic of a bridge's port"
            raise InvalidInput(f"{entry.path}.drop", drop.choice.every, allowed)
        for match in entry.matches:
            if match.vlan:
                allowed = "nftables matches no tags here; use the backend bpf or gact"
                raise InvalidInput(f"{match.path}.vlan", cut_text(match), allowed)


def _table(interface: Interface, passing: Sequence[Match], other_ports: Mapping[str, Sequence[str]]) -> nftables.Table:
    lines = [line for match in passing for line in _lines(match, interface, other_ports, "accept")]
    chains: dict[str, tuple[str, Sequence[str]]] = {}
    for number, entry in enumerate(interface.classes):
        verdict = "accept"
        if drop := entry.impairment.drop:
            verdict = f"goto class_{number}"
            rule = f"numgen inc mod {drop.choice.every} {drop.choice.packet} drop"
            chains[f"class_{number}"] = ("", [rule])
        for match in entry.matches:
            lines += _lines(match, interface, other_ports, verdict)
        if not entry.matches:
            lines.append(verdict)
    head = "type filter hook forward priority 0; policy accept;"
    return nftables.table(interface.name, {**chains, "forward": (head, lines)})


def _lines(match: Match, interface: Interface, other_ports: Mapping[str, Sequence[str]], verdict: str) -> Iterator[str]:
    found: list[Rule] = rules(match, other_ports, interface.name, NOWHERE)
    for rule in found:
        words = [f"oifname {json.dumps(interface.name)}"]
        if rule.indev:
            words.append(f"iifname {json.dumps(rule.indev)}")
        yield " ".join([*words, *_words(rule.packets), verdict])


def _words(packets: Packets) -> Iterator[str]:
    six = packets.ethertype.value == IPV6
    address = IPv6Address if six else IPv4Address
    family = "ip6" if six else "ip"

    def number(value: int) -> str:
        return f"{value:#x}"

    def mac(value: int) -> str:
        return ":".join(f"{byte:02x}" for byte in value.to_bytes(6, "big"))

    fields = (
        ("meta protocol", packets.ethertype, 16, number),
        ("meta l4proto", packets.protocol, 8, str),
        (f"{family} saddr", packets.source, 128 if six else 32, lambda value: str(address(value))),
        (f"{family} daddr", packets.destination, 128 if six else 32, lambda value: str(address(value))),
        ("th sport", packets.source_port, 16, str),
        ("th dport", packets.destination_port, 16, str),
        (f"{family} dscp", packets.dscp, 6, number),
        ("ether saddr", packets.source_mac, 48, mac),
        ("ether daddr", packets.destination_mac, 48, mac),
        ("meta mark", packets.mark, 32, number),
    )
    for name, field, bits, shown in fields:
        if field.mask == (1 << bits) - 1:
            yield f"{name} {shown(field.value)}"
        elif field != ANY:
            yield f"{name} & {shown(field.mask)} == {shown(field.value & field.mask)}"
