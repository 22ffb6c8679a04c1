# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel without this or that is asked, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.capabilities import Capabilities
from plugins.module_utils.errors import InvalidInput, MissingCapability
from plugins.module_utils.impairment import compile as compiler
from plugins.module_utils.impairment import model
from plugins.module_utils.node import Link
from plugins.module_utils.probes import traffic

EVERYTHING: dict[str, bool | str] = {
    **{f"qdisc.{name}": True for name in traffic.QDISCS},
    **{f"link.{name}": True for name in traffic.LINKS},
    **{f"filter.{name}": True for name in traffic.FILTERS},
    **{f"action.{name}": True for name in traffic.ACTIONS},
    "netem.seed": True,
    "netem.child": True,
    "bpf.program": True,
    "nft.bridge": True,
    "iptables.nft.statistic": True,
    "iptables.legacy.statistic": True,
}


LINKS = {"eth0": Link(2), "eth1": Link(3), "tun0": Link(4, ethernet=False)}


def compiled(lacking: dict[str, str], no_program: str = "clang", **keys: Any) -> compiler.Compiled:
    node = compiler.Node(Capabilities({**EVERYTHING, **lacking}), LINKS, 1 << 30, no_program)
    return compiler.compile_node(model.parse([{"name": "eth0", **keys}]), (), node)


@pytest.mark.parametrize("feature", ["link.ifb", "action.mirred", "qdisc.ingress"])
def test_ingress_names_what_the_kernel_lacks(feature: str) -> None:
    with pytest.raises(MissingCapability, match=r"^impairment_interfaces\[0\]\.direction needs CONFIG_X,"):
        compiled({feature: "CONFIG_X"}, direction="both", delay="5ms")
    assert compiled({feature: "CONFIG_X"}, delay="5ms").trees


@pytest.mark.parametrize("kind", ["pfifo", "bfifo"])
def test_a_discipline_names_what_the_kernel_lacks(kind: str) -> None:
    with pytest.raises(MissingCapability, match=r"^impairment_interfaces\[0\]\.discipline needs CONFIG_X,"):
        compiled({f"qdisc.{kind}": "CONFIG_X"}, discipline=kind)


def test_directions_have_trees_and_counters_of_their_own() -> None:
    found = compiled({}, direction="both", drop={"every": 5})
    assert len(found.trees) == 2 and "eth0" in found.trees
    assert len({action.index for action in found.actions}) == 2
    assert {(entry["interface"], entry["direction"]) for entry in found.backends} == {
        ("eth0", "egress"),
        ("eth0", "ingress"),
    }


def test_a_queue_is_the_leaf_itself_without_netem() -> None:
    def queues(**keys: Any) -> list[str]:
        return [qdisc.kind for qdisc in compiled({"qdisc.netem": "CONFIG_X"}, **keys).trees["eth0"].qdiscs]

    assert queues() == ["htb", "pfifo"]
    assert queues(queue="64kB") == ["htb", "bfifo"]
    assert [qdisc.kind for qdisc in compiled({}, queue="64kB").trees["eth0"].qdiscs] == ["htb", "netem", "bfifo"]


def test_a_kernel_whose_netem_forgets_what_waits_below_it() -> None:
    old = {"netem.child": "CONFIG_X"}
    assert [qdisc.kind for qdisc in compiled(old, rate="1mbit", queue="64kB").trees["eth0"].qdiscs] == ["htb", "bfifo"]
    assert [qdisc.kind for qdisc in compiled(old, delay="1ms").trees["eth0"].qdiscs] == ["htb", "netem"]
    with pytest.raises(MissingCapability, match=r"\[0\]\.queue with delay needs CONFIG_X,"):
        compiled(old, delay="1ms", queue="64kB")


