# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of capabilities, and when it is forgotten. The probes meet a kernel in the integration tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plugins.module_utils import capabilities
from plugins.module_utils.capabilities import Capabilities, Finding, load
from plugins.module_utils.errors import MissingCapability
from plugins.module_utils.probes import everything


class Probes:
    """Counts how often the node is probed."""

    def __init__(self, **findings: Finding) -> None:
        self.findings = findings
        self.runs = 0

    def __call__(self, bridge_netfilter: bool) -> dict[str, Finding]:
        self.runs += 1
        return self.findings


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "capabilities.json")


def use(monkeypatch: pytest.MonkeyPatch, **findings: Finding) -> Probes:
    probes = Probes(**findings)
    monkeypatch.setattr(everything, "probe_all", probes)
    return probes


def test_a_node_is_probed_once(monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    probes = use(monkeypatch, a=Finding(True), b=Finding("CONFIG_B"))
    assert dict(load(cache)) == dict(load(cache)) == {"a": True, "b": "CONFIG_B"}
    assert probes.runs == 1
    assert os.stat(os.path.dirname(cache)).st_mode & 0o077 == 0
    assert os.listdir(os.path.dirname(cache)) == ["capabilities.json"]


def test_what_is_not_certain_is_tried_again(monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    probes = use(monkeypatch, a=Finding(True), b=Finding("no memory", certain=False))
    load(cache)
    load(cache)
    assert probes.runs == 2
    assert not os.path.exists(cache)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"key": 1}', "\udcff"])
def test_a_damaged_cache_is_replaced(monkeypatch: pytest.MonkeyPatch, cache: str, damage: str) -> None:
    probes = use(monkeypatch, a=Finding(True))
    load(cache)
    Path(cache).write_bytes(os.fsencode(damage))
    assert load(cache).ok("a")
    assert load(cache).ok("a")
    assert probes.runs == 2


@pytest.mark.parametrize("part", ["boot", "kernel", "modules", "programs", "bridge_netfilter", "format"])
def test_a_change_of_the_node_forgets(monkeypatch: pytest.MonkeyPatch, cache: str, part: str) -> None:
    probes = use(monkeypatch, a=Finding(True))
    load(cache)
    content = json.loads(Path(cache).read_text(encoding="utf-8"))
    content["key"][part] = "another"
    Path(cache).write_text(json.dumps(content), encoding="utf-8")
    load(cache)
    assert probes.runs == 2


def test_a_replaced_program_forgets(monkeypatch: pytest.MonkeyPatch, cache: str, tmp_path: Path) -> None:
    tool = tmp_path / "iptables-nft-restore"
    tool.touch()
    monkeypatch.setattr(capabilities, "find", lambda name: str(tool))
    probes = use(monkeypatch, a=Finding(True))
    load(cache)
    load(cache)
    assert probes.runs == 1
    os.utime(tool, ns=(1, 1))
    load(cache)
    assert probes.runs == 2


def test_a_folder_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = use(monkeypatch, a=Finding(True))
    assert load("/proc/no/such/capabilities.json").ok("a")
    assert probes.runs == 1


def test_require_names_what_is_missing() -> None:
    known = Capabilities({"qdisc.netem": "CONFIG_NET_SCH_NETEM (unknown kind)", "qdisc.htb": True})
    known.require("qdisc.htb", "rate")
    with pytest.raises(MissingCapability, match="delay needs CONFIG_NET_SCH_NETEM"):
        known.require("qdisc.netem", "delay")
    with pytest.raises(KeyError):
        known.ok("qdisc.netme")
