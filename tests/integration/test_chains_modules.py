# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules iptables, ebtables and testbed_info as a playbook calls them, on the host's kernel and on a lab node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.places import Call, Lab, Netns, run
from tests.oracle import chains as oracle

pytestmark = pytest.mark.minutes

DEVICE = "enx8cae4cf5b7ae"
MARKS = [f"{way} {DEVICE} -j mark --set-mark 2 --mark-target CONTINUE" for way in ("-i", "-o")]
NTH = "-m statistic --mode nth --every 20 --packet 0 -j MARK --set-mark 3"
ORIGINAL = {
    "ebtables": {"chains": [{"hook": "FORWARD", "rules": MARKS}]},
    "iptables": {
        "chains": [
            {"hook": "OUTPUT", "rules": ["-p tcp --dport 7575 -j MARK --set-mark 1"]},
            {"hook": "INPUT", "rules": ["-p tcp --sport 7575 -j MARK --set-mark 1"]},
            {"hook": "FORWARD", "rules": [NTH]},
        ]
    },
}
SCRIPT = [
    f"{name} -A {chain['hook']} {rule}"
    for name, asked in ORIGINAL.items()
    for chain in asked["chains"]
    for rule in chain["rules"]
]

SAVES = {"iptables-save": 3, "ebtables-save": 2}  # and how many rules each has to show


def saved(netns: Netns) -> dict[str, Any]:
    return {command: oracle.tables(netns.run([f"{command}-save"]).stdout) for command in ("iptables", "ebtables")}


def test_original_script(netns: Netns, call: Call) -> None:
    for name, asked in ORIGINAL.items():
        checked = call(name, asked, "--check")
        assert checked["changed"]
        assert "impair-" not in str(saved(netns)[name])
        made = call(name, asked)
        assert made["steps"] == checked["steps"]
        assert made["before"] == []
        again = call(name, asked)
        assert not again["changed"]
        assert again["steps"] == []
        assert again["after"] == made["after"]
    for save, count in SAVES.items():
        typed = oracle.as_typed(run(["unshare", "-n", "sh", "-c", "; ".join([*SCRIPT, save])]).stdout)
        assert sum(map(len, typed.values())) == count
        assert oracle.as_typed(netns.run([save]).stdout) == typed
    info = call("testbed_info", {}, "--check")
    assert not info["changed"]
    assert info["owned"] == [line for name in ("iptables", "ebtables") for line in call(name, ORIGINAL[name])["after"]]
    for name in ORIGINAL:
        gone = call(name, {"state": "absent"})
        assert gone["changed"]
        assert gone["after"] == []
        assert not call(name, {"state": "absent"})["changed"]
    assert "impair-" not in str(saved(netns))


def test_a_left_out_hook_goes_says_so(netns: Netns, call: Call) -> None:
    call("iptables", ORIGINAL["iptables"])
    less = {"chains": ORIGINAL["iptables"]["chains"][2:]}
    less = {"chains": [{**less["chains"][0], "position": "first"}]}
    made = call("iptables", less, "--diff")
    assert [line for line in made["steps"] if " -A " in line] == []
    assert "7575" in str(made["before"])
    assert "7575" not in str(made["after"])
    assert oracle.as_typed(netns.run(["iptables-save"]).stdout) == {
        "filter": ["-A FORWARD -m statistic --mode nth --every 20 --packet 0 -j MARK --set-xmark 0x3/0xffffffff"]
    }


@pytest.mark.parametrize(
    ("name", "chains", "said"),
    [
        (
            "iptables",
            [{"hook": "FORWARD", "rules": ["-j ACCEPT", "-j NOPE"]}],
            "chains[0].rules[1]: '-j NOPE' is refused",
        ),
        ("iptables", [{"hook": "FORWARD", "table": "raw", "rules": []}], "chains[0].hook: 'FORWARD' is refused"),
        ("iptables", [{"hook": "BROUTING", "rules": []}], "value of hook must be one of"),
        ("iptables", [{"hook": "INPUT", "rules": ["-m mark --mark 1 -j 'x"]}], "quotes must be closed"),
        ("ebtables", [{"hook": "FORWARD", "rules": [*MARKS, "-p tcp -j DROP"]}], "chains[0].rules[2]"),
        ("ebtables", [{"hook": "FORWARD"}], "missing required arguments: rules"),
    ],
)
def test_refusals_name_the_place_and_touch_nothing(
    netns: Netns, call: Call, name: str, chains: list[dict[str, Any]], said: str
) -> None:
    before = saved(netns)
    refused = call(name, {"chains": chains})
    assert refused["failed"]
    assert said in refused["msg"]
    assert saved(netns) == before


@pytest.mark.lab
def test_original_script_on_a_lab_node(lab: Lab) -> None:
    """iptables-legacy and ebtables-nft, and the count that legacy restarts is told before."""
    shell = "; ".join(line.replace("iptables", "iptables-legacy") for line in SCRIPT)
    saves = {"iptables-legacy-save": 3, "ebtables-nft-save": 2}
    before = {save: oracle.foreign(lab.run("master", [save]).stdout) for save in saves}
    for name, asked in ORIGINAL.items():
        assert "CHANGED" in lab.module("master", f"impair.testbed.{name}", json.dumps(asked)).stdout
        assert "SUCCESS" in lab.module("master", f"impair.testbed.{name}", json.dumps(asked)).stdout
    for save, count in saves.items():
        typed = oracle.as_typed(lab.run("master", ["unshare", "-n", "sh", "-c", f"{shell}; {save}"]).stdout)
        assert sum(map(len, typed.values())) == count
        assert oracle.as_typed(lab.run("master", [save]).stdout) == typed
    edit = {"chains": [*ORIGINAL["iptables"]["chains"][1:], {"hook": "OUTPUT", "rules": ["-j MARK --set-mark 5"]}]}
    told = lab.module("master", "impair.testbed.iptables", json.dumps(edit), "--check", "-o").stdout
    assert "these counts start over: -A impair-rules-FORWARD -m statistic --mode nth --every 20" in told
    for name in ORIGINAL:
        lab.module("master", f"impair.testbed.{name}", json.dumps({"state": "absent"}))
    for save in saves:
        after = lab.run("master", [save]).stdout
        assert "impair-" not in after
        assert oracle.foreign(after) == before[save]
