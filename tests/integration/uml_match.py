# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which class real frames fall into, by tc's counters; test_match_uml.py runs this in a kernel with flower."""

from __future__ import annotations

import ipaddress
import random
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.load import DEVICE, ends
from tests.integration.places import Netns

HERE, THERE, ELSEWHERE = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
TCP, UDP, SCTP, ICMP = 6, 17, 132, 1
VLANS = (7, 8, 9)


class Frame(NamedTuple):
    """What is sent; the rest of the packet is zeros."""

    source: str = "10.0.0.1"
    destination: str = "10.0.0.2"
    protocol: int = UDP
    ports: tuple[int, int] = (40000, 5001)
    dscp: int = 0
    macs: tuple[str, str] = (HERE, THERE)
    vlan: int | None = None
    options: int = 0  # words of IP options, or an extension header of that many times 8 bytes
    arp: bool = False

    def bytes(self) -> bytes:
        link = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in reversed(self.macs))
        if self.arp:
            return link + struct.pack("!H", 0x0806) + bytes(46)
        payload = struct.pack("!HH", *self.ports) + bytes(40)
        source, destination = map(ipaddress.ip_address, (self.source, self.destination))
        if source.version == 4:
            first = struct.pack(
                "!BBHHHBB", 0x45 + self.options, self.dscp << 2, 20 + 4 * self.options + 44, 0, 0, 64, self.protocol
            )
            head = first + bytes(2) + source.packed + destination.packed + b"\1" * (4 * self.options)
            return link + struct.pack("!H", 0x0800) + head + payload
        extension = (
            struct.pack("!BB", self.protocol, self.options - 1) + bytes(8 * self.options - 2) if self.options else b""
        )
        following = 60 if self.options else self.protocol
        first = struct.pack("!IHBB", 6 << 28 | self.dscp << 22, len(extension) + 44, following, 64)
        return link + struct.pack("!H", 0x86DD) + first + source.packed + destination.packed + extension + payload


V4, V6 = Frame(), Frame("2001:db8::1", "2001:db8::2")
BOTH = [V4, V6]


def each(**fields: Any) -> list[Frame]:
    return [frame._replace(**fields) for frame in BOTH]


def four(source: str, destination: str = "10.0.0.2") -> Frame:
    return Frame(source, destination)


# match, frames that it takes, frames that it leaves
CASES: list[tuple[Any, list[Frame], list[Frame]]] = [
    ({"protocol": "udp"}, BOTH, [*each(protocol=TCP), Frame(arp=True)]),
    ({"protocol": "arp"}, [Frame(arp=True)], BOTH),
    ({"protocol": "ipv6"}, [V6], [V4, Frame(arp=True)]),
    ({"protocol": 89}, each(protocol=89), BOTH),
    (
        {"port": 5001},
        [*BOTH, *each(protocol=TCP), *each(protocol=SCTP), *each(ports=(5001, 9))],
        each(ports=(5002, 5000)),
    ),
    (
        {"destination_port": "5000-5999"},
        [*each(ports=(1, 5000)), *each(ports=(1, 5999)), *BOTH],
        [*each(ports=(5001, 4999)), *each(ports=(5001, 6000))],
    ),
    (
        {"source_port": [7, "100-200"], "protocol": "tcp"},
        [*each(protocol=TCP, ports=(7, 1)), *each(protocol=TCP, ports=(150, 1))],
        [*each(ports=(7, 1)), *each(protocol=TCP, ports=(8, 7))],
    ),
    ({"source": "10.0.0.1"}, [V4], [V6, four("10.0.0.3", "10.0.0.1")]),
    (
        {"destination": ["10.0.0.0/30", "2001:db8::2"]},
        BOTH,
        [four("10.0.0.1", "10.0.0.4"), V6._replace(destination="2001:db8::3")],
    ),
    ({"address": "10.0.0.1-10.0.0.6"}, [V4, four("10.9.0.1", "10.0.0.6")], [four("10.0.0.0", "10.0.0.7"), V6]),
    ({"dscp": ["ef", "cs1"]}, [*each(dscp=46), *each(dscp=8)], [*BOTH, *each(dscp=47), Frame(arp=True)]),
    ({"source_mac": HERE}, [*BOTH, Frame(arp=True)], each(macs=(THERE, HERE))),
    ({"mac": [THERE, ELSEWHERE]}, [*BOTH, *each(macs=(THERE, HERE))], each(macs=(HERE, HERE))),
    (
        {"destination_mac": THERE, "protocol": "udp"},
        BOTH,
        [*each(macs=(HERE, ELSEWHERE)), *each(protocol=TCP)],
    ),
    ({"vlan": 7}, [*each(vlan=7), Frame(arp=True, vlan=7)], [*BOTH, *each(vlan=8)]),
    (
        {"vlan": [7, 9], "protocol": "udp", "destination_port": 5001},
        [*each(vlan=7), *each(vlan=9)],
        [*BOTH, *each(vlan=7, ports=(1, 1)), *each(vlan=8)],
    ),
    ({"vlan": 7, "source": "10.0.0.0/24"}, [V4._replace(vlan=7)], [V4, V6._replace(vlan=7)]),
    (
        {"protocol": "udp", "not": {"port": "5000-5999"}},
        [*each(ports=(1, 4999)), *each(ports=(6000, 1))],
        [*BOTH, *each(ports=(5500, 1)), *each(protocol=TCP)],
    ),
    ({"not": {"source": "10.0.0.0/8"}}, [V6, four("11.0.0.1"), Frame(arp=True)], [V4]),
    (
        {"protocol": "ipv4", "not": {"protocol": "udp"}},
        [V4._replace(protocol=TCP), V4._replace(protocol=ICMP)],
        [V4, V6._replace(protocol=TCP)],
    ),
    ({"not": [{"protocol": "arp"}, {"dscp": "ef"}]}, BOTH, [Frame(arp=True), *each(dscp=46)]),
    (
        {"source": "10.0.0.0/24", "not": {"source": "10.0.0.1", "destination_port": 5001}},
        [four("10.0.0.2"), V4._replace(ports=(1, 2))],
        [V4, V6],
    ),
    (
        [{"source": "10.0.0.1"}, {"source": "2001:db8::/64", "destination_port": 5001}],
        BOTH,
        [four("10.0.0.2"), V6._replace(ports=(5001, 1))],
    ),
    # from so many on a hash table, which sees ports behind options as well
    (
        {"protocol": "udp", "destination_port": list(range(5001, 5041, 2))},
        [*BOTH, *each(options=1)],
        [*each(ports=(1, 5002)), *each(protocol=TCP)],
    ),
    (
        {"source": [f"10.0.0.{last}" for last in range(1, 60, 2)]},
        [V4, four("10.0.0.59")],
        [V6, four("10.0.0.2")],
    ),
]


