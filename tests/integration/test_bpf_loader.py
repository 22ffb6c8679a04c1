# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps and programs in the kernel, made by the loader from objects of clang, judged by what they do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.module_utils.bpf import elf, program, syscall
from plugins.module_utils.errors import MissingCapability, StepFailed
from tests.integration.bpf_program import CONTEXT_SIZE, MARK, OTHERS, PRIORITY, compiled
from tests.integration.places import CHECKOUT

SOURCES = {source.stem: source for source in OTHERS}


@pytest.fixture
def maps(request: pytest.FixtureRequest) -> Iterator[dict[str, int]]:
    made: dict[str, int] = {}
    yield made
    for descriptor in made.values():
        os.close(descriptor)


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "bpf", "bpf", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def verdict(descriptor: int, mark: int = 0, priority: int = 0, size: int = 60) -> int:
    context = bytearray(CONTEXT_SIZE)
    struct.pack_into("=I", context, MARK, mark)
    struct.pack_into("=I", context, PRIORITY, priority)
    return syscall.run(descriptor, bytes(size), bytes(context)).verdict


def loaded(name: str, maps: dict[str, int]) -> int:
    return program.load(compiled(SOURCES[name]), "classifier", maps, f"{name}.o").descriptor


def test_functions_call_each_other(maps: dict[str, int]) -> None:
    maps["program"] = loaded("calls", {})
    assert verdict(maps["program"], mark=2, priority=5) == 10 * (7 * 10 + 5) + 7
    assert verdict(maps["program"], mark=2, priority=5, size=200) == 10 * (2 * 10 + 5) + 2


def test_variables_keep_their_values(maps: dict[str, int]) -> None:
    maps["program"] = loaded("variables", {})
    assert [verdict(maps["program"], mark=mark) for mark in (0, 1, 2, 3, 4)] == [930, 940, 980, 990, 1020]


def test_maps_of_libbpfs_macros(maps: dict[str, int]) -> None:
    for one in elf.read(compiled(SOURCES["maps"]), "maps.o").maps:
        maps[one.name] = program.create(one)
    descriptor = loaded("maps", maps)
    syscall.update(maps["by_type"], struct.pack("=H", 77), struct.pack("=iiiiq", 1, 20, 3, 0, 5))
    syscall.update(maps["by_size"], struct.pack("=I", 2), struct.pack("=i16x", 300))
    maps["program"] = descriptor
    assert (verdict(descriptor, mark=77), verdict(descriptor, mark=78)) == (320, -1)


def test_a_map_that_nobody_made() -> None:
    with pytest.raises(elf.BadObject, match=r"maps\.o uses the map by_type, which nobody made"):
        loaded("maps", {})


def test_what_the_kernel_says_of_maps_and_programs(maps: dict[str, int]) -> None:
    maps["some map"] = syscall.create_map(syscall.HASH, 4, 12, 50, 1, "some map")
    maps["program"] = loaded("variables", {})
    info = syscall.map_info(maps["some map"])
    assert info[:1] + info[2:] == (syscall.HASH, 4, 12, 50, 1, "some_map")
    told = syscall.program_info(maps["program"])
    assert (told.type, told.name, len(told.maps)) == (syscall.SCHED_CLS, "first", 3)
    again = syscall.program_by_id(told.id)
    assert again is not None
    assert syscall.program_info(again) == told
    os.close(again)
    for number in told.maps:
        one = syscall.map_by_id(number)
        assert one is not None
        assert syscall.map_info(one).id == number
        os.close(one)
    (frozen,) = (number for number in told.maps if frozen_map(number))
    with pytest.raises(MissingCapability):
        syscall.update(maps.setdefault("frozen", syscall.map_by_id(frozen) or 0), bytes(4), bytes(24))


def frozen_map(number: int) -> bool:
    descriptor = syscall.map_by_id(number)
    assert descriptor is not None
    facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    os.close(descriptor)
    return "frozen:\t1" in facts


def test_entries_come_and_go(maps: dict[str, int]) -> None:
    made = maps["m"] = syscall.create_map(syscall.HASH, 4, 4, 1000, 1, "entries")
    entries = {struct.pack("=I", number): struct.pack("=I", number * number) for number in range(1000)}
    for key, value in entries.items():
        syscall.update(made, key, value)
    assert syscall.items(made, 4, 4) == entries
    with pytest.raises(StepFailed, match=r"set an entry of a BPF map.*(too long|big)"):
        syscall.update(made, struct.pack("=I", 1000), bytes(4))
    for key in list(syscall.keys(made, 4)):
        assert syscall.delete(made, key)
        assert not syscall.delete(made, key)
        assert syscall.lookup(made, key, 4) is None
    assert syscall.items(made, 4, 4) == {}


def test_pins(pins: Path, maps: dict[str, int]) -> None:
    made = maps["m"] = syscall.create_map(syscall.ARRAY, 4, 8, 3, 0, "pinned")
    syscall.pin(made, str(pins / "map"))
    again = syscall.pinned(str(pins / "map"))
    assert again is not None
    assert syscall.map_info(again).id == syscall.map_info(made).id
    os.close(again)
    assert syscall.pinned(str(pins / "none")) is None
    with pytest.raises(StepFailed, match=r"pin a BPF object at .*/map` failed: File exists"):
        syscall.pin(made, str(pins / "map"))
    with pytest.raises(StepFailed, match="open the BPF object /dev/null"):
        syscall.pinned("/dev/null")


def test_what_is_not_there() -> None:
    assert syscall.map_by_id(2**31) is None
    assert syscall.program_by_id(2**31) is None


def test_the_verifiers_last_words() -> None:
    """A program that returns what it never set."""
    with pytest.raises(
        StepFailed, match=r"load the BPF program bad` failed: the kernel's verifier refuses it: .*R0 !read_ok"
    ):
        syscall.load(syscall.SCHED_CLS, b"\x95" + bytes(7), "GPL", "bad")


def test_a_caller_without_rights() -> None:
    """The kernel asks for rights before anything else."""
    code = "import os; from plugins.module_utils.bpf import syscall; os.setuid(65534); syscall.map_by_id(1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert MissingCapability.__name__ in done.stderr
    assert "CONFIG_BPF_SYSCALL" in done.stderr
