# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all virtual nodes of a kind start from: an image built once by mmdebstrap, kept by its recipe's hash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import StepFailed
from ..orphans import die_with_parent
from . import recipe
from .recipe import Recipe

KEPT = 3  # images of a kind in the cache: of this recipe, and of other checkouts or versions


class Kernel(NamedTuple):
    """A kernel that the host has: its program, and the folder of its modules, which its release names."""

    program: Path
    modules: Path


def cache_directory() -> Path:
    """Where built root file systems stay: ${XDG_CACHE_HOME:-~/.cache}/impair.testbed/lab."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "impair.testbed" / "lab"


def recipe_hash(made: Recipe, program: Path | None) -> str:
    """Of everything that decides the image's content: the recipe and the host's kernel whose modules it carries."""
    digest = hashlib.sha256()
    parts = (recipe.SUITE, made.packages, made.without, recipe.SIZE, made.modules, made.files, made.finish)
    digest.update(repr((*parts, *made.options, *made.sources)).encode())
    if program is not None:
        digest.update(program.read_bytes())
    return digest.hexdigest()[:16]


def image_path(cache: Path, made: Recipe, program: Path | None = None) -> Path:
    """Where the image of a recipe is, or will be; `program` is the host's kernel where it comes from there."""
    return cache / f"{made.kind}-{recipe.SUITE}-{recipe_hash(made, program)}{made.suffix}"


def identity(path: Path) -> str:
    """A copy-on-write file fits only the very file it was made over, so the time counts as well (for UML too)."""
    return f"{path.name}@{path.stat().st_mtime_ns}" if path.exists() else path.name


def _add(archive: tarfile.TarFile, name: str, mode: int, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content)
    archive.addfile(entry, io.BytesIO(content))


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _write_extras(target: Path, made: Recipe, kernel: Kernel | None) -> None:
    """A tar archive of what the packages do not bring: our files and the modules of a kernel of the host."""
    with tarfile.open(target, "w") as archive:
        for name, (mode, text) in made.files.items():
            _add(archive, name, mode, text.encode())
        if kernel is None:
            return
        inside = f"usr/lib/modules/{kernel.modules.name}"
        for folder in made.modules:
            if (kernel.modules / "kernel" / folder).is_dir():
                archive.add(kernel.modules / "kernel" / folder, f"{inside}/kernel/{folder}", filter=_as_root)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            if (kernel.modules / name).exists():
                archive.add(kernel.modules / name, f"{inside}/{name}", filter=_as_root)


def _command(made: Recipe, extras: Path) -> list[str]:
    """mmdebstrap as root of its own namespaces: mounts cannot outlive it, and an ordinary user needs no sudo."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    if os.geteuid() != 0:
        argv += ["--map-auto", "--map-root-user"]
    argv += ["mmdebstrap", "--mode=root", "--format=null", "--variant=essential", "--skip=chroot/mount/sys,cleanup"]
    argv += ['--aptopt=Apt::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in made.without]
    argv += [*made.options, f"--include={','.join(made.packages)}"]
    argv += [f"--{made.hook}-hook=tar-in {extras} /", f"--{made.hook}-hook={made.finish}"]
    return [*argv, recipe.SUITE, "-", *made.sources]


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


def build(
    cache: Path,
    made: Recipe,
    kernel: Kernel | None = None,
    complete: Callable[[Path], None] | None = None,
    timeout: float = 900,
) -> tuple[Path, bool]:
    """Path of the image, and whether it had to be built. `timeout` in seconds. The log stays beside the image.

    `complete` gets the path of the draft, after the recipe's last step and before anything is put in its place.
    """
    target = image_path(cache, made, kernel.program if kernel else None)
    if target.exists():
        return target, False
    with _workplace(cache) as work:
        if target.exists():  # another process was faster
            return target, False
        _write_extras(work / "extras.tar", made, kernel)
        draft = work / f"image{made.suffix}"
        _bootstrap(_command(made, work / "extras.tar"), draft, kernel, target.with_suffix(".log"), timeout)
        if complete is not None:
            complete(draft)
        for suffix in (*made.beside, made.suffix):  # the image itself last: where it is, all is there
            draft.with_suffix(suffix).chmod(0o444)
            draft.with_suffix(suffix).rename(target.with_suffix(suffix))
        _prune(cache, made)
    return target, True


def _bootstrap(argv: list[str], draft: Path, kernel: Kernel | None, log: Path, timeout: float) -> None:
    environment = {
        "PATH": programs.SEARCH_PATH,
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(draft.parent),
        "RELEASE": kernel.modules.name if kernel else "",
        "IMAGE": str(draft),
        "SIZE": recipe.SIZE,
        "INITRD": "No",  # a kernel package would make one that nobody uses
    }
    with open(log, "wb") as out:
        done = subprocess.run(
            argv,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=timeout,
            check=False,
            preexec_fn=die_with_parent,
        )
    if done.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        raise StepFailed("mmdebstrap", f"exit code {done.returncode}, see {log}: " + " | ".join(tail))


def _prune(cache: Path, made: Recipe) -> None:
    """Keep the newest images only; nodes that run keep theirs open."""
    images = sorted(cache.glob(f"{made.kind}-*{made.suffix}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in images[KEPT:]:
        for path in cache.glob(f"{old.stem}.*"):
            path.unlink(missing_ok=True)
