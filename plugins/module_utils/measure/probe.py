# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe's program: compiled once on the controller, kept by the hash of its sources."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from ..errors import MissingCapability, StepFailed

FLAGS = ("-O2", "-static")


def sources(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in (".c", ".h"))


def digest(directory: Path) -> str:
    """Hash of the sources and of how they are compiled."""
    found = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sources(directory):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def cache_directory() -> Path:
    """Where compiled probes are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "impair.testbed" / "probe"


def compiled(directory: Path, cache: Path | None = None) -> Path:
    """Path of the probe for this machine's architecture, compiled where it is not there yet.

    Raises MissingCapability without a C compiler and StepFailed where compiling fails.
    """
    program = (cache or cache_directory()) / f"{digest(directory)[:16]}-{platform.machine()}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingCapability("measuring", "a C compiler on the controller", "install gcc and libc6-dev")
    program.parent.mkdir(parents=True, exist_ok=True)
    part = program.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, "-o", str(part), *(str(path) for path in sources(directory) if path.suffix == ".c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise StepFailed(" ".join(command), done.stderr.strip())
    part.replace(program)  # in one step: two runs may compile at once
    return program
