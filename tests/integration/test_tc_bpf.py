# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bpf classifier: bytecode and pinned programs, judged by tc, by raw dumps and by packets."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import ForeignState, InvalidInput, RolledBack, TestbedError
from tests.integration.engine import Bench, inside
from tests.integration.test_tc import htb
from tests.oracle import programs

ALL = "1,6 0 0 4294967295"
IPV4 = "4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0"
MIRROR = [{"kind": "mirred", "egress": "mirror", "dev": "lo"}]
CONTINUE, DROP = -1, 2  # TC_ACT_UNSPEC, TC_ACT_SHOT


@pytest.fixture(scope="module", autouse=True)
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A BPF file system with two pinned programs, there before the namespace's shell starts."""
    folder = tmp_path_factory.mktemp("bpf")
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    try:
        programs.pin(folder / "pass", CONTINUE)
        programs.pin(folder / "drop", DROP)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def tree(*filters: dict[str, Any], **more: Any) -> dict[str, Any]:
    entries = [{"parent": "1:", "kind": "bpf", **one} for one in filters]
    return htb({"classid": "1:1"}, {"classid": "1:2"}, filters=entries, **more)


def trees(pins: Path) -> dict[str, dict[str, Any]]:
    clsact = {"qdiscs": [{"kind": "clsact"}]}
    return {
        "bytecode": tree({"bytecode": ALL, "flowid": "1:1"}),
        "bytecodes": tree(
            {"bytecode": IPV4, "flowid": "1:2"},
            {"bytecode": ALL, "flowid": "1:1", "prio": 9, "protocol": "ip"},
            {"bytecode": ALL, "prio": 10, "action": MIRROR},
            {"bytecode": ALL, "prio": 11, "direct_action": True},
        ),
        "program": tree({"object_pinned": str(pins / "pass"), "flowid": "1:1"}),
        "another program": tree({"object_pinned": str(pins / "drop"), "flowid": "1:1"}),
        "direct action": tree({"object_pinned": str(pins / "drop"), "direct_action": True}),
        "program and action": tree({"object_pinned": str(pins / "drop"), "flowid": "1:2", "action": MIRROR}),
        "where packets arrive": tree(
            {"object_pinned": str(pins / "pass"), "direct_action": True, "parent": "ingress"},
            {"object_pinned": str(pins / "drop"), "direct_action": True, "parent": "egress"},
            **clsact,
        ),
        "none": tree(),
    }


NAMES = [*trees(Path()), "bytecode"]


@pytest.mark.parametrize(("first", "second"), [*itertools.pairwise(NAMES), *itertools.pairwise(NAMES[::-1])])
def test_any_way_leads_to_what_tc_makes(benches: list[Bench], pins: Path, first: str, second: str) -> None:
    ours, straight, theirs, typed = benches
    for name in (first, second):
        typed.shell(ours.run(trees(pins)[name]).steps, ours.device)
        assert not ours.run(trees(pins)[name]).changed
    straight.run(trees(pins)[second])
    theirs.make(trees(pins)[second])
    assert ours.state() == theirs.state()
    assert ours.show() == theirs.show()
    assert straight.state() == theirs.state()
    assert typed.state() == theirs.state()


def test_another_program_under_the_same_path_is_found(benches: list[Bench], pins: Path) -> None:
    ours, theirs, *_more = benches
    programs.pin(pins / "changing", CONTINUE)
    asked = tree({"object_pinned": str(pins / "changing"), "direct_action": True})
    ours.run(asked)
    programs.pin(pins / "changing", DROP)
    (step,) = ours.run(asked).steps
    assert step.startswith("tc filter replace")
    theirs.make(asked)
    assert ours.state() == theirs.state()


