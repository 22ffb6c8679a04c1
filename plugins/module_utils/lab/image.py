# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file system that all virtual nodes start from: built once by mmdebstrap, kept by its recipe's hash."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from .. import programs
from ..errors import StepFailed, TestbedError
from . import recipe

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
PR_SET_PDEATHSIG = 1
KEPT = 3  # images in the cache: of this recipe, and of other checkouts or versions


def cache_directory() -> Path:
    """Where built root file systems stay: ${XDG_CACHE_HOME:-~/.cache}/impair.testbed/lab."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "impair.testbed" / "lab"


def kernel_release() -> str:
    """The one release that the kernel's package brings modules for."""
    releases = sorted(path.name for path in MODULES.iterdir()) if MODULES.is_dir() else []
    if not releases:
        raise TestbedError(f"{MODULES} has no kernel modules; install the package user-mode-linux")
    return releases[-1]


def recipe_hash() -> str:
    """Of everything that decides the image's content: the recipe and the kernel whose modules it carries."""
    digest = hashlib.sha256()
    parts = (
        recipe.SUITE,
        recipe.PACKAGES,
        recipe.WITHOUT,
        recipe.SIZE,
        recipe.MODULE_FOLDERS,
        recipe.FILES,
        recipe.FINISH,
    )
    digest.update(repr(parts).encode())
    digest.update(Path(programs.find(KERNEL) or KERNEL).read_bytes())
    return digest.hexdigest()[:16]


def image_path(cache: Path) -> Path:
    return cache / f"uml-{recipe.SUITE}-{recipe_hash()}.ext4"


def _add(archive: tarfile.TarFile, name: str, mode: int, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content)
    archive.addfile(entry, io.BytesIO(content))


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _write_extras(target: Path, release: str) -> None:
    """A tar archive of what the packages do not bring: our files and the kernel's modules."""
    with tarfile.open(target, "w") as archive:
        for name, (mode, text) in recipe.FILES.items():
            _add(archive, name, mode, text.encode())
        source = MODULES / release
        inside = f"usr/lib/modules/{release}"
        for folder in recipe.MODULE_FOLDERS:
            if (source / "kernel" / folder).is_dir():
                archive.add(source / "kernel" / folder, f"{inside}/kernel/{folder}", filter=_as_root)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            if (source / name).exists():
                archive.add(source / name, f"{inside}/{name}", filter=_as_root)


def _command(extras: Path) -> list[str]:
    """mmdebstrap as root of its own namespaces: mounts cannot outlive it, and an ordinary user needs no sudo."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    if os.geteuid() != 0:
        argv += ["--map-auto", "--map-root-user"]
    argv += ["mmdebstrap", "--mode=root", "--format=null", "--variant=essential", "--skip=chroot/mount/sys,cleanup"]
    argv += ['--aptopt=Apt::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.WITHOUT]
    argv += [f"--include={','.join(recipe.PACKAGES)}"]
    argv += [f"--customize-hook=tar-in {extras} /", f"--customize-hook={recipe.FINISH}"]
    return [*argv, recipe.SUITE, "-"]


@contextlib.contextmanager
def _workplace(cache: Path) -> Iterator[Path]:
    """An own folder under the cache's lock; what a killed build left there goes first."""
    cache.mkdir(parents=True, exist_ok=True)
    work = cache / "build"
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _discard(work)
        work.mkdir()
        try:
            yield work
        finally:
            _discard(work)


def _discard(work: Path) -> None:
    if not work.exists():
        return
    if os.geteuid() == 0:
        shutil.rmtree(work)
        return
    # Files of a build belong to the user's subordinate ids; only root of such a namespace may remove them.
    subprocess.run(["unshare", "--map-auto", "--map-root-user", "rm", "-rf", str(work)], check=True, timeout=60)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def build(cache: Path, timeout: float = 900) -> tuple[Path, bool]:
    """Path of the image, and whether it had to be built. `timeout` in seconds. The log stays beside the image."""
    target = image_path(cache)
    if target.exists():
        return target, False
    release = kernel_release()
    with _workplace(cache) as work:
        if target.exists():  # another process was faster
            return target, False
        _write_extras(work / "extras.tar", release)
        draft = work / "image.ext4"
        environment = {
            "PATH": programs.SEARCH_PATH,
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(work),
            "RELEASE": release,
            "IMAGE": str(draft),
            "SIZE": recipe.SIZE,
        }
        log = target.with_suffix(".log")
        with open(log, "wb") as out:
            done = subprocess.run(
                _command(work / "extras.tar"),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=timeout,
                check=False,
                preexec_fn=_die_with_parent,
            )
        if done.returncode != 0:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
            raise StepFailed("mmdebstrap", f"exit code {done.returncode}, see {log}: " + " | ".join(tail))
        draft.chmod(0o444)
        draft.rename(target)
        _prune(cache)
    return target, True


def _prune(cache: Path) -> None:
    """Keep the newest images only; nodes that run keep theirs open."""
    images = sorted(cache.glob("uml-*.ext4"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in images[KEPT:]:
        old.unlink()
        old.with_suffix(".log").unlink(missing_ok=True)
