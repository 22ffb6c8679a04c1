# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match as sets of packets: each a conjunction of masked fields, which every classifier of the kernel can be told.

Ranges become the few prefixes that cover them, and what is excluded is cut out bit by bit, both exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import InvalidInput
from ..tc.model import ETH_P_IP, ETH_P_IPV6
from .match import ETHERTYPES, PROTOCOLS, TRANSPORTS, Match, Network, Range

MOST = 512  # sets of one match, where something is excluded


class Masked(NamedTuple):
    """The field has this value under this mask; mask 0: anything."""

    value: int = 0
    mask: int = 0


ANY = Masked()


class Packets(NamedTuple):
    """All packets whose fields have these values. Addresses are those of the family that `ethertype` says."""

    ethertype: Masked = ANY
    protocol: Masked = ANY
    source: Masked = ANY
    destination: Masked = ANY
    source_port: Masked = ANY
    destination_port: Masked = ANY
    dscp: Masked = ANY
    source_mac: Masked = ANY
    destination_mac: Masked = ANY
    vlan: Masked = ANY
    mark: Masked = ANY


def sets(match: Match) -> list[Packets]:
    """Sets of packets that together are what the match takes; the devices aside, which no packet holds.

    Raises InvalidInput where what is excluded falls into too many.
    """
    found = list(_sets(match))
    for excluded in match.excluded:
        for cut in _sets(excluded):
            found = [piece for packets in found for piece in _without(packets, cut)]
            if len(found) > MOST:
                allowed = (
                    f"this leaves more than {MOST} sets of packets for the kernel; "
                    "give what is excluded a class of its own, before this one"
                )
                raise InvalidInput(excluded.path, cut_text(excluded), allowed)
    return found


def cut_text(match: Match) -> str:
    """The conditions that are written."""
    asked = (name for name, value in zip(match._fields, match) if value not in (None, (), False) and name != "path")
    return ", ".join(asked)


def cover(span: Range, bits: int) -> list[Masked]:
    """The fewest masked values that are the numbers from first to last."""
    found = []
    first, last = span
    while first <= last:
        size = min(first & -first if first else 1 << bits, 1 << ((last - first + 1).bit_length() - 1))
        found.append(Masked(first, (1 << bits) - size))
        first += size
    return found


def _without(packets: Packets, cut: Packets) -> Iterator[Packets]:
    """The packets that are not in `cut`: for each of its bits, those that differ there and nowhere before."""
    if any((one.value ^ other.value) & one.mask & other.mask for one, other in zip(packets, cut)):
        yield packets
        return
    rest = packets
    for name, field in zip(Packets._fields, cut):
        bit = 1 << field.mask.bit_length() >> 1
        while bit:
            known: Masked = getattr(rest, name)
            if bit & field.mask & ~known.mask:
                mask = known.mask | bit
                yield rest._replace(**{name: Masked(known.value | ~field.value & bit, mask)})
                rest = rest._replace(**{name: Masked(known.value | field.value & bit, mask)})
            bit >>= 1


def _sets(match: Match) -> Iterator[Packets]:
    """Alternatives of all conditions; what is excluded is still in."""
    marks = [Masked(*match.mark)] if match.mark else [ANY]
    tags = [Masked(vlan, 0xFFF) for vlan in match.vlan] or [ANY]
    base = (Packets(mark=mark, vlan=tag) for mark in marks for tag in tags)
    for packets, macs in itertools.product(base, _macs(match)):
        for addresses, transport in itertools.product(_addresses(match), _transports(match)):
            yield packets._replace(**macs, **addresses, **transport)


def _macs(match: Match) -> Iterator[dict[str, Masked]]:
    def exact(mac: str) -> Masked:
        return Masked(int(mac.replace(":", ""), 16), (1 << 48) - 1)

    if match.mac:
        for mac in match.mac:
            yield {"source_mac": exact(mac)}
            yield {"destination_mac": exact(mac)}
        return
    for source, destination in _pairs(match.source_mac, match.destination_mac):
        yield {
            **({"source_mac": exact(source)} if source else {}),
            **({"destination_mac": exact(destination)} if destination else {}),
        }


def _pairs(first: Sequence[str], second: Sequence[str]) -> Iterable[tuple[str, str]]:
    return itertools.product(first or [""], second or [""])


def _families(match: Match) -> list[int]:
    """Ethernet types that the match is about; 0 where it looks at no field of a family."""
    if match.protocol in ETHERTYPES:
        return [ETHERTYPES[str(match.protocol)]]
    if match.protocol in ("icmp", 1):
        return [ETH_P_IP]
    if match.protocol in ("icmpv6", 58):
        return [ETH_P_IPV6]
    if match.protocol is not None or match.dscp or match.port or match.source_port or match.destination_port:
        return [ETH_P_IP, ETH_P_IPV6]
    return [0]


def _addresses(match: Match) -> Iterator[dict[str, Masked]]:
    """Family and addresses; networks of the other family than the match is about are no alternatives."""
    for family in _families(match):
        if match.address:
            for network in _of(family, match.address):
                yield {**_family(network), "source": _masked(network)}
                yield {**_family(network), "destination": _masked(network)}
        elif match.source or match.destination:
            for source, destination in itertools.product(
                _of(family, match.source) or [None], _of(family, match.destination) or [None]
            ):
                if (source is None) != (not match.source) or (destination is None) != (not match.destination):
                    continue
                if source and destination and source.version != destination.version:
                    continue
                one = source or destination
                yield {
                    **(_family(one) if one else {}),
                    **({"source": _masked(source)} if source else {}),
                    **({"destination": _masked(destination)} if destination else {}),
                }
        else:
            yield {"ethertype": Masked(family, 0xFFFF)} if family else {}


def _of(family: int, networks: Sequence[Network]) -> list[Network | None]:
    version = {ETH_P_IP: 4, ETH_P_IPV6: 6}.get(family)
    return [network for network in networks if version in (None, network.version)]


def _family(network: Network | None) -> dict[str, Masked]:
    if network is None:
        return {}
    return {"ethertype": Masked(ETH_P_IP if network.version == 4 else ETH_P_IPV6, 0xFFFF)}


def _masked(network: Network | None) -> Masked:
    return Masked(int(network.network_address), int(network.netmask)) if network else ANY


def _transports(match: Match) -> Iterator[dict[str, Masked]]:
    for code, protocol, ports in itertools.product(match.dscp or [None], _protocols(match), list(_ports(match))):
        yield {
            **({"dscp": Masked(code, 0x3F)} if code is not None else {}),
            **({"protocol": Masked(protocol, 0xFF)} if protocol is not None else {}),
            **ports,
        }


def _protocols(match: Match) -> list[int | None]:
    if isinstance(match.protocol, int):
        return [match.protocol]
    if match.protocol in PROTOCOLS:
        return [PROTOCOLS[match.protocol]]
    return list(TRANSPORTS.values()) if match.port or match.source_port or match.destination_port else [None]


def _ports(match: Match) -> Iterator[dict[str, Masked]]:
    if match.port:
        for port in _covers(match.port):
            yield {"source_port": port}
            yield {"destination_port": port}
        return
    sources, destinations = _covers(match.source_port), _covers(match.destination_port)
    for source, destination in itertools.product(sources or [ANY], destinations or [ANY]):
        yield {"source_port": source, "destination_port": destination}


def _covers(spans: Sequence[Range]) -> list[Masked]:
    return [masked for span in spans for masked in cover(span, 16)]