def test_a_program_that_nobody_else_holds_is_put_back(benches: list[Bench], pins: Path) -> None:
    ours = benches[0]
    programs.pin(pins / "alone", CONTINUE)
    ours.run(tree({"object_pinned": str(pins / "alone"), "direct_action": True}))
    (pins / "alone").unlink()
    before = (ours.state(), ours.show())
    refused = {"kind": "u32", "prio": 2, "match": ["u32 0 0"], "flowid": "1:1", "indev": "absent0"}
    with pytest.raises(RolledBack, match="the state before was restored"):
        ours.run(tree({"object_pinned": str(pins / "drop"), "direct_action": True}, refused))
    assert (ours.state(), ours.show()) == before


def test_a_foreign_program_is_not_purged(benches: list[Bench], pins: Path) -> None:
    ours = benches[0]
    ours.make(trees(pins)["direct action"])
    with pytest.raises(ForeignState):
        ours.run(trees(pins)["none"])
    with pytest.raises(TestbedError, match=r"filters with the program drop:\[\*fsobj\], which could not be given back"):
        ours.run(trees(pins)["none"], purge=True)


def test_packets_find_their_class(benches: list[Bench], pins: Path) -> None:
    """7 of 10 frames are IPv4; then a program drops all."""
    ours = benches[0]
    ours.run(tree({"bytecode": IPV4, "flowid": "1:2"}, root={"default": 0x1}))
    send(ours)
    shown = ours.typed(f"tc -s class show dev {ours.device}")
    counted = dict(re.findall(r"class htb (\S+) .*\n Sent \d+ bytes (\d+) pkt", shown))
    assert counted == {"1:1": "3", "1:2": "7"}
    ours.run(tree({"object_pinned": str(pins / "drop"), "direct_action": True}, root={"default": 0x1}))
    send(ours)
    assert "dropped 10," in ours.typed(f"tc -s qdisc show dev {ours.device}")


def send(bench: Bench) -> None:
    with inside(bench.place), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((bench.device, 0))
        for ethertype, count in ((0x0800, 7), (0x0806, 3)):
            for _number in range(count):
                sender.send(bytes(12) + ethertype.to_bytes(2, "big") + bytes(50))


def test_what_is_refused(benches: list[Bench], pins: Path) -> None:
    (pins / "folder").mkdir()
    both = {"bytecode": ALL, "object_pinned": str(pins / "drop")}
    for filters, path, allowed in (
        ([{"flowid": "1:1"}], "filters[0]", "one of bytecode and object_pinned"),
        ([{**both, "flowid": "1:1"}], "filters[0]", "one of bytecode and object_pinned"),
        ([{"bytecode": ALL}], "filters[0]", "needs a flowid or an action"),
        ([{"bytecode": "2,6 0 0 0", "flowid": "1:1"}], "filters[0].bytecode", "the number of instructions"),
        ([{"bytecode": "1,6 0 256 0", "flowid": "1:1"}], "filters[0].bytecode", "from 0 to 255"),
        ([{"bytecode": ["x"], "flowid": "1:1"}], "filters[0].bytecode", "the number of instructions"),
        ([{"object_pinned": "drop"}], "filters[0].object_pinned", "the absolute path"),
        ([{"object_pinned": str(pins / "none")}], "filters[0].object_pinned", "No such file"),
        ([{"object_pinned": str(pins / "folder")}], "filters[0].object_pinned", "the kernel says"),
        ([{"object_pinned": str(pins / "drop"), "direct_action": "yes"}], "filters[0].direct_action", "true or false"),
        ([{"bytecode": ALL, "direct_action": True, "action": MIRROR}], "filters[0]", "the program decides"),
        ([{"bytecode": ALL, "flowid": "1:1"}] * 2, "filters[1].prio", "a priority holds one bpf"),
        ([{"bytecode": ALL, "flowid": "1:1", "handle": 7}], "filters[0].handle", "leave the handle out"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            benches[0].run(tree(*filters))
        assert refusal.value.path == path
        assert allowed in str(refusal.value)
    assert benches[0].state() == []
