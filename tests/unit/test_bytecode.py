# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Code that is kept between calls is that of the source at hand."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from plugins.module_utils import bytecode
codes = bytecode.Bytecode("package", sys.argv[3])
codes.serve()
import package.first  # Python's own way: it makes the archive known
import package.second
print(package.second.VALUE, package.second.__file__.endswith("second.py"), sorted(codes._fresh))
codes.keep()
"""


def run(tmp_path: Path, value: str, cache: str = "kept/bytecode") -> str:
    """Import package.second from an archive, in a new process."""
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("package/__init__.py", "")
        archive.writestr("package/first.py", "")
        archive.writestr("package/second.py", f"VALUE = {value}\n")
    words = [sys.executable, "-c", PROGRAM, str(ROOT), str(tmp_path / "archive.zip"), str(tmp_path / cache)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_a_source_is_compiled_once_and_again_when_it_is_another(tmp_path: Path) -> None:
    assert run(tmp_path, "1") == "1 True ['package.second']"
    assert run(tmp_path, "1") == "1 True []"
    assert run(tmp_path, "2") == "2 True ['package.second']"
    assert run(tmp_path, "2") == "2 True []"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["bytecode"]


def test_what_is_damaged_or_cannot_be_kept_is_done_without(tmp_path: Path) -> None:
    run(tmp_path, "1")
    kept = tmp_path / "kept" / "bytecode"
    for damage in (b"", b"another Python", kept.read_bytes()[:-7], kept.read_bytes() + b"?"):
        kept.write_bytes(damage)
        assert run(tmp_path, "3").startswith("3 True")
    (tmp_path / "file").touch()
    for _again in range(2):
        assert run(tmp_path, "4", "file/bytecode") == "4 True ['package.second']"
