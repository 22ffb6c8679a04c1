# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of addresses: the same addresses in the fewest networks, counted one by one by the standard library."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.errors import InvalidInput
from plugins.plugin_utils.addresses import in_interfaces, in_matches, merged

BASE = int(ipaddress.ip_address("10.0.0.0"))
Piece = tuple[int, int, str]  # first, last, what is written


def text(number: int) -> str:
    return str(ipaddress.ip_address(BASE + number))


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """An address, a network or a range among 256 addresses."""
    first, last = sorted((draw(st.integers(0, 255)), draw(st.integers(0, 255))))
    how = draw(st.sampled_from(["address", "network", "range", "short"]))
    if how == "address":
        return first, first, text(first)
    if how == "network":
        prefix = draw(st.integers(24, 32))
        network = ipaddress.ip_network(f"{text(first)}/{prefix}", strict=False)
        return int(network[0]) - BASE, int(network[-1]) - BASE, str(network)
    return first, last, f"{text(first)}-{text(last)}" if how == "range" or first == last else f"{text(first)}-{last}"


def numbers(found: list[Piece]) -> set[int]:
    return {number for first, last, _written in found for number in range(first, last + 1)}


@given(st.lists(pieces(), min_size=1, max_size=8), st.lists(pieces(), max_size=8))
def test_the_same_addresses_in_the_fewest_networks(within: list[Piece], besides: list[Piece]) -> None:
    written: Any = [piece[2] for piece in within]
    wanted = numbers(within)
    if besides:
        written = {"of": written, "except": [piece[2] for piece in besides]}
        wanted -= numbers(besides)
    if not wanted:
        with pytest.raises(InvalidInput, match="nothing is left"):
            merged(written, "source")
        return
    found = merged(written, "source")
    networks = [ipaddress.IPv4Network(entry) for entry in ([found] if isinstance(found, str) else found)]
    assert [int(one) - BASE for network in networks for one in network] == sorted(wanted)  # each once, in order
    assert len(networks) == len(list(ipaddress.collapse_addresses(networks)))


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/8", "10.0.0.1/8"),  # the node refuses it, in its own words
        ("10.1-2.*.*", ["10.1.0.0/16", "10.2.0.0/16"]),
        ("2001:db8::-2001:db8::ffff", "2001:db8::/112"),
        (["10.0.0.1", "2001:db8::1", "10.0.0.0"], ["10.0.0.0/31", "2001:db8::1/128"]),
        ([{"of": "10.0.0.0/30", "except": "10.0.0.2/31"}, "10.0.0.2"], ["10.0.0.0/31", "10.0.0.2/32"]),
        ({"of": "0.0.0.0/0", "except": "128.0.0.0/1"}, "0.0.0.0/1"),
    ],
)
def test_forms(written: Any, wanted: Any) -> None:
    assert merged(written, "source") == wanted


@pytest.mark.parametrize(
    ("written", "path", "allowed"),
    [
        ("10.0.0.9-10.0.0.1", "", "from the lower to the higher"),
        ("10.0.0.1-2001:db8::1", "", "of one family"),
        ("10.0.0.5-300", "", "a range such as"),
        ("10.0.*.1", "", "a range such as"),
        ("a-b", "", "a range such as"),
        ("fe80::1%eth0-fe80::2%eth0", "", "a range such as"),
        (["10.0.0.5/8"], "[0]", "host bits"),
        (["10.0.0.1", 5], "[1]", "write an address"),
        (["10.0.0.1", None], "[1]", "write an address"),
        (["10.0.0.1", ["10.0.0.2"]], "[1]", "write an address"),
        ([], "", "nothing is left"),
        ({"of": "10.0.0.1"}, ".except", "required"),
        ({"of": "10.0.0.1", "but": "10.0.0.1"}, ".but", "of, except"),
        ({"of": "10.0.0.1", "except": ["10.0.0.1", "x"]}, ".except[1]", "write an address"),
        ({"of": {"of": "10.0.0.0/8", "except": 5}, "except": "10.0.0.1"}, ".of.except", "write an address"),
    ],
)
def test_refused_with_its_path_and_what_is_allowed(written: Any, path: str, allowed: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        merged(written, "match.source")
    said, _refused, remedy = str(refused.value).partition(" is refused; ")
    assert said.startswith(f"match.source{path}: ")
    assert allowed in remedy


def test_everywhere_in_the_interfaces_and_nothing_else_is_touched() -> None:
    pair = ["10.0.0.0", "10.0.0.1"]
    asked = [
        {"name": "eth0", "delay": "1ms"},
        {
            "name": "eth1",
            "classes": [
                {"name": "a", "match": {"source": pair, "port": "1-2", "not": [{"address": pair}]}, "rate": "1mbit"},
                {"name": "b", "match": [{"destination": pair}, {"protocol": "arp", "mac": "10-20"}]},
                {"name": "rest"},
            ],
        },
    ]
    one = "10.0.0.0/31"
    assert in_interfaces(asked, "impairment_interfaces") == [
        asked[0],
        {
            "name": "eth1",
            "classes": [
                {"name": "a", "match": {"source": one, "port": "1-2", "not": [{"address": one}]}, "rate": "1mbit"},
                {"name": "b", "match": [{"destination": one}, {"protocol": "arp", "mac": "10-20"}]},
                {"name": "rest"},
            ],
        },
    ]
    assert in_matches([{"source": pair}], "impairment_management") == [{"source": one}]


@pytest.mark.parametrize("odd", [None, "eth0", 5, {"name": "eth0"}, [5], [None], [{"classes": 5}], [{"classes": [5]}]])
def test_what_is_no_list_of_interfaces_is_the_modules_to_refuse(odd: Any) -> None:
    assert in_interfaces(odd, "impairment_interfaces") == odd


def test_the_path_in_a_list_of_matches() -> None:
    asked = [{"name": "eth0", "classes": [{"name": "a"}, {"name": "b", "match": [{}, {"not": {"source": ["x"]}}]}]}]
    with pytest.raises(InvalidInput, match=r"impairment_interfaces\[0\]\.classes\[1\]\.match\[1\]\.not\.source\[0\]: "):
        in_interfaces(asked, "impairment_interfaces")
