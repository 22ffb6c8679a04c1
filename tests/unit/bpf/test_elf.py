# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Object files as clang makes them, and what becomes of damaged ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plugins.module_utils.bpf import elf, program
from plugins.module_utils.bpf.elf import BadObject, MapDefinition
from plugins.plugin_utils import clang

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "tests/oracle/bpf"
HEAD = """#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))
static void *(*lookup)() = (void *)1;
"""


def compiled(text: str, folder: Path, *flags: str) -> bytes:
    source = folder / "source.c"
    source.write_text(text if "#include" in text else HEAD + text, encoding="utf-8")
    return clang.compile_program(source, (*clang.FLAGS, *flags))


@cache
def built(name: str, *flags: str) -> bytes:
    return clang.compile_program(SOURCES / name, (*clang.FLAGS, *flags))


@cache
def impair() -> bytes:
    return clang.compile_program(ROOT / "files/bpf/impair.c")


def test_our_own_program() -> None:
    made = elf.read(impair(), "impair.o")
    assert made.licence == "GPL"
    sizes = {"shapes": 152, "matches": 80, "rules": 848, "drops": 8, "states": 72}
    assert {one.name: one.value_size for one in made.maps} == sizes


def test_maps_as_libbpf_writes_them() -> None:
    found = elf.read(built("maps.c", "-g"), "x.o").maps
    assert set(found) == {
        MapDefinition("by_type", 1, 2, 24, 1024, 1, True),
        MapDefinition("by_size", 2, 4, 20, 7),
    }


def test_what_is_not_supported_is_told(tmp_path: Path) -> None:
    inner = 'struct { int (*type)[13]; int (*max_entries)[1]; int (*values)[]; } nest SEC(".maps");'
    use = 'SEC("classifier") int f(struct __sk_buff *s) { int k = 0; return lookup(&nest, &k) ? 1 : 0; }'
    elsewhere = 'extern int elsewhere; SEC("classifier") int f(struct __sk_buff *s) { return elsewhere; }'
    outside = 'extern int other(void); SEC("classifier") int f(struct __sk_buff *s) { return other(); }'
    for text, flags, said in (
        ((SOURCES / "maps.c").read_text(), (), "need debugging information"),
        (inner + use, ("-g",), "the map nest sets values"),
        (outside, (), "f calls other, which is not in the object"),
        (elsewhere, (), "f uses elsewhere, a symbol from elsewhere"),
    ):
        with pytest.raises(BadObject) as refusal:
            program.link(elf.read(compiled(text, tmp_path, *flags), "x.o"), "classifier")
        assert str(refusal.value).startswith("x.o")
        assert said in str(refusal.value)


def test_a_program_is_named_by_its_section(tmp_path: Path) -> None:
    two = 'SEC("tc") int a(struct __sk_buff *s) { return 1; } SEC("tc") int b(struct __sk_buff *s) { return 2; }'
    made = elf.read(compiled(two, tmp_path), "x.o")
    with pytest.raises(BadObject, match=r"has several programs: a, b"):
        program.link(made, "tc")
    assert program.link(made, "tc", "b").instructions[4:8] == b"\2\0\0\0"
    with pytest.raises(BadObject, match=r"no program in a section xdp; its sections with code: tc"):
        program.link(made, "xdp")


def test_only_what_is_called_is_taken() -> None:
    """As the kernel refuses instructions that are never reached."""
    made = elf.read(built("calls.c"), "x.o")
    sizes = {one.name: one.size for one in made.symbols if one.kind == elf.FUNCTION}
    assert len(program.link(made, "classifier").instructions) == sizes["first"] + sizes["second"] + sizes["third"]


def test_variables_are_maps() -> None:
    made = elf.read(built("variables.c"), "x.o")
    found = {one.name: one.content[:4] for one in made.maps}
    assert found == {
        ".rodata": (3).to_bytes(4, sys.byteorder),
        ".bss": bytes(4),
        ".data": (900).to_bytes(4, sys.byteorder),
    }
    assert len(program.link(made, "classifier").maps) >= 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    host = tmp_path / "host.o"
    compiler = shutil.which("cc")
    assert compiler
    subprocess.run([compiler, "-x", "c", "-c", "-o", host, "-"], input=b"int x;", check=True)
    for data, said in (
        (b"", "it is no ELF file"),
        (b"\x7fELF", "it is not for"),
        (host.read_bytes(), "it was not made for BPF"),
        (impair()[:5] + b"\2" + impair()[6:], "it is not for"),
        (impair()[:900], "it ends early"),
    ):
        with pytest.raises(BadObject, match=rf"^broken\.o cannot be used as a BPF object: {said}"):
            elf.read(data, "broken.o")


def look(data: bytes) -> None:
    """Anything may come out of it but another exception."""
    try:
        made = elf.read(data, "x.o")
        for section in {one.name for one in made.sections}:
            for function in {one.name for one in made.symbols}:
                try:
                    program.link(made, section, function)
                except BadObject:
                    continue
    except BadObject as refusal:
        assert str(refusal).startswith("x.o")


@given(st.integers(0, 40_000))
def test_a_file_that_ends_anywhere(end: int) -> None:
    look(impair()[:end])


def objects() -> list[bytes]:
    return [built("maps.c", "-g"), built("calls.c"), built("variables.c")]


PLACES = st.one_of(st.integers(0, 63), st.integers(0, 5000), st.integers(-1000, -1))  # the header; all; the sections
BYTES = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from((b"\xff" * 8, b"\xff\xff\xff\x7f", bytes(8))))


@settings(max_examples=400)
@given(st.integers(0, 2), st.lists(st.tuples(PLACES, BYTES), max_size=4))
@example(0, [(40, b"\xff" * 8)])
def test_a_file_with_any_bytes_changed(which: int, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(objects()[which])
    for place, change in changes:
        place %= len(data)
        data[place : place + len(change)] = change
    look(bytes(data))
