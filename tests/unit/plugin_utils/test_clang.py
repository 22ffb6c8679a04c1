# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BPF objects are made once, and again where the source, a header, a flag or the compiler is another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from plugins.module_utils.errors import TestbedError
from plugins.plugin_utils import clang


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/impair.testbed/bpf"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "answer.h").write_text("#define ANSWER 42\n")
    made = tmp_path / "program.c"
    made.write_text('#include <linux/bpf.h>\n#include "answer.h"\nint f(struct __sk_buff *s) { return ANSWER; }\n')
    return made


def test_what_was_made_is_kept(cache: Path, source: Path) -> None:
    first = clang.compile_program(source)
    (kept,) = cache.glob("*.o")
    kept.write_bytes(b"from the cache")
    assert clang.compile_program(source) == b"from the cache"
    (source.parent / "answer.h").write_text("#define ANSWER 43\n")
    assert clang.compile_program(source) not in (first, b"from the cache")
    assert clang.compile_program(source, (*clang.FLAGS, "-g")) not in (first, b"from the cache")
    assert clang.compile_program(source).startswith(b"\x7fELF")
    assert len(list(cache.glob("*.o"))) == 2


def test_a_record_that_is_damaged_is_made_again(cache: Path, source: Path) -> None:
    first = clang.compile_program(source)
    for damage in (b"", b"{}", b"[]", b"{"):
        (record,) = cache.glob("*.json")
        record.write_bytes(damage)
        assert clang.compile_program(source) == first


def test_headers_from_elsewhere(cache: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (source.parent / "answer.h").rename(tmp_path / "more/answer.h")
    with pytest.raises(TestbedError, match=r"clang refuses .*program\.c(?s:.*)'answer\.h' file not found"):
        clang.compile_program(source)
    assert clang.compile_program(source, includes=[tmp_path / "more"]).startswith(b"\x7fELF")


def test_another_compiler_is_another_object(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang.compile_program(source)
    tools = source.parent / "bin"
    tools.mkdir()
    real = shutil.which("clang")
    (tools / "clang").write_text(f'#!/bin/sh\n[ "$1" != --version ] || exec echo clang 99\nexec {real} "$@"\n')
    (tools / "clang").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    clang.compile_program(source)
    assert len(list(cache.glob("*.o"))) == 2


def test_a_compiler_with_its_version_in_its_name(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = source.parent / "bin"
    tools.mkdir()
    real = shutil.which("clang")
    assert real
    (tools / "clang-9").write_text("#!/bin/sh\nexit 1\n")
    (tools / "clang-9").chmod(0o755)
    (tools / "clang-14").symlink_to(real)
    monkeypatch.setenv("PATH", str(tools))
    assert clang.compile_program(source).startswith(b"\x7fELF")


def test_no_compiler(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TestbedError, match="which has no clang: install the package clang"):
        clang.compile_program(source)


def test_what_the_compiler_says(cache: Path, source: Path) -> None:
    source.write_text("int f(void) { return missing; }\n")
    with pytest.raises(TestbedError, match=r"(?s)clang refuses .*program\.c:.*use of undeclared identifier 'missing'"):
        clang.compile_program(source)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert clang.compile_program(source).startswith(b"\x7fELF")
