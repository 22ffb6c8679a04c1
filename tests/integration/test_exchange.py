# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A User-Mode Linux whose TAP is a port of its host's bridge, and what the two exchange.

One command brings it up and prints the table; judged by ip(8), by the bytes that the TAP counted, and by ping.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.labs import processes, wait_for
from tests.integration.places import Lab

pytestmark = [pytest.mark.lab, pytest.mark.testbed, pytest.mark.timeout(1200)]
FILE, *LARGER = 1024000, 7340032, 69227508  # bytes, as in the source
BUFFERS = (65536, 1 << 20)
SHORT = {
    "exchange_files": [FILE],
    "exchange_blocks": [1024, 65536],
    "exchange_messages": 100,
}
GUEST = "192.168.1.101"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab(f"exchangetest-{os.getpid()}", None, "inventories/host_bridge")
    yield made
    if made.run_dir.exists():
        made.playbook("lab_down")


@pytest.fixture(scope="module")
def said(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """What the one command printed, and the rows of its report."""
    report = tmp_path_factory.mktemp("exchange") / "exchange.json"
    printed = lab.playbook("exchange", "-e", json.dumps({**SHORT, "exchange_report": str(report)}), timeout=1100).stdout
    return printed, json.loads(report.read_text())


def ip(lab: Lab, *words: str) -> Any:
    return json.loads(lab.enter("node0", ["ip", "-j", *words]).stdout)


def copies(size: int) -> set[tuple[Any, ...]]:
    """What is copied of a file: what, server, bytes, buffer. One of the nodes has an ssh server there."""
    plain = {(what, server, size, by) for what in ("get", "put") for server in ("node0", "node1") for by in BUFFERS}
    return plain | {("scp get", "node1", size, None), ("scp put", "node1", size, None)}


def ports(lab: Lab) -> list[dict[str, Any]]:
    return [dict(port) for port in ip(lab, "-d", "-s", "link", "show", "master", "br0")]


def test_the_tap_is_a_port_of_a_bridge_as_the_source_has_it(lab: Lab, said: tuple[str, object]) -> None:
    (port,) = ports(lab)
    assert port["linkinfo"]["info_kind"] == "tun" and port["linkinfo"]["info_data"]["type"] == "tap"
    assert f"ifname={port['ifname']}," in "".join(processes(lab).values())
    (bridge,) = ip(lab, "-d", "link", "show", "dev", "br0")
    assert bridge["linkinfo"]["info_data"]["mcast_snooping"] == 0
    assert "PROMISC" in bridge["flags"]
    (neighbour,) = ip(lab, "neighbour", "show", GUEST)
    assert (neighbour["lladdr"], neighbour["state"]) == ("fe:fd:c0:a8:00:fd", ["PERMANENT"])
    assert [(route["dst"], route["dev"]) for route in ip(lab, "route", "show", GUEST)] == [(GUEST, "br0")]
    assert " 0% packet loss" in lab.enter("node0", ["ping", "-c", "3", "-i", "0.2", "-w", "20", GUEST]).stdout


def test_messages_blocks_and_files_pass_both_ways_beside_the_sources_figures(
    lab: Lab, said: tuple[str, list[dict[str, Any]]]
) -> None:
    printed, rows = said
    found = {(row["what"], row["server"], row.get("bytes"), row.get("buffer")): row for row in rows}
    wanted = copies(FILE)
    for server in ("node0", "node1"):
        wanted |= {("ping", server, None, None), ("message", server, 64, None)}
        wanted |= {("block", server, size, None) for size in (1024, 65536)}
    assert set(found) == wanted
    assert all(row["good"] for row in rows), printed
    assert all(row["rate"] > 0 for row in rows if row["what"] != "ping")
    assert found["get", "node0", FILE, 65536]["source"] == {"rate": 958636}
    assert any(line.rstrip().endswith(" 958 636 B/s") and " get " in f" {line}" for line in printed.splitlines()), (
        printed
    )
    # Each way: a file twice by get, twice by put, once by scp.
    (port,) = ports(lab)
    assert port["stats64"]["rx"]["bytes"] > 5 * FILE
    assert port["stats64"]["tx"]["bytes"] > 5 * FILE


def test_nothing_of_the_exchange_is_left_on_the_nodes(lab: Lab, said: tuple[str, object]) -> None:
    look = (
        "ls -d /var/tmp/impair.testbed-exchange; grep -c exchange /root/.ssh/authorized_keys; ss -Hltn 'sport = 7576'"
    )
    left = lab.run("node1", ["sh", "-c", look], check=False)
    assert left.stdout.split() == ["0"], left.stdout
    left = lab.enter(
        "node0", ["sh", "-c", "ls -d /var/tmp/impair.testbed-exchange; ss -Hltn 'sport = 7576'"], check=False
    )
    assert not left.stdout


@pytest.mark.sources
def test_the_sources_larger_files_pass_both_ways_too(lab: Lab, said: tuple[str, object], tmp_path: Path) -> None:
    report = tmp_path / "exchange.json"
    asked = {**SHORT, "exchange_files": LARGER, "exchange_report": str(report)}
    (before,) = ports(lab)
    printed = lab.playbook("exchange", "-e", json.dumps(asked), timeout=1100).stdout
    (after,) = ports(lab)
    rows = json.loads(report.read_text())
    assert all(row["good"] for row in rows), printed
    found = {
        (row["what"], row["server"], row["bytes"], row.get("buffer")): row["source"] for row in rows if "bytes" in row
    }
    assert copies(LARGER[0]) | copies(LARGER[1]) <= set(found)
    assert found["put", "node1", LARGER[0], BUFFERS[0]] == {"rate": 781799}
    assert [found["get", "node1", LARGER[1], buffer]["rate"] for buffer in BUFFERS] == [674578, 1682238]
    assert found["scp get", "node1", LARGER[1], None] == {"rate": 6288444}
    for way in ("rx", "tx"):
        assert after["stats64"][way]["bytes"] - before["stats64"][way]["bytes"] > 5 * sum(LARGER)


@pytest.mark.sources
def test_streams_are_measured_beside_the_sources_figures(lab: Lab, said: tuple[str, object], tmp_path: Path) -> None:
    report = tmp_path / "new" / "triage.json"
    asked = {"triage_sizes": [], "triage_seconds": 1, "triage_report": str(report)}
    printed = lab.playbook("triage", "-e", json.dumps(asked)).stdout
    found = json.loads(report.read_text())["modes"]["plain"]
    assert not found["failed"] and found["rtt"] > 0 and found["one_way"] > 0.1, printed
    rows = [line.split() for line in printed.splitlines()]
    assert any("plain" in row and row[-4:] == ["0.196-0.409", "50", "5.4", "13.5"] for row in rows), printed


@pytest.mark.sources
def test_a_tap_that_was_deleted_comes_back_and_the_guest_with_it(lab: Lab, said: tuple[str, object]) -> None:
    (port,) = ports(lab)
    lab.enter("node0", ["ip", "link", "delete", "dev", port["ifname"]])
    lab.playbook("lab_up")
    assert [again["ifname"] for again in ports(lab)] == [port["ifname"]]
    assert " 0% packet loss" in lab.enter("node0", ["ping", "-c", "2", "-w", "20", GUEST]).stdout


def test_lab_down_leaves_nothing(lab: Lab, said: tuple[str, object]) -> None:
    lab.playbook("lab_down")
    wait_for(lambda: not processes(lab))
    assert not Path(lab.run_dir).exists()
