# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of capabilities against the kernel: tc, ip and iptables say whether they are right."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from plugins.module_utils.capabilities import load
from tests.integration.places import Lab, Netns, run

HTB = ["tc qdisc add dev lo root handle 1: htb", "tc class add dev lo parent 1: classid 1:1 htb rate 1mbit"]
RULE = "tc filter add dev lo parent 1: prio 1 protocol all"

# capability: the lines that a person would try; all pass exactly where the capability is there
TRIALS = {
    **{
        f"qdisc.{kind}": [f"tc qdisc add dev lo root handle 1: {kind}"]
        for kind in ("htb", "netem", "pfifo", "bfifo", "prio", "fq", "fq_codel", "cake")
    },
    "qdisc.tbf": ["tc qdisc add dev lo root handle 1: tbf rate 1mbit burst 10k limit 20k"],
    "qdisc.ingress": ["tc qdisc add dev lo ingress"],
    "qdisc.clsact": ["tc qdisc add dev lo clsact"],
    "filter.fw": [*HTB, f"{RULE} handle 2 fw flowid 1:1"],
    "filter.u32": [*HTB, f"{RULE} u32 match u32 0 0 flowid 1:1"],
    "filter.flower": [*HTB, f"{RULE} flower flowid 1:1"],
    "filter.matchall": [*HTB, f"{RULE} matchall flowid 1:1"],
    "filter.bpf": [*HTB, f'{RULE} bpf bytecode "1,6 0 0 4294967295," flowid 1:1'],
    "action.gact": ["tc actions add action drop"],
    "action.gact_determ": ["tc actions add action pass random determ drop 20"],
    "action.mirred": ["tc actions add action mirred egress redirect dev lo"],
    "action.skbedit": ["tc actions add action skbedit mark 1"],
    "action.police": ["tc actions add action police rate 1mbit burst 10k drop"],
    "link.veth": ["ip link add one type veth peer name two"],
    "link.ifb": ["ip link add one type ifb"],
    "link.bridge": ["ip link add one type bridge"],
    "link.dummy": ["ip link add one type dummy"],
    **{
        f"{family}.{variant}{part}": [f"{family}-{variant} -t mangle -A FORWARD {rule}"]
        for family in ("iptables", "ip6tables")
        for variant in ("nft", "legacy")
        for part, rule in {
            "": "",
            ".mark": "-j MARK --set-mark 1",
            ".statistic": "-m statistic --mode nth --every 20 --packet 0",
        }.items()
    },
    "ebtables.nft": ["ebtables-nft -N x"],
    "ebtables.nft.mark": ["ebtables-nft -A FORWARD -j mark --set-mark 2 --mark-target CONTINUE"],
}
# capability: what the last filter shows when it is read back
SHOWN = {
    "filter.u32_mark": ([*HTB, f"{RULE} u32 match mark 2 0xff flowid 1:1"], "mark 0x0002 0x00ff"),
    "filter.u32_indev": ([*HTB, f"{RULE} u32 match u32 0 0 indev lo flowid 1:1"], "input dev lo"),
}


def trial_script() -> str:
    """One shell script for all trials, each in a namespace of its own; prints `name yes` or `name no`."""
    lines = []
    for name, commands in TRIALS.items():
        tried = " && ".join(f"{command} >/dev/null 2>&1" for command in commands)
        lines.append(f"unshare -n sh -c '{tried}' && echo {name} yes || echo {name} no")
    for name, (commands, shown) in SHOWN.items():
        tried = " && ".join(f"{command} >/dev/null 2>&1" for command in commands)
        show = f'tc filter show dev lo parent 1: | grep -q "{shown}"'
        lines.append(f"unshare -n sh -c '{tried} && {show}' && echo {name} yes || echo {name} no")
    return "\n".join(lines)


def verdicts(printed: str) -> dict[str, bool]:
    return {name: verdict == "yes" for name, verdict in (line.split(" ") for line in printed.strip().split("\n"))}


def test_the_host_can_do_what_is_said(tmp_path: Path) -> None:
    known = load(str(tmp_path / "cache.json"))
    expected = verdicts(run(["sh", "-c", trial_script()]).stdout)
    assert {name: known.ok(name) for name in expected} == expected
    assert expected["qdisc.htb"], "nothing was really tried"
    for name, result in known.items():
        assert result is True or "CONFIG_" in str(result) or "program" in str(result), name


def test_probing_leaves_nothing_behind(netns: Netns, tmp_path: Path) -> None:
    def seen() -> list[str]:
        spaces = {os.readlink(f"/proc/{pid}/ns/net") for pid in os.listdir("/proc/self/task")}
        return [
            run(["ip", "-o", "link"]).stdout,
            run(["tc", "qdisc"]).stdout,
            run(["nft", "list", "ruleset"]).stdout,
            *spaces,
        ]

    before = seen()
    load(str(tmp_path / "cache.json"))
    assert seen() == before


def test_a_remembered_node_answers_at_once(tmp_path: Path) -> None:
    """Not a benchmark: starting one program takes longer than ten answers from memory."""
    load(str(tmp_path / "cache.json"))
    run_before = time.process_time()
    children = os.times().children_user
    for _time in range(10):
        load(str(tmp_path / "cache.json"))
    assert os.times().children_user == children, "a program was started"
    assert time.process_time() - run_before < 1


@pytest.mark.lab
def test_a_lab_node_can_do_what_is_said(lab: Lab) -> None:
    """The other kernel: netem, fw and iptables-legacy, and no iptables-nft."""
    expected = verdicts(lab.run("master", ["sh", "-c", trial_script()]).stdout)
    assert expected["qdisc.netem"]
    assert expected["filter.u32_mark"]
    assert expected["action.gact_determ"]
    assert not expected["iptables.nft"]
    said = _capabilities(lab)
    assert {name: said[name] is True for name in expected} == expected
    assert "6.6" in str(said["netem.seed"])


def _capabilities(lab: Lab) -> dict[str, bool | str]:
    printed = lab.module("master", "impair.testbed.testbed_info", "", "-o").stdout
    return json.loads(printed[printed.index("{") :])["capabilities"]