@pytest.fixture(scope="module")
def near() -> Iterator[Netns]:
    load()
    with ends("match") as places:
        place = places[0]
        for vlan in VLANS:
            place.run(["ip", "link", "add", "link", DEVICE, "name", f"tag{vlan}", "type", "vlan", "id", str(vlan)])
            place.run(["ip", "link", "set", f"tag{vlan}", "up"])
        with inside(place):
            yield place
            engine.clear()


def counted(near: Netns) -> dict[str, int]:
    """Packets by the rate of their class, which here tells the classes apart."""
    shown = near.run(["tc", "-s", "class", "show", "dev", DEVICE]).stdout
    return {rate: int(packets) for rate, packets in re.findall(r"rate (\S+) .*\n Sent \d+ bytes (\d+) pkt", shown)}


def send(frames: list[Frame]) -> None:
    """Tagged ones through an interface that tags: as those that arrive, they have the tag beside them, not in them."""
    for frame in frames:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((f"tag{frame.vlan}" if frame.vlan else DEVICE, 0))
            wire.send(frame.bytes())


def taken(near: Netns, frames: list[Frame]) -> int:
    """How many of the frames the class took."""
    before = counted(near)["700Mbit"]
    send(frames)
    return counted(near)["700Mbit"] - before


@pytest.mark.parametrize(("match", "takes", "leaves"), CASES, ids=[str(case[0])[:70] for case in CASES])
def test_a_match_takes_what_it_says(near: Netns, match: Any, takes: list[Frame], leaves: list[Frame]) -> None:
    asked = [
        {
            "name": DEVICE,
            "classes": [{"name": "it", "match": match, "rate": "700mbit"}, {"name": "rest", "rate": "800mbit"}],
        }
    ]
    engine.apply(asked, [])
    assert not engine.apply(asked, []).report.changed
    assert taken(near, takes) == len(takes), shown(near, [frame for frame in takes if not taken(near, [frame])])
    assert not taken(near, leaves), shown(near, [frame for frame in leaves if taken(near, [frame])])


def shown(near: Netns, wrong: list[Frame]) -> str:
    return f"{wrong}\n{near.run(['tc', 'filter', 'show', 'dev', DEVICE]).stdout}"


def test_hundreds_of_classes_in_tables_keep_their_order(near: Netns) -> None:
    """Random classes that overlap: by address, by port, by both; the first that fits takes a frame."""
    chance = random.Random(7)
    classes: list[dict[str, Any]] = []
    for number in range(400):
        match: dict[str, Any] = {}
        if number % 3 != 1:
            match["destination"] = f"10.0.{chance.randrange(4)}.{chance.randrange(30)}"
        if number % 3:
            match["destination_port"] = 5000 + chance.randrange(120)
            match["protocol"] = "udp"
        classes.append({"name": f"c{number}", "match": match, "rate": f"{1000 + number}kbit"})
    asked = [{"name": DEVICE, "classes": classes}]
    engine.apply(asked, [])
    assert "flower" in near.run(["tc", "filter", "show", "dev", DEVICE]).stdout
    frames = [
        Frame(destination=f"10.0.{chance.randrange(4)}.{chance.randrange(30)}", ports=(1, 5000 + chance.randrange(120)))
        for _number in range(300)
    ]
    wanted: dict[str, int] = {}
    for frame in frames:
        for entry in classes:
            match = entry["match"]
            if (
                match.get("destination", frame.destination) == frame.destination
                and match.get("destination_port", frame.ports[1]) == frame.ports[1]
            ):
                wanted[entry["rate"]] = wanted.get(entry["rate"], 0) + 1
                break
    send(frames)
    found = {
        rate.replace("Kbit", "kbit").replace("Mbit", "000kbit"): count for rate, count in counted(near).items() if count
    }
    del found["80Gbit"]
    assert found == wanted


def test_one_more_match_is_one_message(near: Netns) -> None:
    hosts = [f"10.0.0.{last}" for last in range(1, 40)]
    engine.apply([{"name": DEVICE, "classes": [{"name": "it", "match": {"source": hosts}, "rate": "700mbit"}]}], [])
    more = [
        {"name": DEVICE, "classes": [{"name": "it", "match": {"source": ["10.0.0.200", *hosts]}, "rate": "700mbit"}]}
    ]
    steps = engine.apply(more, []).report.steps
    assert len(steps) == 1 and "10.0.0.200" in steps[0]
