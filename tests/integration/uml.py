# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pytest inside a throwaway User-Mode-Linux kernel that sees this machine's files read-only.

The same tests judge a second kernel, and one with netem and fw, whatever the machine's own kernel has. It is Debian's
package, or the kernel of `make kernel`, in which time can travel: it passes only while everything waits, and then at
once, so that delays are exact. What computes takes no time there, and what never waits never ends.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from plugins.module_utils.lab.kinds.uml import processor

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "impair.testbed")
BUILT = CACHE / "kernel/um"  # by roles/lab_kernel
OPTIONS = ROOT / "roles/lab_kernel/files/um.config"
INIT = """#!/bin/sh
export PATH={path}:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run/tmp PYTHONPYCACHEPREFIX={bytecode}
export HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis XDG_CACHE_HOME={cache} PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mkdir -p /run/tmp /run/out
mount {out} /run/out
{modules}ip link set lo up
cd {root} && {command} >/run/out/output 2>&1
echo $? >/run/out/code
sync
echo o >/proc/sysrq-trigger; read -r never
"""
MODULES = """mount -t tmpfs tmpfs /mnt
# The machine may lack /lib/modules, and its files cannot be written: an overlay holds the mount point.
insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko; mkdir -p /run/overlay/upper /run/overlay/work
mount -t overlay -o lowerdir=/usr/lib,upperdir=/run/overlay/upper,workdir=/run/overlay/work overlay /usr/lib
mkdir -p /usr/lib/modules; mount --bind /usr/lib/uml/modules /usr/lib/modules
"""


class Outcome(NamedTuple):
    code: int
    output: str


class Kernel(NamedTuple):
    """Debian's package, or a `program` that needs no modules; with time travel only where it was built for that."""

    program: Path | None = None
    time_travel: bool = False


PACKAGED = Kernel()


def built() -> Path | None:
    """The kernel of `make kernel`, where it is in the cache and has the options that stand here now."""
    asked = BUILT / "asked.config"
    same = asked.exists() and asked.read_bytes() == OPTIONS.read_bytes()
    return BUILT / "linux" if same else None


def exact() -> Kernel:
    """The kernel with time travel where there is one, else Debian's."""
    return Kernel(built(), time_travel=True) if built() else PACKAGED


def pytest_inside(
    arguments: Sequence[str], folder: Path, seconds: float = 580, kernel: Kernel = PACKAGED, bound: bool = True
) -> Outcome:
    """Exit code and output of `pytest ARGUMENTS` under the UML kernel; `folder` keeps what it wrote."""
    return run_inside(pytest_with(arguments), folder, seconds, kernel, bound)


def pytest_with(arguments: Sequence[str]) -> list[str]:
    """The command of pytest in such a kernel, with the one plugin that our settings need: the others, which nothing in
    there uses, take a third of its start."""
    return [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--color=no", *arguments]


def run_inside(
    argv: Sequence[str], folder: Path, seconds: float, kernel: Kernel = PACKAGED, bound: bool = True
) -> Outcome:
    """Exit code and output of a program under the UML kernel; `folder`, there /run/out, keeps what it wrote.

    After so many `seconds` of this machine's time the kernel is ended and TimeoutExpired raised. `bound`: it stays on
    one processor, which is faster; where milliseconds count, and others want that processor too, it must not.
    """
    init = folder / "init"
    init.write_text(
        INIT.format(
            cache=CACHE.parent,
            bytecode=sys.pycache_prefix or "",
            path=Path(sys.executable).parent,
            out=f"-t hostfs -o {folder} none",
            modules="mount -t tmpfs tmpfs /mnt\n" if kernel.program else MODULES,
            root=ROOT,
            command=shlex.join(argv),
        ),
        encoding="utf-8",
    )
    init.chmod(0o755)
    alone = ["unshare", "--pid", "--fork", "--kill-child"]  # with the kernel end all processes that it traces
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    command = [
        *(["taskset", "--cpu-list", str(processor(worker))] if bound else []),
        *alone,
        str(kernel.program or "linux.uml"),
        "mem=384M",
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        f"init={init}",
        *(["time-travel=inf-cpu"] if kernel.time_travel else []),
    ]
    console = ["con=null", "con0=null,fd:1", "ssl=null", "quiet"]
    done = subprocess.run(
        [*command, *console], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )
    code = folder / "code"
    if not code.exists():
        return Outcome(1, f"the kernel ended early:\n{done.stdout}{done.stderr}")
    return Outcome(int(code.read_text()), (folder / "output").read_text())