@pytest.mark.parametrize(
    ("lacking", "no_program", "drop", "backend"),
    [
        ({}, "", {"every": 20}, "bpf"),
        ({}, "", {"every": 20, "packet": 0}, "bpf"),
        ({}, "", {"pattern": "01"}, "bpf"),
        ({}, "", {"every": 20, "backend": "gact"}, "gact"),
        ({}, "", {"every": 20, "backend": "iptables"}, "iptables"),
        ({}, "clang", {"every": 20}, "gact"),
        ({}, "clang", {"every": 20, "packet": 0}, "iptables"),
        ({"bpf.program": "CONFIG_BPF_SYSCALL"}, "", {"every": 20}, "gact"),
        ({"qdisc.clsact": "CONFIG_NET_SCH_INGRESS"}, "", {"every": 20}, "gact"),
        ({"bpf.program": "CONFIG_X", "action.gact_determ": "CONFIG_Y"}, "", {"every": 20}, "iptables"),
    ],
)
def test_the_backend_of_a_drop(lacking: dict[str, str], no_program: str, drop: Any, backend: str) -> None:
    found = compiled(lacking, no_program, drop=drop)
    assert [one["backend"] for one in found.backends if one["impairment"] == "drop"] == [backend]
    assert (bool(found.tables), bool(found.actions), bool(found.counted)) == (
        backend == "bpf",
        backend == "gact",
        backend == "iptables",
    )


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"drop": {"pattern": "01"}}, "drop"),
        ({"drop": {"random": "1%"}}, "drop"),
        ({"drop": {"every": 3, "backend": "bpf"}}, "drop"),
        ({"corrupt": {"every": 3}}, "corrupt"),
        ({"duplicate": {"every": 3}}, "duplicate"),
        ({"set_mark": "0x5/0xff"}, "set_mark"),
    ],
)
def test_what_only_a_program_can_do_names_what_is_missing(keys: dict[str, Any], place: str) -> None:
    for lacking, no_program, feature in (
        ({}, "clang", "clang"),
        ({"bpf.program": "CONFIG_BPF_SYSCALL"}, "", "CONFIG_BPF_SYSCALL"),
        ({"qdisc.clsact": "CONFIG_NET_SCH_INGRESS"}, "", "CONFIG_NET_SCH_INGRESS"),
    ):
        with pytest.raises(MissingCapability, match=rf"^impairment_interfaces\[0\]\.{place} needs {feature},"):
            compiled(lacking, no_program, **keys)


def test_loss_is_the_programs_work_without_netem() -> None:
    found = compiled({"qdisc.netem": "CONFIG_X"}, "", loss={"gemodel": {"p": "1%", "r": "10%"}})
    assert [(one["impairment"], one["backend"]) for one in found.backends] == [("drop", "bpf")]
    with pytest.raises(MissingCapability, match="loss needs CONFIG_X,"):
        compiled({"qdisc.netem": "CONFIG_X"}, "", loss={"random": "1%", "correlation": "20%"})


def test_a_program_tells_the_classes_where_filters_cannot() -> None:
    classes = [{"name": "marked", "match": {"mark": 2}, "rate": "1mbit"}, {"name": "rest", "rate": "2mbit"}]
    lacking = {"filter.u32_mark": "CONFIG_CLS_U32_MARK"}
    with pytest.raises(MissingCapability, match="CONFIG_CLS_U32_MARK"):
        compiled(lacking, "clang", classes=classes)
    found = compiled(lacking, "", classes=classes)
    assert len(found.trees["eth0"].filters) == 1
    targets = {target.priority for _shape, _fields, target in found.tables["eth0"].matches}
    assert targets == {entry.handle for entry in found.trees["eth0"].classes} - {0x7E570001, 0x7E570002}


def test_classes_that_share_a_count_suffer_the_same() -> None:
    drop = {"every": 20, "across": ["eth0", "eth1"]}
    node = compiler.Node(Capabilities(EVERYTHING), LINKS, 1 << 30, "")
    pair: list[dict[str, Any]] = [{"name": "eth0", "drop": drop}, {"name": "eth1", "drop": drop}]
    assert len(compiler.compile_node(model.parse(pair), (), node).rules) == 1
    pair[1]["set_mark"] = 1
    with pytest.raises(InvalidInput, match=r"^impairment_interfaces\[1\]\.drop\.across"):
        compiler.compile_node(model.parse(pair), (), node)


def test_a_program_reads_ethernet_only() -> None:
    node = compiler.Node(Capabilities(EVERYTHING), LINKS, 1 << 30, "")
    found = compiler.compile_node(model.parse([{"name": "tun0", "drop": {"every": 20}}]), (), node)
    assert [one["backend"] for one in found.backends] == ["gact"] and not found.tables
    with pytest.raises(MissingCapability, match="drop needs an Ethernet device"):
        compiler.compile_node(model.parse([{"name": "tun0", "drop": {"pattern": "01"}}]), (), node)
