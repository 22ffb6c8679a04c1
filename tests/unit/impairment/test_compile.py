# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel without this or that is asked, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.capabilities import Capabilities
from plugins.module_utils.errors import MissingCapability
from plugins.module_utils.impairment import compile as compiler
from plugins.module_utils.impairment import model
from plugins.module_utils.probes import traffic

EVERYTHING: dict[str, bool | str] = {
    **{f"qdisc.{name}": True for name in traffic.QDISCS},
    **{f"link.{name}": True for name in traffic.LINKS},
    **{f"filter.{name}": True for name in traffic.FILTERS},
    **{f"action.{name}": True for name in traffic.ACTIONS},
    "netem.seed": True,
    "netem.child": True,
}


def compiled(lacking: dict[str, str], **keys: Any) -> compiler.Compiled:
    node = compiler.Node(Capabilities({**EVERYTHING, **lacking}), {}, 1 << 30)
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
