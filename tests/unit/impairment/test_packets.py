# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match and the sets of packets it becomes mean the same; so do filters in a row and the same in hash tables."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.errors import InvalidInput, MissingCapability
from plugins.module_utils.impairment import classify
from plugins.module_utils.impairment.match import Range, parse_match
from plugins.module_utils.impairment.packets import MOST, Masked, Packets, cover, sets

FAMILIES = {"ipv4": 0x0800, "ipv6": 0x86DD, "arp": 0x0806}
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02", "02:00:00:00:00:01"]
ADDRESSES = {
    0x0800: ["10.0.0.1", "10.0.0.2", "10.1.0.1", "192.0.2.7"],
    0x86DD: ["2001:db8::1", "2001:db8::2", "fe80::1"],
}
PORTS = [1, 22, 79, 80, 81, 443, 5000, 5999, 6000, 65535]


@st.composite
def packets(draw: st.DrawFn) -> dict[str, int]:
    """A packet, a number a field."""
    family = draw(st.sampled_from([*FAMILIES.values(), 0x88CC]))
    found = {
        "ethertype": family,
        "source_mac": int(draw(st.sampled_from(MACS)).replace(":", ""), 16),
        "destination_mac": int(draw(st.sampled_from(MACS)).replace(":", ""), 16),
        "mark": draw(st.integers(0, 7)),
    }
    if family in ADDRESSES:
        found["protocol"] = draw(st.sampled_from([*NUMBERS.values(), 89]))
        found["dscp"] = draw(st.sampled_from([0, 10, 46]))
        for side in ("source", "destination"):
            found[side] = int(ipaddress.ip_address(draw(st.sampled_from(ADDRESSES[family]))))
            if found["protocol"] in (6, 17, 132):
                found[f"{side}_port"] = draw(st.sampled_from(PORTS))
    return found


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "protocol": st.sampled_from([*NUMBERS, *FAMILIES, 89]),
        "address": st.sampled_from(["10.0.0.0/8", ["10.0.0.1", "2001:db8::/32"]]),
        "source": st.sampled_from(["10.0.0.1", "10.0.0.1-10.1.0.0", ["192.0.2.0/24", "2001:db8::1"], "::/0"]),
        "destination": st.sampled_from(["10.0.0.0/31", "2001:db8::1-2001:db8::2"]),
        "port": st.sampled_from([80, "79-80", [22, "5000-5999"], "1-65535"]),
        "source_port": st.sampled_from([443, "80-443"]),
        "destination_port": st.sampled_from([5000, ["5999-6000", 1]]),
        "dscp": st.sampled_from(["ef", [0, "af11"]]),
        "mac": st.sampled_from([MACS[0], MACS[:2]]),
        "source_mac": st.sampled_from(MACS),
        "destination_mac": st.sampled_from(MACS),
        "mark": st.sampled_from(["0x1/0x3", 5]),
    },
)


def holds(conditions: Mapping[str, Any], packet: Mapping[str, int]) -> bool:
    """The meaning of a match, said the other way round: whether a packet fits what is written."""
    tests = {
        "protocol": lambda value: _protocol(value, packet),
        "address": lambda value: _in(value, packet, "source") or _in(value, packet, "destination"),
        "source": lambda value: _in(value, packet, "source"),
        "destination": lambda value: _in(value, packet, "destination"),
        "port": lambda value: _port(value, packet, "source_port") or _port(value, packet, "destination_port"),
        "source_port": lambda value: _port(value, packet, "source_port"),
        "destination_port": lambda value: _port(value, packet, "destination_port"),
        "dscp": lambda value: packet.get("dscp") in [{"ef": 46, "af11": 10}.get(one, one) for one in _list(value)],
        "mac": lambda value: _mac(value, packet, "source_mac") or _mac(value, packet, "destination_mac"),
        "source_mac": lambda value: _mac(value, packet, "source_mac"),
        "destination_mac": lambda value: _mac(value, packet, "destination_mac"),
        "mark": lambda value: packet["mark"] & 3 == 1 if isinstance(value, str) else packet["mark"] == value,
        "not": lambda value: not any(holds(one, packet) for one in _list(value)),
    }
    return all(tests[key](value) for key, value in conditions.items())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _protocol(value: Any, packet: Mapping[str, int]) -> bool:
    if value in FAMILIES:
        return packet["ethertype"] == FAMILIES[value]
    family = {"icmp": 0x0800, "icmpv6": 0x86DD}.get(value, packet["ethertype"])
    return packet["ethertype"] == family and packet.get("protocol") == NUMBERS.get(value, value)


