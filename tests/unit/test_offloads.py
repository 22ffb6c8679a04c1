# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where superpackets come from, and which impairments mind."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.impairment import model, superpackets
from plugins.module_utils.offloads import Link, wanted

LINKS = [
    Link(1, "lo", "", 0, 0, None, 65535, True),
    Link(2, "eth0", "", 6, 0, None, 65535, False),
    Link(3, "eth1", "", 6, 0, None, 65535, False),
    Link(4, "eth2", "", 0, 0, None, 65535, False),
    Link(5, "veth0", "veth", 6, 2, 0, 65535, False),
    Link(6, "br0", "bridge", 0, 0, None, 65535, False),
    Link(7, "eth2.5", "vlan", 0, 4, None, 65535, False),
    Link(8, "a", "veth", 0, 9, None, 65535, False),
    Link(9, "b", "veth", 0, 8, None, 65535, False),
    Link(10, "bond0", "bond", 11, 0, None, 65535, False),
    Link(11, "br1", "bridge", 0, 0, None, 65535, False),
    Link(12, "eth3", "", 10, 0, None, 65535, False),
    Link(13, "eth4", "", 11, 0, None, 65535, False),
    Link(14, "imp0123456789ab", "ifb", 0, 0, None, 65535, False),
]
NAMES = {link.number: link.name for link in LINKS}


def places(name: str, direction: str = "egress", forwards: bool = False) -> tuple[set[str], set[str]]:
    """Names of senders, those at the other end of a veth with an arrow, and of receivers."""
    found = wanted(LINKS, [(name, direction)], forwards)
    senders = {"→" * far + NAMES[number] for number, far in found.senders}
    return senders, {NAMES[number] for number, _far in found.receivers}


def test_a_bridge_port_sends_what_the_other_ports_receive_and_the_bridge_sends() -> None:
    assert places("eth0") == ({"eth0", "br0", "→veth0"}, {"eth1", "veth0"})


def test_a_bond_that_is_a_port_gathers_at_the_devices_below_it() -> None:
    assert places("eth4") == ({"eth4", "br1"}, {"bond0", "eth3"})


def test_a_vlan_above_sends_too() -> None:
    assert places("eth2") == ({"eth2", "eth2.5"}, set())


def test_what_arrives_at_a_vlan_is_gathered_below_it() -> None:
    assert places("eth2.5", "ingress") == (set(), {"eth2.5", "eth2"})


def test_the_other_end_of_a_veth_may_be_here() -> None:
    assert places("a", "ingress") == ({"b"}, {"a"})


def test_on_a_router_packets_come_in_everywhere() -> None:
    senders, receivers = places("eth2", forwards=True)
    assert receivers == {link.name for link in LINKS} - {"lo", "br0", "br1", "imp0123456789ab"}
    assert senders == {"eth2", "eth2.5", "→veth0", "a", "b"}


def test_an_interface_that_is_not_there_needs_nothing() -> None:
    assert places("eth9") == (set(), set())


def needs(**keys: Any) -> bool:
    return bool(superpackets.needs(model.parse([{"name": "eth0", **keys}])))


@pytest.mark.parametrize(
    "keys",
    [
        {"drop": {"every": 2}},
        {"drop": {"pattern": "01"}},
        {"drop": {"random": "1%"}},
        {"corrupt": {"every": 1}},
        {"duplicate": {"every": 2}},
        {"set_mark": {"value": 1, "every": 2}},
        {"loss": "1%"},
        {"loss": {"gemodel": {"p": "1%"}}},
        {"duplicate": "1%"},
        {"corrupt": "1%"},
        {"reorder": "1%", "delay": "5ms"},
        {"rate": "1mbit", "queue": "20p"},
        {"rate": "1mbit", "queue": "20ms"},
    ],
)
def test_single_packets_suffer(keys: dict[str, Any]) -> None:
    assert needs(**keys)
    assert not needs(**keys, enabled=False)
    assert not needs(**keys, down=True)


@pytest.mark.parametrize(
    "keys",
    [
        {"drop": {"every": 1}},
        {"duplicate": {"every": 1}},
        {"set_mark": "1"},
        {"loss": "100%"},
        {"delay": "5ms", "jitter": "1ms"},
        {"rate": "1gbit"},
        {"rate": "1gbit", "queue": "20ms"},
    ],
)
def test_bursts_suffer_the_same(keys: dict[str, Any]) -> None:
    assert not needs(**keys)


def test_directions_are_told_apart() -> None:
    asked = model.parse([{"name": "eth0", "direction": "both", "loss": "1%"}])
    assert superpackets.needs(asked) == [("eth0", "egress"), ("eth0", "ingress")]


def test_a_small_buffer_is_told_where_offloads_are_kept() -> None:
    asked = model.parse([{"name": "eth0", "rate": "1mbit", "queue": "20ms"}, {"name": "eth1", "loss": "1%"}])
    (warning,) = superpackets.warnings(asked)
    assert warning.startswith("impairment_interfaces[0].queue: packets that TSO or GRO gathered")
