# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps from one state of the links to another."""

from __future__ import annotations

from plugins.module_utils.bridge import links
from plugins.module_utils.bridge.links import Address, Link, Links
from plugins.module_utils.bridge.plan import LinksDomain

ROUTE = ("-4", "default", "via", "10.0.0.9", "dev", "eth0", "onlink")
HOST = Link("eth0", addrgenmode="eui64", configured=True, addresses=(Address("10.0.0.1/24"),), routes=(ROUTE,))
SPARE = Link("eth1", up=False, addrgenmode="eui64")
BRIDGE = Link("br0", bridge=True, mac="02:00:00:00:00:01", configured=True, addresses=(Address("10.0.0.1/24"),))
PORTS = [
    Link(name, master="br0", addrgenmode="none") for name in ("eth0", "eth1")
]  # fmt: skip
APART = Links((links.absent("br0"), HOST, SPARE))
JOINED = Links((BRIDGE, *PORTS))


def steps(current: Links, desired: Links, trial: tuple[str, ...] = ("br0",)) -> list[str]:
    return [step.command for step in LinksDomain(["br0", "eth0", "eth1"], "/trial", trial).plan(current, desired)]


def test_joining_keeps_the_address_until_the_bridge_has_it() -> None:
    assert steps(APART, JOINED) == [
        "ip -4 route delete default via 10.0.0.9 dev eth0 onlink",
        "ifup --force -i /trial br0",
        "ifdown --force -i /etc/network/interfaces eth0",
        "ip address flush dev eth0",
        "ip link set dev eth0 up",
    ]


def test_parting_gives_back_what_ifup_may_not_bring() -> None:
    assert steps(JOINED, APART, ("eth0", "eth1")) == [
        "ifdown --force -i /etc/network/interfaces br0",
        "ip link set dev eth0 addrgenmode eui64",
        "ip link set dev eth1 addrgenmode eui64",
        "ifup --force -i /trial eth0",
        "ip address replace 10.0.0.1/24 dev eth0 scope global",
        "ip link set dev eth0 up",
        "ip -4 route replace default via 10.0.0.9 dev eth0 onlink",
    ]


def test_nothing_to_do() -> None:
    assert steps(JOINED, JOINED) == []
    assert steps(APART, APART) == []


def test_single_properties_do_not_touch_the_rest() -> None:
    assert steps(JOINED.put(PORTS[1]._replace(master="")), JOINED) == ["ip link set dev eth1 master br0"]
    assert steps(JOINED.put(BRIDGE._replace(addresses=())), JOINED) == [
        "ip address replace 10.0.0.1/24 dev br0 scope global"
    ]
    assert steps(JOINED.put(BRIDGE._replace(mac="02:00:00:00:00:02")), JOINED) == [
        "ip link set dev br0 address 02:00:00:00:00:01"
    ]
    assert steps(JOINED.put(BRIDGE._replace(stp=True, forward_delay=1500)), JOINED) == [
        "ip link set dev br0 type bridge forward_delay 0 stp_state 0"
    ]
    assert steps(JOINED.put(PORTS[0]._replace(up=False)), JOINED) == ["ip link set dev eth0 up"]


def test_a_port_that_leaves_a_bridge_that_stays() -> None:
    left = JOINED.put(SPARE)
    assert steps(JOINED, left) == ["ip link set dev eth1 nomaster down", "ip link set dev eth1 addrgenmode eui64"]


def test_leases_are_not_given_back_by_hand() -> None:
    leased = HOST._replace(addresses=(Address("10.0.0.1/24", dynamic=True),), routes=((*ROUTE[:-1], "proto", "dhcp"),))
    back = steps(JOINED, APART.put(leased), ("eth0", "eth1"))
    assert "ifup --force -i /trial eth0" in back
    assert not [step for step in back if "10.0.0." in step]


def test_states_survive_the_memory() -> None:
    assert links.from_json(links.to_json(APART)) == APART
