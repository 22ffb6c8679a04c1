# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Matches as filters of the kernel: u32 (tc-u32(8)), or hash tables of flower (tc-flower(8)) for many of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import InvalidInput, MissingCapability
from ..tc.kinds import u32
from ..tc.kinds.filters import Action
from ..tc.kinds.u32 import U32, Key, key
from ..tc.model import ETH_P_8021Q, ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, Filter
from .match import Match
from .packets import ANY, Masked, Packets, cut_text, sets

TABLE = 16  # filters of one shape from which on they are a hash table
MOST_LISTED = 2000  # u32 filters of one qdisc, each with a table of its own: the kernel has 2047 numbers for these
SOURCE_MAC, DESTINATION_MAC, ETHERTYPE = -8, -14, -2  # in bytes from the network header


class Header(NamedTuple):
    """Where a family keeps its fields, in bytes from the network header."""

    protocol: int
    source: int
    destination: int
    bits: int  # of an address
    ports: int  # of packets without options or extension headers


HEADERS = {ETH_P_IP: Header(9, 12, 16, 32, 20), ETH_P_IPV6: Header(6, 8, 24, 128, 40)}


class Rule(NamedTuple):
    """Packets that come from `indev` ("" for anywhere) go to the class `target`, through the actions."""

    packets: Packets
    indev: str
    target: int
    actions: tuple[Action, ...] = ()


def rules(
    match: Match,
    other_ports: Mapping[str, Sequence[str]],
    interface: str,
    target: int,
    actions: tuple[Action, ...] = (),
) -> list[Rule]:
    """All rules that together send what `match` takes on `interface`; `other_ports`: the others of its bridge."""
    devices = _devices(match, other_ports, interface)
    return [Rule(packets, device, target, actions) for device in devices for packets in sets(match)]


def _devices(match: Match, other_ports: Mapping[str, Sequence[str]], interface: str) -> Sequence[str]:
    if not match.bridged:
        return [match.in_interface or ""]
    ports = other_ports.get(interface, ())
    if not ports:
        allowed = f"{interface} is no port of a bridge with other ports on this node"
        raise InvalidInput(f"{match.path}.bridged", True, allowed)
    if match.in_interface and match.in_interface not in ports:
        allowed = "other ports of this bridge: " + ", ".join(ports)
        raise InvalidInput(f"{match.path}.in_interface", match.in_interface, allowed)
    return [match.in_interface] if match.in_interface else list(ports)


def check(match: Match, can: Mapping[str, bool | str]) -> None:
    """Refuse what this kernel's filters cannot see: one without CLS_U32_MARK takes a mark and matches everything."""
    marks = [one.mark for one in (match, *match.excluded) if one.mark is not None]
    if marks and can["filter.u32_mark"] is not True:
        raise MissingCapability("matching a mark", "CONFIG_CLS_U32_MARK")
    if match.vlan and can["filter.flower"] is not True:
        raise MissingCapability(f"{match.path}.vlan", str(can["filter.flower"]))
    if match.vlan and match.mark is not None:
        allowed = "the filter that sees VLANs does not see marks; match one of them"
        raise InvalidInput(f"{match.path}.mark", f"{match.mark[0]:#x}/{match.mark[1]:#x}", allowed)
    if match.vlan and any(_shape(packets) is None for packets in sets(match)):
        allowed = "the filter that sees VLANs takes whole protocols only; write protocol as well, or leave this out"
        raise InvalidInput(f"{match.path}.not", "; ".join(map(cut_text, match.excluded)), allowed)


def filters(found: Sequence[Rule], parent: int, can_hash: bool, path: str) -> list[Filter]:
    """The filters, in the order in which they are tried. `can_hash`: the kernel has flower.

    The plan gives each its priority. Raises where the kernel could not number them.
    """
    first: dict[tuple[Packets, str], Rule] = {}
    for rule in found:
        first.setdefault((rule.packets, rule.indev), rule)  # what is written again takes nothing
    ordered = tables(list(first.values())) if can_hash else [[rule] for rule in first.values()]
    made: list[Filter] = []
    for run in ordered:
        hashed = len(run) >= TABLE
        made += [_flower(rule, parent) if hashed or rule.packets.vlan != ANY else _u32(rule, parent) for rule in run]
    listed = sum(entry.kind == "u32" for entry in made)
    if listed > MOST_LISTED:
        what = f"{path}: {listed} filters, which the kernel tries one after the other,"
        if not can_hash:
            raise MissingCapability(what, "CONFIG_NET_CLS_FLOWER", f"u32 takes {MOST_LISTED} of them")
        allowed = f"at most {MOST_LISTED}; classes in a row that match by one condition of one kind are hashed instead"
        raise InvalidInput(path, f"{listed} separate filters", allowed)
    return made


class Run(NamedTuple):
    """Rules of one shape, and what they do."""

    shape: object
    rules: list[Rule]
    effects: set[tuple[int, tuple[Action, ...]]]


def tables(found: Sequence[Rule]) -> list[list[Rule]]:
    """Rules of one shape together, where nothing in between would have taken their packets elsewhere.

    Left in their order where no shape comes up often enough for a hash table.
    """
    runs: list[Run] = []
    for rule in found:
        shape = _shape(rule.packets)
        shape = shape and (shape, bool(rule.indev))
        run = _home(rule, shape, runs)
        if run is None:
            run = Run(shape, [], set())
            runs.append(run)
        run.rules.append(rule)
        run.effects.add((rule.target, rule.actions))
    if all(len(run.rules) < TABLE for run in runs):
        return [[rule] for rule in found]
    return [run.rules for run in runs]


