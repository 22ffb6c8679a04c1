# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualHere as the backend of role usb_server, by a stand-in for its server."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.places import Lab, run

pytestmark = [pytest.mark.lab, pytest.mark.usb, pytest.mark.timeout(900)]  # playbooks, on slow processors
SOURCE = Path(__file__).with_name("virtualhere_stand_in.c")
VARIABLES: dict[str, Any] = {
    "usb_backend": "virtualhere",
    "usb_server_port": 7575,
    "usb_server_devices": [{"product": "0d28:0204"}],
    "usb_server_clients": ["192.168.1.147"],
    "usb_server_missing": "allow",  # User-Mode Linux has no USB, and the stand-in shares nothing
}
BINARIES = "/usr/local/lib/impair.testbed/virtualhere"
ASK = "import socket; c = socket.create_connection(('127.0.0.1', 7575), 20); print(c.makefile().read())"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Two versions of the stand-in: where they are, and their checksums."""
    folder, made = tmp_path_factory.mktemp("servers"), {}
    for version in ("1", "2"):
        program = folder / f"stand-in-{version}"
        run(["cc", "-O1", "-static", f'-DVERSION="{version}"', "-o", str(program), str(SOURCE)])
        made[version] = {"url": program.as_uri(), "sha256": hashlib.sha256(program.read_bytes()).hexdigest()}
    return made


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    inventory = tmp_path_factory.mktemp("inventory") / "usb.yml"
    inventory.write_text(json.dumps({"testbed": {"hosts": {"slave": VARIABLES}}}))
    made = Lab(f"virtualheretest-{os.getpid()}", inventory)
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def site(lab: Lab, server: dict[str, str], *arguments: str, check: bool = True) -> str:
    offered = json.dumps({"usb_server_virtualhere": {"x86_64": server}})
    return lab.playbook("site", "-l", "slave", "--tags", "usb_server", "-e", offered, *arguments, check=check).stdout


def changed(said: str) -> int:
    found = re.search(r"^slave .*changed=(\d+) .*failed=0", said, re.MULTILINE)
    assert found, said
    return int(found[1])


def shell(lab: Lab, script: str) -> str:
    return lab.run("slave", ["sh", "-ec", script]).stdout


def test_the_server_runs_as_asked_and_the_next_version_takes_its_place(own: Lab, servers: dict[str, Any]) -> None:
    first, second = servers["1"], servers["2"]
    assert changed(site(own, first)) > 0
    said = own.run("slave", ["python3", "-c", ASK]).stdout.splitlines()
    assert said[0] == "stand-in 1"
    assert {"TCPPort=7575", "AllowedDevices=0d28/0204"} <= set(said)
    rules = shell(own, "iptables-legacy-save -t filter")
    assert "-s 192.168.1.147/32 -p tcp -m tcp --dport 7575 -j RETURN" in rules
    assert "-p tcp -m tcp --dport 7575 -j DROP" in rules
    assert changed(site(own, first)) == 0

    assert changed(site(own, second)) > 0
    said = own.run("slave", ["python3", "-c", ASK]).stdout.splitlines()
    assert said[0] == "stand-in 2"
    assert "StandInWrote=1" in said  # what the server writes there itself stays
    assert shell(own, f"ls {BINARIES}") == f"vhusbd-{second['sha256'][:12]}\n"


def test_a_wrong_checksum_and_a_machine_without_binary_are_told_and_the_server_stays(
    own: Lab, servers: dict[str, Any]
) -> None:
    number = shell(own, "cat /run/impair-virtualhere.pid")
    said = " ".join(site(own, {**servers["1"], "sha256": "1" * 64}, check=False).split())
    assert "The checksum for" in said and "did not match 1111" in said, said
    none = json.dumps({"usb_server_virtualhere": {"armv7l": servers["1"]}})
    said = own.playbook("site", "-l", "slave", "--tags", "usb_server", "-e", none, check=False).stdout
    assert "usb_server_virtualhere has no url and sha256 for x86_64; it has armv7l" in " ".join(said.split()), said
    assert shell(own, "cat /run/impair-virtualhere.pid") == number
    assert own.run("slave", ["python3", "-c", ASK]).stdout.startswith("stand-in 2\n")


def test_clear_leaves_no_server_no_binary_and_no_chain(own: Lab) -> None:
    assert changed(own.playbook("clear", "-l", "slave", "--tags", "usb_server").stdout) > 0
    assert "vhusbd" not in shell(own, "ps ax")
    assert shell(own, f"ls -d {BINARIES} /etc/network/if-up.d/impair-virtualhere 2>/dev/null || true") == ""
    assert "7575" not in shell(own, "iptables-legacy-save")
