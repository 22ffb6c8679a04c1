# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/etc/network/interfaces: what is ours goes in and comes out again, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.bridge import interfaces_file as interfaces
from plugins.module_utils.bridge.model import Bridge
from plugins.module_utils.errors import TestbedError

BRIDGE = Bridge("br0", ("eth0", "eth1"), "192.168.1.107/24", "", "", False, 0)
NAMES = ["br0", "eth0", "eth1"]
STANZAS = interfaces.block(BRIDGE, "02:00:00:00:00:01")
TEXT = """# a comment
auto lo eth0
iface eth0 inet static
\taddress 10.0.0.1/24
\t# inside

\tup ip route add 10.1.0.0/16 \\
\t  via 10.0.0.9
iface eth0:1 inet static
\taddress 10.0.0.2/24
iface eth01 inet dhcp
allow-hotplug eth1
iface eth1 inet6 auto
source interfaces.d/*
"""


def ours(text: str) -> str:
    return interfaces.with_block(interfaces.retire(text, NAMES), STANZAS)


def test_stanzas_of_the_ports_become_comments_and_all_else_stays() -> None:
    retired = interfaces.retire(TEXT, NAMES).split("\n")
    changed = [old for old, new in zip(TEXT.split("\n"), retired) if old != new]
    assert changed == [
        "iface eth0 inet static",
        "\taddress 10.0.0.1/24",
        "\tup ip route add 10.1.0.0/16 \\",
        "\t  via 10.0.0.9",
        "iface eth0:1 inet static",
        "\taddress 10.0.0.2/24",
        "iface eth1 inet6 auto",
    ]


WORDS = [*TEXT.split("\n"), "", "mapping eth0", "iface br0 inet dhcp", "é \udcff", "x\r", "\\"]
lines = st.lists(st.sampled_from(WORDS), max_size=30)


@given(lines)
def test_what_we_wrote_leads_back_to_what_was_there(content: list[str]) -> None:
    text = "\n".join(content)
    assert interfaces.original(ours(text)) == text
    assert interfaces.original(text) == text
    assert ours(interfaces.original(ours(text))) == ours(text)


def test_edits_beside_our_block_survive() -> None:
    edited = ours(TEXT).replace("# a comment", "# another") + "auto eth7\n"
    assert interfaces.original(edited) == TEXT.replace("# a comment", "# another") + "auto eth7\n"


def test_a_block_without_its_end_is_refused() -> None:
    with pytest.raises(TestbedError, match="END"):
        interfaces.original(ours(TEXT).replace(interfaces.END, ""))


def test_sourced_files_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("iface eth0 inet dhcp\n")
    (tmp_path / "d" / "b.bak").write_text("")
    main = tmp_path / "interfaces"
    main.write_text(f"source d/a\nsource-directory {tmp_path}/d\nsource {main}\n")
    assert [document.path for document in interfaces.load(str(main))] == [str(main), str(tmp_path / "d/a")]


def test_a_missing_main_file_is_an_empty_one(tmp_path: Path) -> None:
    assert interfaces.load(str(tmp_path / "no")) == [(str(tmp_path / "no"), "")]


def test_the_block_says_what_was_asked() -> None:
    assert "iface br0 inet static\n\taddress 192.168.1.107/24\n\tbridge_ports eth0 eth1\n" in STANZAS
    assert "\tbridge_hw 02:00:00:00:00:01\n" in STANZAS
    assert STANZAS.endswith("iface eth0 inet manual\niface eth1 inet manual\n")
