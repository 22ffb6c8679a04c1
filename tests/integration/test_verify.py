# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify against trees made by hand with tc: one side as asked, the other wrong in every class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.places import Lab

pytestmark = [pytest.mark.lab, pytest.mark.alone]
RIGHT, WRONG = "enx8cae4cf5b7ae", "eth0"  # master's two ports
FIELDS = {"node", "interface", "class", "direction", "quantity", "asked", "got", "tolerance", "ok", "samples"}


class Made(NamedTuple):
    """A class: what is asked, and what tc is told on the side that is right and on the one that is wrong."""

    name: str
    match: dict[str, Any]
    asked: dict[str, Any]
    right: str
    wrong: str
    fails: str  # the quantity that is wrong


CLASSES = [
    Made("late", {"protocol": "udp", "port": 5001}, {"delay": "50ms"}, "netem delay 50ms", "netem delay 45ms", "delay"),
    Made("lossy", {"protocol": "udp", "port": 5002}, {"loss": "5%"}, "netem loss 5%", "netem loss 12%", "loss"),
    Made("nth", {"protocol": "udp", "port": 5003}, {"drop": {"every": 20}}, "drop 20", "drop 19", "drop"),
    Made("slow", {"protocol": "tcp", "port": 7575}, {"rate": "1mbit"}, "1mbit", "1100kbit", "rate"),
    Made(
        "spread",
        {"protocol": "udp", "port": 5005},
        {"delay": "40ms", "jitter": "20ms"},
        "netem delay 40ms 20ms",
        "netem delay 40ms 5ms",
        "jitter",
    ),
    Made("noisy", {"dscp": 46}, {"corrupt": "5%"}, "netem corrupt 5%", "netem corrupt 15%", "corrupt"),
    Made("clean", {"protocol": "icmp"}, {}, "netem", "netem loss 1%", "loss"),
]


def tree(port: str, right: bool) -> list[str]:
    """tc's lines for one port: HTB, a class each, and what matches nothing passes."""
    lines = [
        f"qdisc replace dev {port} root handle 1: htb",
        f"class add dev {port} parent 1: classid 1:1 htb rate 1gbit",
    ]
    for number, made in enumerate(CLASSES, start=16):
        told, own = made.right if right else made.wrong, f"{number:x}"
        rate = told if told.endswith("bit") else "1gbit"
        lines.append(
            f"class add dev {port} parent 1:1 classid 1:{own} htb rate {rate} burst 4kb cburst 4kb quantum 3000"
        )
        if told.startswith("netem"):
            lines.append(f"qdisc add dev {port} parent 1:{own} handle {own}: {told} limit 5000")
        action = f" action gact pass random determ {told}" if told.startswith("drop") else ""
        key = conditions(made.match)
        lines.append(f"filter add dev {port} parent 1: protocol ip prio {number} u32 {key} flowid 1:{own}{action}")
    return lines


def conditions(match: dict[str, Any]) -> str:
    """u32's keys; a port is matched as the destination's, which is what verify's sender uses."""
    keys = []
    if "protocol" in match:
        keys.append(f"match ip protocol {({'udp': 17, 'tcp': 6, 'icmp': 1})[match['protocol']]} 0xff")
    if "port" in match:
        keys.append(f"match ip dport {match['port']} 0xffff")
    if "dscp" in match:
        keys.append(f"match ip tos {match['dscp'] << 2:#x} 0xfc")
    return " ".join(keys)


@pytest.fixture(scope="module")
def judged(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What verify said about the two sides, and its rows."""
    folder = tmp_path_factory.mktemp("verify")
    asked = [{"name": one.name, "match": one.match, **one.asked} for one in CLASSES]
    interfaces = [{"name": RIGHT, "classes": asked}, {"name": WRONG, "classes": asked}]
    only_master = "{{ asked_interfaces if inventory_hostname == 'master' else [] }}"
    variables = {"impairment_interfaces": only_master, "asked_interfaces": interfaces, "measure_calibration": "ready"}
    file, report = folder / "variables.json", folder / "rows.json"
    file.write_text(json.dumps({**variables, "measure_report": str(report)}))
    lab.playbook("site", "--tags", "node,bridge")
    try:
        lines = [*tree(RIGHT, right=True), *tree(WRONG, right=False)]
        lab.run("master", ["tc", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))
        done = lab.playbook("verify", "-e", f"@{file}", check=False)
        assert report.exists(), done.stdout + done.stderr
        yield done.stdout, json.loads(report.read_text())
    finally:
        for interface in (RIGHT, WRONG):
            lab.run("master", ["tc", "qdisc", "del", "dev", interface, "root"], check=False)
        lab.playbook("clear")


def verdicts(rows: list[dict[str, Any]], interface: str) -> dict[tuple[str, str], bool]:
    return {(row["class"], row["quantity"]): row["ok"] for row in rows if row["interface"] == interface}


def test_what_is_as_asked_passes(judged: tuple[str, list[dict[str, Any]]]) -> None:
    output, rows = judged
    found = verdicts(rows, RIGHT)
    assert {(one.name, one.fails) for one in CLASSES} <= set(found), output
    assert [key for key, ok in found.items() if not ok] == [], output


def test_what_is_wrong_fails_and_nothing_else(judged: tuple[str, list[dict[str, Any]]]) -> None:
    output, rows = judged
    failed = {key for key, ok in verdicts(rows, WRONG).items() if not ok}
    assert failed == {(one.name, one.fails) for one in CLASSES}, output


def test_the_run_fails_and_says_why(judged: tuple[str, list[dict[str, Any]]]) -> None:
    output, rows = judged
    assert f"{len(CLASSES)} of {len(rows)} rows are not as asked" in output
    assert output.count("FAILED") >= 2 * len(CLASSES)  # as it goes, and in the table


def test_every_row_has_every_field(judged: tuple[str, list[dict[str, Any]]]) -> None:
    for row in judged[1]:
        assert set(row) >= FIELDS
        assert row["samples"] >= 20
        assert isinstance(row["ok"], bool)


def test_nothing_runs_on_afterwards(judged: tuple[str, list[dict[str, Any]]], lab: Lab) -> None:
    for node in ("laptop", "master", "slave"):
        assert "probe" not in lab.run(node, ["ps", "-e", "-o", "args"]).stdout
        assert lab.run(node, ["ls", "/run/impair.testbed/measure"], check=False).returncode != 0


def test_the_program_is_taken_off_again(judged: tuple[str, list[dict[str, Any]]], lab: Lab) -> None:
    home = "/var/lib/impair.testbed/measure"
    assert Path(lab.run("slave", ["ls", "-d", home]).stdout.strip()) == Path(home)
    assert "CHANGED" in lab.module("all", "impair.testbed.measure", "phase=remove").stdout
    assert lab.run("slave", ["ls", "-d", home], check=False).returncode != 0
    assert "CHANGED" not in lab.module("all", "impair.testbed.measure", "phase=remove").stdout
