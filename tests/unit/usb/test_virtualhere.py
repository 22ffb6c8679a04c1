# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What VirtualHere's server is refused for before anything is touched, against this machine's own ports and devices."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import TestbedError
from plugins.module_utils.usb import virtualhere


def elf(machine: int, bits: int) -> bytes:
    """The head of an ELF file, little endian (elf.h)."""
    return b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + struct.pack("<HH", 2, machine) + b"the rest"


def asked(binary: Path, **other: Any) -> dict[str, Any]:
    digest = hashlib.sha256(binary.read_bytes()).hexdigest() if binary.exists() else "0" * 64
    values = {"binary": str(binary), "sha256": digest, "devices": [{"product": "0d28:0204"}], "port": 7575}
    return {**values, "clients": [], "name": "", "license": "", "missing": "allow", **other}


def refusal(params: dict[str, Any]) -> str:
    with pytest.raises(TestbedError) as refused:
        virtualhere.present(params, check=True)
    return str(refused.value)


@pytest.mark.parametrize(
    ("machine", "bits", "node", "said"),
    [
        (62, 2, "x86_64", ""),
        (3, 1, "x86_64", ""),
        (40, 1, "armv7l", ""),
        (40, 1, "armv6l", ""),
        (40, 1, "aarch64", ""),
        (183, 2, "armv7l", "is for aarch64, this node is armv7l"),
        (62, 2, "aarch64", "is for x86_64, this node is aarch64"),
        (40, 1, "x86_64", "is for armv7l, this node is x86_64"),
        (21, 2, "x86_64", "is for another machine (ELF 21), this node is x86_64"),
    ],
)
def test_a_binary_of_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: int, bits: int, node: str, said: str
) -> None:
    binary = tmp_path / "vhusbd"
    binary.write_bytes(elf(machine, bits))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "node", "6.1", "", node)))
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    if not said:
        assert virtualhere._check_binary(binary, digest) == digest
        return
    assert said in refusal(asked(binary))


def test_a_page_that_says_not_found_is_no_binary(tmp_path: Path) -> None:
    page = tmp_path / "vhusbd"
    page.write_text("<html>not found")
    assert "is for no machine (it is no ELF file)" in refusal(asked(page))


def test_a_wrong_checksum_and_no_file_are_told(tmp_path: Path) -> None:
    binary = tmp_path / "vhusbd"
    assert refusal(asked(binary)) == f"usb_server_virtualhere: {binary}: No such file or directory"
    binary.write_bytes(elf(62, 2))
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    assert f"has the sha256 {digest}, asked is {'1' * 64}" in refusal(asked(binary, sha256="1" * 64))


def test_a_taken_port_is_told_with_who_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "vhusbd"
    binary.write_bytes(elf(62, 2))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "node", "6.1", "", "x86_64")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"(pid {os.getpid()}) listens there already" in refusal(asked(binary, port=port))


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ([], "usb_server_devices: [] is refused; name at least one device, by product"),
        ([{"busid": "1-1"}], "VirtualHere chooses devices by product alone"),
        ([{"product": "0d28:0204", "serial": "1"}], "VirtualHere chooses devices by product alone"),
        ([{"product": "d28:204"}], "usb_server_devices[0].product: 'd28:204' is refused; write vendor:product"),
        (
            [{"product": "dead:beef"}],
            "usb_server_devices[0].product: 'dead:beef' is refused; no such device is plugged in",
        ),
    ],
)
def test_devices_that_cannot_be_shared_are_told(tmp_path: Path, devices: list[dict[str, str]], said: str) -> None:
    assert said in refusal(asked(tmp_path / "vhusbd", devices=devices, missing="fail"))
