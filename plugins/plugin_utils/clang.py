# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BPF programs made of C on the controller: nodes need no compiler. What was made once is kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..module_utils.errors import TestbedError

FLAGS = ("-O2", "-target", "bpf", "-mcpu=v3")
SAID = 2000  # characters of the compiler's that an error repeats


def compile_program(source: Path, flags: Sequence[str] = FLAGS, includes: Sequence[Path] = ()) -> bytes:
    """The object file of a C source, for machines of the controller's byte order; `includes` are folders of headers.

    Raises TestbedError: there is no clang, or it refuses the source.
    """
    clang = _clang()
    command = [clang, *flags, *(f"-I{folder}" for folder in [*includes, *_system_headers()])]
    compiler = os.stat(clang)
    words = [*command, str(source.resolve()), str(compiler.st_mtime_ns), str(compiler.st_size)]
    record = _cache() / f"{source.stem}-{_digest(map(os.fsencode, words))}"
    found = _kept(record)
    if found is not None:
        return found
    rule = _run([*command, "-M", str(source)], source).decode()  # for make: `source.o: source.c header.h …`
    read = [str(source), *shlex.split(rule.replace("\\\n", " "))[1:]]
    made = _run([*command, "-c", str(source), "-o", "-"], source)
    _keep(record.with_suffix(".o"), made)
    _keep(record.with_suffix(".json"), json.dumps({"read": read, "digest": _read(read)}).encode())
    return made


def _kept(record: Path) -> bytes | None:
    """What was made before, if all that the compiler read for it is as it was then."""
    try:
        known = json.loads(record.with_suffix(".json").read_bytes())
        return record.with_suffix(".o").read_bytes() if _read(known["read"]) == known["digest"] else None
    except (OSError, ValueError, KeyError, TypeError):  # nothing, or not whole
        return None


def _read(files: Sequence[str]) -> str:
    return _digest(Path(name).read_bytes() for name in files)


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _clang() -> str:
    """`clang`, or the newest that has its version in its name."""
    names = ["clang"]
    for folder in os.get_exec_path():
        try:
            names += sorted(filter(re.compile(r"clang-\d+").fullmatch, os.listdir(folder)), key=_version)
        except OSError:  # a folder of PATH need not be there
            continue
    for name in [names[0], *names[:0:-1]]:
        found = shutil.which(name)
        if found:
            return found
    raise TestbedError(
        "BPF programs are compiled on the controller, which has no clang: install the package clang there "
        "(Debian, Ubuntu, Fedora: `clang`), with the kernel's headers for user space (Debian: `linux-libc-dev`)"
    )


def _version(name: str) -> int:
    return int(name.rpartition("-")[2])


def _system_headers() -> list[Path]:
    """Where Debian has asm/types.h; clang looks there for its own machine only, not for BPF."""
    folder = Path("/usr/include", sysconfig.get_config_var("MULTIARCH") or "")
    return [folder] if (folder / "asm").is_dir() else []


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "impair.testbed", "bpf")


def _keep(place: Path, made: bytes) -> None:
    """Another call may do the same now: it finds nothing, or the whole."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f"{place.name}.", delete=False) as draft:
            draft.write(made)
        os.replace(draft.name, place)
    except OSError:  # a cache that cannot be written is done without
        pass


def _run(command: Sequence[str], source: Path) -> bytes:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    hint = (
        "; headers are missing: install the package linux-libc-dev"
        if re.search(r"'(linux|asm)/\S+ not found", said)
        else ""
    )
    raise TestbedError(f"clang refuses {source}{hint}:\n{said[:SAID]}")