def _home(rule: Rule, shape: object, runs: Sequence[Run]) -> Run | None:
    """The last run of this shape, if the rule may be tried that early."""
    for run in reversed(runs):
        if shape is None or run.shape is None:
            return None
        if run.shape == shape:
            return run
        if run.effects != {(rule.target, rule.actions)} and not _apart(rule.packets, run.rules[0].packets):
            return None
    return None


def _apart(one: Packets, two: Packets) -> bool:
    """Whether no packet is in both, by what all rules of a shape have in common."""
    families = (one.ethertype.value ^ two.ethertype.value) & one.ethertype.mask & two.ethertype.mask
    protocols = (one.protocol.value ^ two.protocol.value) & one.protocol.mask & two.protocol.mask
    return bool(families or protocols) or (one.vlan != ANY and _untagged(two)) or (two.vlan != ANY and _untagged(one))


def _untagged(packets: Packets) -> bool:
    """Whether the filter takes untagged packets only: that of a family does, that of all protocols takes tags too."""
    return packets.vlan == ANY and packets.ethertype.mask == 0xFFFF


def _shape(packets: Packets) -> object:
    """What sets of one hash table have in common; None for what flower cannot say."""
    if packets.mark != ANY or packets.ethertype.mask not in (0, 0xFFFF) or packets.protocol.mask not in (0, 0xFF):
        return None
    return packets.ethertype, packets.protocol, tuple(field.mask for field in packets[2:])


# --- u32 ---


def _u32(rule: Rule, parent: int) -> Filter:
    packets = rule.packets
    exact = packets.ethertype.mask == 0xFFFF
    keys = [] if exact else _field(packets.ethertype, ETHERTYPE, 2)
    keys += _mac(packets.destination_mac, DESTINATION_MAC) + _mac(packets.source_mac, SOURCE_MAC)
    protocol = packets.ethertype.value if exact else ETH_P_ALL
    if protocol in HEADERS:
        keys += _ip(packets, HEADERS[protocol])
    mark = (packets.mark.value, packets.mark.mask) if packets.mark.mask else None
    options = U32(rule.target, u32.merge(keys) or (Key(0, 0, 0),), rule.indev, mark, rule.actions)
    return Filter("u32", parent, 0, protocol, 0, options)


def _ip(packets: Packets, header: Header) -> list[Key]:
    keys = []
    if header.bits == 32:  # the upper 6 bits of byte 1; of IPv6 bits 4 to 9 (RFC 2474)
        keys += _field(Masked(packets.dscp.value << 2, packets.dscp.mask << 2), 1, 1)
    else:
        keys += _field(Masked(packets.dscp.value << 6, packets.dscp.mask << 6), 0, 2)
    keys += _address(packets.source, header.source, header.bits)
    keys += _address(packets.destination, header.destination, header.bits)
    keys += _field(packets.protocol, header.protocol, 1)
    if packets.source_port.mask or packets.destination_port.mask:
        if header.bits == 32:  # no options, first fragment: only there the ports stand at byte 20 (RFC 791)
            keys += [key(5, 0x0F, 0, 1), key(0, 0x1FFF, 6, 2)]
        keys += _field(packets.source_port, header.ports, 2) + _field(packets.destination_port, header.ports + 2, 2)
    return keys


def _field(field: Masked, offset: int, width: int) -> list[Key]:
    return [key(field.value, field.mask, offset, width)] if field.mask else []


def _address(field: Masked, offset: int, bits: int) -> list[Key]:
    words = range(bits - 32, -1, -32)
    parts = [Masked(field.value >> shift & 0xFFFFFFFF, field.mask >> shift & 0xFFFFFFFF) for shift in words]
    return [found for index, part in enumerate(parts) for found in _field(part, offset + 4 * index, 4)]


def _mac(field: Masked, offset: int) -> list[Key]:
    parts = [Masked(field.value >> shift & 0xFFFF, field.mask >> shift & 0xFFFF) for shift in (32, 16, 0)]
    return [found for index, part in enumerate(parts) for found in _field(part, offset + 2 * index, 2)]


# --- flower ---


def _flower(rule: Rule, parent: int) -> Filter:
    from ..tc.kinds import flower

    packets = rule.packets
    ethertype = packets.ethertype.value if packets.ethertype.mask else 0
    tagged = packets.vlan != ANY
    fields = {
        "dst_mac": packets.destination_mac,
        "src_mac": packets.source_mac,
        "vlan_id": packets.vlan,
        "ip_proto": packets.protocol,
        "ip_tos": Masked(packets.dscp.value << 2, packets.dscp.mask << 2),
    }
    family = {ETH_P_IP: "ipv4", ETH_P_IPV6: "ipv6"}.get(ethertype)
    if family:
        fields |= {f"{family}_src": packets.source, f"{family}_dst": packets.destination}
    transport = flower.PORTS.get(packets.protocol.value)
    if transport:
        fields |= {f"{transport}_src": packets.source_port, f"{transport}_dst": packets.destination_port}
    keys = tuple(flower.Key(name, *fields[name]) for name in flower.FIELDS if name in fields and fields[name].mask)
    protocol = ETH_P_8021Q if tagged else ethertype or ETH_P_ALL
    options = flower.Flower(rule.target, keys, rule.indev, protocol, ethertype if tagged else 0, rule.actions)
    return Filter("flower", parent, 0, protocol, 0, options)