def _in(value: Any, packet: Mapping[str, int], field: str) -> bool:
    version = {0x0800: 4, 0x86DD: 6}.get(packet["ethertype"])
    for one in _list(value):
        first, dash, last = one.partition("-")
        ends = (first, last) if dash else (ipaddress.ip_network(one)[0], ipaddress.ip_network(one)[-1])
        low, high = (ipaddress.ip_address(end) for end in ends)
        if low.version == version and int(low) <= packet[field] <= int(high):
            return True
    return False


def _port(value: Any, packet: Mapping[str, int], field: str) -> bool:
    if field not in packet:
        return False
    spans = [str(one).partition("-") for one in _list(value)]
    return any(int(first) <= packet[field] <= int(last or first) for first, _dash, last in spans)


def _mac(value: Any, packet: Mapping[str, int], field: str) -> bool:
    return packet[field] in [int(one.replace(":", ""), 16) for one in _list(value)]


def is_in(one: Packets, packet: Mapping[str, int]) -> bool:
    """Whether a packet is in a set: a field that it does not have fits only what may be anything."""
    return all(
        not field.mask or (name in packet and not (packet[name] ^ field.value) & field.mask)
        for name, field in zip(Packets._fields, one)
    )


@given(CONDITIONS, st.lists(CONDITIONS.filter(bool), max_size=2), st.lists(packets(), min_size=20, max_size=20))
def test_a_match_and_its_sets_mean_the_same(
    conditions: dict[str, Any], excluded: list[dict[str, Any]], seen: list[dict[str, int]]
) -> None:
    written = {**conditions, **({"not": excluded} if excluded else {})}
    try:
        found = sets(parse_match(written, "match"))
    except InvalidInput:
        return  # contradictory, or too many sets: see the table of what is refused
    for packet in seen:
        if excluded and any("port" in key for cut in excluded for key in cut) and "source_port" not in packet:
            continue  # what has no ports is left out by filters that look at ports
        if any("dscp" in cut or "protocol" in cut for cut in excluded) and "protocol" not in packet:
            continue
        assert any(is_in(one, packet) for one in found) == holds(written, packet), packet


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_range_is_covered_exactly(one: int, other: int) -> None:
    first, last = sorted((one, other))
    found = cover(Range(first, last), 16)
    assert len(found) <= 30
    at = first
    for masked in found:
        assert masked.value == at
        at += 0x10000 - masked.mask
    assert at == last + 1


def rule(number: int, target: int, **fields: Masked) -> classify.Rule:
    return classify.Rule(Packets(**fields), "", target)


RULES = st.builds(
    rule,
    st.just(0),
    st.integers(1, 3),
    ethertype=st.sampled_from([Masked(), Masked(0x0800, 0xFFFF), Masked(0x86DD, 0xFFFF)]),
    protocol=st.sampled_from([Masked(), Masked(6, 0xFF), Masked(17, 0xFF)]),
    destination_port=st.sampled_from([Masked(), *(Masked(port, 0xFFFF) for port in range(4)), Masked(0, 0xFFFE)]),
    mark=st.sampled_from([Masked(), Masked(), Masked(), Masked(1, 1)]),
)


@given(st.lists(RULES, max_size=120), st.lists(packets(), min_size=10, max_size=10))
def test_tables_keep_who_comes_first(found: list[classify.Rule], seen: list[dict[str, int]]) -> None:
    distinct = list({(one.packets, one.indev): one for one in reversed(found)}.values())[::-1]
    in_tables = [one for run in classify.tables(distinct) for one in run]
    assert sorted(in_tables) == sorted(distinct)
    for packet in seen:
        packet = {**packet, "destination_port": packet["ethertype"] % 7 % 4, "protocol": [6, 17][packet["mark"] % 2]}
        first = [next((one.target for one in each if is_in(one.packets, packet)), 0) for each in (distinct, in_tables)]
        assert first[0] == first[1]


