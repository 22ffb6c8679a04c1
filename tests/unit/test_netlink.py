# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, schemas, the bytes of rtnetlink and handles."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils import netlink, schema, units
from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.memory import Memory
from plugins.module_utils.tc.model import handle_text, parse_handle


def test_the_first_record_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "impair" / "before")
    assert memory.recall("tc-eth0") is None
    memory.remember("tc-eth0", {"first": 1})
    memory.remember("tc-eth0", {"second": 2})
    memory.remember("tc-eth1", {})
    assert memory.recall("tc-eth0") == {"first": 1}
    assert memory.keys("tc-") == ["tc-eth0", "tc-eth1"]
    for key in ("tc-eth0", "tc-eth1", "tc-eth1"):
        memory.forget(key)
    assert memory.keys("") == []
    assert not (tmp_path / "impair").exists()


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    with pytest.raises(TypeError):
        memory.remember("tc-eth0", {"bytes": b"no JSON"})
    assert memory.recall("tc-eth0") is None


FIELDS = schema.mapping(
    {
        "delay": schema.leaf(units.parse_time),
        "more": schema.sequence(schema.mapping({"kind": schema.choice("a", "b")})),
    },
    required=["delay"],
)


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        (5, "at", "write a mapping with the keys delay, more"),
        ({}, "at.delay", "required"),
        ({"delay": None}, "at.delay", "required"),
        ({"delay": 5}, "at.delay", "with its unit"),
        ({"delay": "5ms", "dleay": 1}, "at.dleay", "unknown key; allowed: delay, more"),
        ({"delay": "5ms", "more": "ab"}, "at.more", "write a list"),
        ({"delay": "5ms", "more": {"kind": "a"}}, "at.more", "write a list"),
        ({"delay": "5ms", "more": [{}, {"kind": "c"}]}, "at.more[1].kind", "allowed: a, b"),
        ({"delay": "5ms", "more": [None]}, "at.more[0]", "write a mapping"),
    ],
)
def test_refusals_name_the_place(value: object, path: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FIELDS(value, "at")
    assert caught.value.path == path
    assert words in str(caught.value)


def test_keys_without_a_value_count_as_left_out() -> None:
    assert FIELDS({"delay": "5ms", "more": None}, "") == {"delay": 5_000_000}


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_in_order(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(netlink.each_attribute(data)) == pairs
    assert list(netlink.each_attribute(b"head" + data, 4)) == pairs


@given(st.binary(max_size=60))
def test_bytes_that_are_no_attributes_come_to_an_end(data: bytes) -> None:
    assert len(list(netlink.each_attribute(data))) <= len(data)


@pytest.mark.parametrize("capped", [True, False])
def test_a_refusal_carries_the_kernels_words(capped: bool) -> None:
    request = netlink.HEADER.pack(netlink.HEADER.size + 6, 36, 0, 1, 0) + (b"" if capped else bytes(8))
    body = struct.pack("=i", -errno.EINVAL) + request + netlink.attribute(netlink.NLMSGERR_ATTR_MSG, b"Too small\0")
    flags = netlink.NLM_F_ACK_TLVS | (netlink.NLM_F_CAPPED if capped else 0)
    assert netlink._refusal(flags, body) == (errno.EINVAL, "Invalid argument: Too small")
    assert netlink._refusal(0, body) == (errno.EINVAL, "Invalid argument")
    assert netlink._refusal(0, struct.pack("=i", 0) + request) == (0, "")


@given(st.integers(0, 2**32 - 1))
def test_handles_come_back(handle: int) -> None:
    assert parse_handle(handle_text(handle)) == handle
