# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packets are missing when iptables drops every nth: numbered packets through a veth pair of this kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.places import Netns

FAR = "10.99.0.2"
COUNTED, BESIDE = 5001, 5002
ETH_P_ALL = 0x0003


@pytest.fixture
def place(netns: Netns) -> Iterator[Netns]:
    """An address on the device, and a neighbour behind it that nobody has to ask for."""
    netns.run(["sysctl", "-qw", f"net.ipv6.conf.{netns.device}.disable_ipv6=1"])
    netns.run(["ip", "address", "add", "10.99.0.1/24", "dev", netns.device])
    netns.run(["ip", "neighbour", "add", FAR, "lladdr", "02:00:00:00:00:02", "dev", netns.device])
    with inside(netns):
        yield netns
        engine.clear()


def passed(place: Netns, count: int) -> list[int]:
    """Numbers of the packets that reach the peer, of `count` counted ones with as many of another class between."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        wire.bind((place.peer, 0))
        wire.settimeout(0.5)
        for number in range(count):
            for port in (COUNTED, BESIDE):
                try:
                    sender.sendto(number.to_bytes(4, "big"), (FAR, port))
                except PermissionError:  # how the kernel tells a local sender of a drop in POSTROUTING
                    pass
        return sorted(_numbers(wire))


def _numbers(wire: socket.socket) -> Iterator[int]:
    while True:
        try:
            frame = wire.recv(2048)
        except TimeoutError:
            return
        if frame[36:38] == COUNTED.to_bytes(2, "big"):
            yield int.from_bytes(frame[42:46], "big")


def asked(place: Netns, **drop: int) -> list[dict[str, object]]:
    counted = {"name": "counted", "match": {"protocol": "udp", "destination_port": COUNTED}, "drop": drop}
    beside = {"name": "beside", "match": {"protocol": "udp", "destination_port": BESIDE}}
    return [{"name": place.device, "classes": [beside, counted, {"name": "rest"}]}]


@pytest.mark.parametrize(("every", "packet"), [(20, 0), (20, 7), (3, 1), (2, 0)])
def test_exactly_the_asked_places_are_missing(place: Netns, every: int, packet: int) -> None:
    outcome = engine.apply(asked(place, every=every, packet=packet), [])
    assert [entry["backend"] for entry in outcome.backends if entry["impairment"] == "drop"] == ["iptables"]
    assert passed(place, 100) == [number for number in range(100) if number % every != packet]


def test_a_kernel_without_gact_drops_the_last_place_by_iptables_too(place: Netns) -> None:
    expected = "gact" if load().ok("action.gact_determ") else "iptables"
    outcome = engine.apply(asked(place, every=10), [])
    assert [entry["backend"] for entry in outcome.backends if entry["impairment"] == "drop"] == [expected]
    assert passed(place, 50) == [number for number in range(50) if number % 10 != 9]


def test_a_second_run_changes_nothing_and_the_count_goes_on(place: Netns) -> None:
    engine.apply(asked(place, every=4, packet=0), [])
    assert passed(place, 2) == [1]
    assert not engine.apply(asked(place, every=4, packet=0), []).report.changed
    assert passed(place, 3) == [0, 1]  # the third and fourth, then the first of the next group is missing


def test_clear_gives_back_an_empty_table(place: Netns) -> None:
    before = place.run(["iptables-nft-save"]).stdout + place.run(["tc", "qdisc", "show"]).stdout
    engine.apply(asked(place, every=5, packet=2), [])
    assert "--mode nth --every 5 --packet 2" in place.run(["iptables-nft-save"]).stdout
    engine.clear()
    rules = [line for line in place.run(["iptables-nft-save"]).stdout.splitlines() if line.startswith("-A")]
    assert not rules
    assert place.run(["tc", "qdisc", "show"]).stdout in before
    assert passed(place, 20) == list(range(20))
