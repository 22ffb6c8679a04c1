# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pytest under the User-Mode-Linux kernel, the tc and the Python of another Debian release.

Its packages stand in a folder of the cache, made once by mmdebstrap; the kernel sees that folder as its root.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.integration.uml import CACHE, ROOT, Outcome

PACKAGES = "user-mode-linux,python3,iproute2,python3-pytest,python3-hypothesis,ansible-core,procps,kmod,iputils-ping"
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run/tmp PYTHONDONTWRITEBYTECODE=1
export HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mkdir -p /run/tmp /run/out
mount -t tmpfs tmpfs /mnt; mount -t hostfs -o hostfs=/{folder} none /run/out
mount --bind /usr/lib/uml/modules /usr/lib/modules
ip link set lo up
cd /collection && {command} >/run/out/output 2>&1
echo $? >/run/out/code
sync
echo o >/proc/sysrq-trigger; read -r never
"""
START = """
mount --bind {root} {base}/collection
mount -t proc proc {base}/proc
mount -t tmpfs -o exec tmpfs {base}/tmp
exec chroot {base} linux.uml mem=384M root=/dev/root rootfstype=hostfs rootflags=/ ro init=/{folder}/init \
  con=null con0=null,fd:1 ssl=null quiet
"""


def base(suite: str) -> Path:
    """The folder with a release's packages."""
    made = CACHE / f"uml-{suite}"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{made.name}.", dir=CACHE))
        draft.chmod(0o755)
        # Mirrors may stand still on a day of their own; their signatures are checked all the same.
        options = ["--mode=root", "--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"']
        argv = ["mmdebstrap", *options, f"--include={PACKAGES}", suite, str(draft), "http://deb.debian.org/debian"]
        subprocess.run(argv, check=True, capture_output=True)
        for folder in ("collection", "usr/lib/modules"):
            (draft / folder).mkdir(parents=True, exist_ok=True)
        draft.rename(made)
    return made


def pytest_under(suite: str, arguments: Sequence[str], seconds: float = 600) -> Outcome:
    """Exit code and output of `pytest ARGUMENTS` under the kernel of a release."""
    # The configuration names plugins that the release may not have.
    argv = ["python3", "-m", "pytest", "-c", "/dev/null", "--rootdir=/collection", "-o", "pythonpath=/collection"]
    argv += ["-p", "no:cacheprovider", "--color=no", "-W", "ignore", *arguments]
    return run_under(suite, argv, seconds)


def run_under(suite: str, argv: Sequence[str], seconds: float, files: Sequence[Path] = ()) -> Outcome:
    """Exit code and output of a program under the kernel of a release; copies of `files` are there in /run/out."""
    root = base(suite)
    with tempfile.TemporaryDirectory(prefix="run-", dir=root) as made:
        folder = Path(made)
        for file in files:
            shutil.copy(file, folder)
        init = folder / "init"
        init.write_text(INIT.format(folder=folder.name, command=shlex.join(argv)), encoding="utf-8")
        init.chmod(0o755)
        script = START.format(root=ROOT, base=root, folder=folder.name)
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if not (folder / "code").exists():
            return Outcome(1, f"the kernel ended early:\n{done.stdout}{done.stderr}")
        return Outcome(int((folder / "code").read_text()), (folder / "output").read_text())