def test_a_filter_of_all_protocols_takes_tags_too() -> None:
    """MAC addresses may not be tried before a VLAN that stands before them; addresses of untagged packets may."""
    tag = rule(0, 1, vlan=Masked(5, 0xFFF))
    macs = [rule(0, 2, source_mac=Masked(number, (1 << 48) - 1)) for number in range(1, 2 * classify.TABLE)]
    hosts = [rule(0, 2, ethertype=Masked(0x0800, 0xFFFF), source=Masked(n, 0xFFFFFFFF)) for n in range(40)]
    assert classify.tables([*macs[:-1], tag, macs[-1]]) == [macs[:-1], [tag], [macs[-1]]]
    assert classify.tables([*hosts[:-1], tag, hosts[-1]]) == [hosts, [tag]]


@pytest.mark.parametrize(
    ("conditions", "refused"),
    [
        ({"vlan": 5, "not": {"source": "10.0.0.0/8"}}, True),
        ({"vlan": 5, "protocol": "ipv4", "not": {"protocol": "tcp"}}, True),
        ({"vlan": 5, "protocol": "ipv4", "not": {"source": "10.0.0.0/8"}}, False),
        ({"vlan": 5, "not": {"source_mac": MACS[0]}}, False),
    ],
)
def test_what_is_excluded_within_a_vlan(conditions: dict[str, Any], refused: bool) -> None:
    able: dict[str, bool | str] = {"filter.flower": True, "filter.u32_mark": True}
    match = parse_match(conditions, "match")
    if not refused:
        classify.check(match, able)
        return
    with pytest.raises(InvalidInput, match=r"match\.not: .*whole protocols"):
        classify.check(match, able)


def test_an_excluded_mark_needs_a_kernel_that_looks_at_it() -> None:
    able: dict[str, bool | str] = {"filter.flower": True, "filter.u32_mark": "CONFIG_CLS_U32_MARK"}
    with pytest.raises(MissingCapability, match="CONFIG_CLS_U32_MARK"):
        classify.check(parse_match({"protocol": "udp", "not": {"mark": "0x1/0x1"}}, "match"), able)


def many(count: int, **more: Any) -> list[classify.Rule]:
    found = [parse_match({"destination": f"10.0.{n // 250}.{n % 250}", **more}, "match") for n in range(count)]
    return [made for number, one in enumerate(found) for made in classify.rules(one, {}, "eth0", number)]


def test_many_of_one_shape_are_one_table() -> None:
    assert {entry.kind for entry in classify.filters(many(classify.TABLE - 1), 0, True, "p")} == {"u32"}
    assert {entry.kind for entry in classify.filters(many(10_000), 0, True, "p")} == {"flower"}
    # tcp and udp, IPv4 and IPv6 in turn: what cannot be both is sorted apart
    ports = [parse_match({"destination_port": port}, "match") for port in range(1, 2001)]
    found = [made for number, one in enumerate(ports) for made in classify.rules(one, {}, "eth0", number)]
    assert {entry.kind for entry in classify.filters(found, 0, True, "p")} == {"flower"}


def test_more_than_the_kernel_numbers_is_refused() -> None:
    with pytest.raises(MissingCapability, match="CONFIG_NET_CLS_FLOWER"):
        classify.filters(many(3000), 0, False, "impairment_interfaces[0].classes")
    with pytest.raises(InvalidInput, match="3000 separate filters"):
        classify.filters(many(3000, mark=5), 0, True, "impairment_interfaces[0].classes")


def test_what_leaves_too_many_sets_is_refused_where_it_is_written() -> None:
    cuts = [{"port": f"{1000 * n + 1}-{1000 * n + 998}"} for n in range(1, 9)]
    with pytest.raises(InvalidInput, match=str(MOST)) as refusal:
        sets(parse_match({"protocol": "tcp", "not": cuts}, "match"))
    assert refusal.value.path.startswith("match.not[")
