# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module impairment as an operator meets it: over ssh, on a node of the virtual lab, watched by the monitors."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.places import Lab

NODE = "master"
CLASSES: list[dict[str, Any]] = [
    {"name": "usbip", "match": {"protocol": "tcp", "port": 7575}, "rate": "100mbit"},
    {"name": "device", "match": {"in_interface": "eth0"}, "rate": "128kbit", "drop": {"every": 20}},
    {"name": "other", "rate": "1mbit", "ceil": "10mbit", "delay": "20ms"},
]
DEVICE = "enx8cae4cf5b7ae"
ASKED = [{"name": DEVICE, "classes": CLASSES}]
EDITED = [{"name": DEVICE, "classes": [*CLASSES[:2], {**CLASSES[2], "delay": "30ms"}]}]
LOG = "/run/monitor-of-the-test"
DUMP = f"""
tc qdisc show; for device in eth0 {DEVICE} mgmt0; do tc class show dev $device; tc filter show dev $device; done
tc actions list action gact; ip address show dev mgmt0; iptables-legacy-save -t mangle; ebtables-save
find /run/impair.testbed/before /run/impair.testbed/pending /var/lib/impair.testbed -type f 2>/dev/null || true
"""


def shell(lab: Lab, text: str) -> str:
    return lab.run(NODE, ["sh"], stdin=text).stdout


def dump(lab: Lab) -> str:
    # The kernel numbers the tables of filters as they come.
    return re.sub(r"^#.*\n|fh \S+|ht \S+|valid_lft.*|\[\d+:\d+\]|installed.*", "", shell(lab, DUMP), flags=re.MULTILINE)


def impairment(lab: Lab, interfaces: Any = (), *options: str, **arguments: Any) -> dict[str, Any]:
    """The module's result; with -vvv in `options`, what ansible said stands in `said`."""
    text = json.dumps({"interfaces": list(interfaces), **arguments})
    said = lab.module(NODE, "impair.testbed.impairment", text, *options, check=False).stdout
    found = re.search(rf"^{NODE} \| (\w+)!? => (\{{.*?^\}})", said, re.DOTALL | re.MULTILINE)
    assert found, said
    return {**json.loads(found.group(2)), "failed": found.group(1) == "FAILED", "said": said}


@pytest.fixture(autouse=True)
def clean(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module before and after: nothing of ours."""
    monkeypatch.setenv("ANSIBLE_CALLBACK_RESULT_FORMAT", "json")
    shell(lab, f"ip link set eth0 up; ip link set {DEVICE} up")  # one that is down has no queue to go back to
    before = dump(lab)
    assert "7e57:" not in before
    yield
    assert not impairment(lab, state="absent")["failed"]
    assert dump(lab) == before


class Monitor:
    """tc monitor and ip monitor on the node; a mark on the loopback interface tells that they have seen everything."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        shell(
            lab,
            f"for what in tc ip; do stdbuf -oL $what monitor >{LOG}.$what 2>&1 </dev/null & echo $! >>{LOG}.pid; done\n"
            f"{self._mark('a1', 'until', 'done')}",
        )

    @staticmethod
    def _mark(handle: str, loop: str, end: str) -> str:
        """Make marks until both monitors have told of one (ip monitor sees the address)."""
        seen = f"grep -q {handle}: {LOG}.tc && grep -q 127.0.9.9 {LOG}.ip"
        make = f"tc qdisc add dev lo root handle {handle}: pfifo; tc qdisc del dev lo root"
        address = "ip address add 127.0.9.9/32 dev lo; ip address del 127.0.9.9/32 dev lo"
        return f"{loop} {seen}; do {make}; {address}; sleep 0.05; {end}\n"

    def seen(self) -> list[str]:
        """What was seen besides the marks."""
        text = shell(self.lab, f"{self._mark('a2', 'until', 'done')} cat {LOG}.tc {LOG}.ip")
        return [
            line
            for line in text.splitlines()
            if not re.search(r"dev lo|127\.0\.9\.9|lo +(inet|valid)|valid_lft|REACHABLE|STALE|DELAY|PROBE", line)
        ]

    def stop(self) -> None:
        shell(self.lab, f"kill $(cat {LOG}.pid); rm {LOG}.*")


@pytest.fixture
def monitor(lab: Lab) -> Iterator[list[Monitor]]:
    """Started by the test when it wants; stopped in any case."""
    started: list[Monitor] = []
    yield started
    for entry in started:
        entry.stop()


def test_check_says_the_steps_and_an_edit_is_one_message_one_call_and_one_confirmation(
    lab: Lab, monitor: list[Monitor]
) -> None:
    assert impairment(lab, ASKED)["changed"]
    stands = dump(lab)
    said = impairment(lab, EDITED, "--check", "--diff")
    assert said["changed"] and "delay 30ms" in said["said"]
    assert dump(lab) == stands

    monitor.append(Monitor(lab))
    done = impairment(lab, EDITED, "-vvv")
    assert done["steps"] == said["steps"] and len(done["steps"]) == 1
    written = monitor[0].seen()
    assert len(written) == 1 and "netem" in written[0] and "delay 30ms" in written[0]
    commands = re.findall(r"SSH: EXEC (.*)", done["said"])
    assert len([command for command in commands if "/run/impair.testbed/pending/" in command]) == 1
    assert len([command for command in commands if "python3" in command]) == 1
    assert not shell(lab, "find /run/impair.testbed/pending -type f 2>/dev/null || true")

    again = impairment(lab, EDITED)
    assert not again["changed"] and not again["steps"]
    assert monitor[0].seen() == written


def test_a_change_that_cuts_the_operator_off_is_taken_back(lab: Lab) -> None:
    impairment(lab, ASKED)
    stands = dump(lab)
    cut = [*ASKED, {"name": "mgmt0", "down": True}]
    result = impairment(lab, cut, "-T", "2", management=[], confirm_within=6)
    assert result["failed"] and "taken it back" in result["msg"] and "impairment_management" in result["msg"]
    deadline = time.monotonic() + 20
    while dump(lab) != stands:
        assert time.monotonic() < deadline
    assert "loss 100%" not in stands
    # With its management flows let through, the same is no danger.
    assert impairment(lab, cut, confirm_within=60)["changed"]
    assert "loss 100%" in shell(lab, "tc qdisc show dev mgmt0")


def test_what_is_refused_is_told_and_touches_nothing(lab: Lab) -> None:
    impairment(lab, ASKED)
    stands = dump(lab)
    for odd, path in (
        ({"delay": 50}, "[0].delay"),
        ({"drop": {"every": 0}}, "[0].drop.every"),
    ):
        result = impairment(lab, [{"name": DEVICE, **odd}])
        assert result["failed"] and result["msg"].startswith(f"impairment_interfaces{path}: ")
    assert dump(lab) == stands
