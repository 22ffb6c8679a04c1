# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/bpf.md says to write and to type does what it says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.module_utils.impairment import engine
from tests.integration.engine import inside, namespace
from tests.integration.own_programs import EVERY_NTH, Own, every_nth
from tests.integration.places import CHECKOUT
from tests.integration.program import compiled

PAGE = (CHECKOUT / "docs/bpf.md").read_text(encoding="utf-8")


@pytest.fixture
def own() -> Iterator[Own]:
    """eth0 and eth1, in a namespace of their own."""
    with namespace(2) as place:
        made = Own(place, "eth0")
        for number in "01":
            made.shell(f"ip link set t{number} down name eth{number} up")
        yield made


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_impairments_as_the_page_writes_them(own: Own) -> None:
    asked = [parsed for text in blocks("yaml") if "impairment_interfaces" in (parsed := yaml.safe_load(text))]
    assert len(asked) == 5
    (look,) = [text for text in blocks("sh") if "/rules" in text]
    program = compiled()
    with inside(own.place):
        for variables in asked:
            interfaces: Any = variables["impairment_interfaces"]
            engine.apply(interfaces, [], program=program)
            assert engine.apply(interfaces, [], program=program).report.steps == []
            assert re.search(r"tcx/egress dev eth0 name imp_|pref 65111 bpf", own.filters())
    number = own.place.number()
    own.send(9)
    rules = own.shell(f"bpftool map dump pinned /sys/fs/bpf/impair_testbed/{number}/rules")
    (key,) = re.findall(r"key:\n((?: ?[0-9a-f]{2}){4})", rules)
    assert "6e 8c 57 7e" in look and "0x6e 0x8c 0 0" in look
    low, high, *_rest = key.split()
    printed = own.shell(look.replace("*", number).replace("0x6e 0x8c", f"0x{low} 0x{high}"))
    assert printed.startswith("drops\nrules\nstates\n")
    assert re.search(r"65 74 68 30", printed), "the interface's name stands in its rule"
    assert re.search(r"value:\n09 00 00 00 00 00 00 00  ", printed), "nine packets"
    with inside(own.place):
        engine.clear()


def test_the_originals_command_line_and_the_module(own: Own, tmp_path: Path) -> None:
    shutil.copy(EVERY_NTH, tmp_path)
    ((task,),) = [yaml.safe_load(text) for text in blocks("yaml") if "impair.testbed.bpf" in text]
    (typed,) = [text for text in blocks("sh") if "bpf obj" in text]
    (look,) = [text for text in blocks("sh") if "nth/seen" in text]
    own.shell(f"cd {tmp_path}", typed)
    own.send(40)
    assert counted(own) == ["2", "38"]
    own.shell("tc filter del dev eth0 parent 1:")
    own.run(**task["impair.testbed.bpf"], code=every_nth())
    own.send(30)
    assert counted(own) == ["12", "58"]
    assert re.search(r"value:? +1e 00 00 00", own.shell(look)), "thirty packets"
    own.run(name="nth", state="absent")


def counted(own: Own) -> list[str]:
    shown = own.shell("tc -s class show dev eth0")
    return [re.findall(rf"class htb 1:{number} .*\n Sent \d+ bytes (\d+) pkt", shown)[0] for number in "12"]
