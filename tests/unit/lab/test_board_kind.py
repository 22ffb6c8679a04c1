# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an emulated board is started, which interfaces it may have, and from what u-boot makes its address."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.lab import links
from plugins.module_utils.lab.kinds import board
from plugins.module_utils.lab.kinds.base import Place
from plugins.module_utils.lab.model import Interface, Node

ETHERNET = Interface("eth0", "52:54:1f:6a:f3:ca", "network", "", "")
ADAPTER = Interface("enx40ae4cf5b7ae", "40:ae:4c:f5:b7:ae", "device", "", "")
NODE = Node("master", "board", 256, 2, (ETHERNET, ADAPTER))


def address(identifier: str) -> str:
    """As u-boot 2023.01 makes it of the four words (board/sunxi/board.c, arch/arm/mach-sunxi/cpu_info.c)."""
    digits = identifier.replace("-", "")
    words = [int(digits[place : place + 8], 16) for place in range(0, 32, 8)]
    crc = zlib.crc32(b"".join(word.to_bytes(4, "little") for word in words[1:]))
    return ":".join(f"{octet:02x}" for octet in bytes([0x02, words[0] & 0xFF, *crc.to_bytes(4, "big")]))


def test_the_rule_is_the_one_that_was_seen() -> None:
    """An emulated board with this identifier said so of its eth0."""
    assert address("02004c24-1111-2222-3333-444455556666") == "02:24:d5:de:30:f5"


@pytest.mark.parametrize("mac", ["52:54:1f:6a:f3:ca", "02:00:00:00:00:01", "52:54:ff:ff:ff:ff", "02:ff:12:34:56:78"])
def test_the_on_board_ethernet_has_the_asked_address_but_for_its_first_byte(mac: str) -> None:
    found = board.identifier(ETHERNET._replace(mac=mac))
    assert address(found) == "02" + mac[2:]
    assert found.startswith("02c000")  # without H3's own prefix QEMU warns


def test_the_ethernet_and_adapters_are_plugged_into_their_links(tmp_path: Path) -> None:
    data = {"eth0": links.Attachment("socket", "a.sock"), ADAPTER.name: links.Attachment("tap", "tap1")}
    place = Place(tmp_path / "master", tmp_path, "key")
    process = board.Board().process(NODE, place, links.management(NODE), data)
    words = list(process.argv)
    backends = [words[number + 1] for number, word in enumerate(words) if word == "-netdev"]
    assert backends[0].startswith("user,id=management,restrict=on,")
    assert backends[0].endswith("hostfwd=tcp:127.0.0.1:10002-169.254.0.2:22")
    assert backends[1:] == [
        "stream,id=net0,server=off,addr.type=unix,addr.path=a.sock.stream",
        "tap,id=net1,ifname=tap1,script=no,downscript=no,vhost=off",
    ]
    assert words[words.index("-net") + 1] == "nic,netdev=net0"
    assert f"usb-net,bus={board.USB},netdev=net1,mac={ADAPTER.mac}" in words
    assert (process.ends, process.sshd) == ((), "127.0.0.1:10002")
    assert not any(str(tmp_path / "master") in word for word in words)  # a long run directory is no matter


@pytest.mark.parametrize("name", ["eth1", "enx8cae4cf5b7ae", board.MANAGEMENT])
def test_other_names_than_a_board_would_give_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"master.{name}"):
        board.check(NODE._replace(interfaces=(ETHERNET, ADAPTER._replace(name=name))))


def test_more_adapters_than_ports_are_refused() -> None:
    three = tuple(ADAPTER._replace(name=f"enx40000000000{number}") for number in range(3))
    board.check(NODE._replace(interfaces=(ETHERNET, *three[:2])))
    with pytest.raises(InvalidInput, match="2 adapters at most"):
        board.check(NODE._replace(interfaces=three))


def test_a_card_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="lab_board_card"):
        board.check(NODE._replace(card=str(tmp_path / "card.img")))
    (tmp_path / "card.img").touch()
    board.check(NODE._replace(card=str(tmp_path / "card.img")))
