# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of an image that one board's card is to hold: made once, kept by the hash of everything that decides it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import InvalidInput, TestbedError
from . import contents, source
from .contents import Asked
from .files import Disk, Edit, Entry
from .layout import find_root
from .progress import Progress
from .resize import SECTOR, resized
from .source import Published

VERSION = 1  # of what `_edits` does: another number, another copy
KEPT = 8  # copies in the cache
FIRST_LOGIN = "/root/.not_logged_in_yet"
NO_RESIZE = "/root/.no_rootfs_resize"  # what armbian-resize-filesystem looks for
RESIZE_UNIT = "/etc/systemd/system/basic.target.wants/armbian-resize-filesystem.service"
# Armbian logs root in on these until the first login is over
CONSOLES = tuple(f"/etc/systemd/system/{unit}.service.d/override.conf" for unit in ("getty@", "serial-getty@"))
WANTS = "/etc/systemd/system/multi-user.target.wants"


class Copy(NamedTuple):
    """An image that is ready for a card. `size` in bytes."""

    path: Path
    size: int
    recipe: str
    made: bool


def cache_directory() -> Path:
    """Where images and copies stay: ${XDG_CACHE_HOME:-~/.cache}/impair.testbed/board."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "impair.testbed" / "board"


def published(asked: Published, cache: Path, say: Progress) -> Path:
    """The image as it was published; a URL stays in the cache."""
    return source.obtain(asked, _folder(cache, "published"), say)


def _folder(cache: Path, name: str) -> Path:
    made = cache / name
    made.mkdir(mode=0o700, exist_ok=True)
    return made


def recipe_hash(sha256: str, asked: Asked, card: int) -> str:
    """Of everything that decides the copy's bytes. `card` is the card's size where the root is to fill it, else 0."""
    packages = [package.file.sha256.lower() for package in asked.packages]
    parts = [VERSION, sha256.lower(), asked._replace(packages=())._asdict(), packages, card]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def workplace(cache: Path) -> Iterator[Path]:
    """A folder under the cache's lock; what a killed run left goes first. Only its owner may look."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = cache / "work"
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def prepared(image: Path, sha256: str, asked: Asked, card: int, cache: Path, work: Path, say: Progress) -> Copy:
    """The copy for this board. `image` is held to its sha256 already; no copy exceeds the `card`, in bytes."""
    recipe = recipe_hash(sha256, asked, card if asked.root_size == "card" else 0)
    copies = _folder(cache, "copies")
    target = copies / f"{asked.hostname}-{recipe}.img"
    packages = [published(package.file, cache, say) for package in asked.packages]
    if target.exists():
        os.utime(target)
        return Copy(target, target.stat().st_size, recipe, False)
    draft = work / "image"
    size = source.unpack(image, draft, card, say)
    if size % SECTOR:
        raise TestbedError(
            f"the image is truncated: {size} bytes are no whole number of sectors; fetch src again ({image})"
        )
    root = find_root(str(draft), size)
    Disk(str(draft), root).check(repair=True)
    root = resized(draft, find_root(str(draft), size), asked, card)  # a check counts mounts from 0 again
    disk = Disk(str(draft), root)
    disk.write([*_edits(disk, asked, packages), _marker(disk, asked, recipe, sha256)], work)
    disk.check()
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())
    draft.chmod(0o400)
    draft.rename(target)
    _prune(copies)
    return Copy(target, target.stat().st_size, recipe, True)


def _marker(disk: Disk, asked: Asked, recipe: str, sha256: str) -> Edit:
    return Edit(contents.MARKER, contents.marker(recipe, sha256.lower(), asked.hostname, disk.root.uses).encode())


def _edits(disk: Disk, asked: Asked, packages: list[Path]) -> list[Edit]:
    """Every file that differs from the published image's."""
    keys = "".join(f"{key}\n" for key in asked.authorized_keys)
    entry = disk.names("/etc")["shadow"] if disk.exists("/etc/shadow") else Entry(0, 0)
    mode = stat.S_IMODE(entry.mode)
    edits = [
        Edit("/etc/hostname", f"{asked.hostname}\n".encode()),
        Edit("/etc/hosts", _bytes(contents.hosts(_text(disk, "/etc/hosts", ""), asked.hostname))),
        Edit(
            "/etc/shadow", _bytes(contents.shadow(_text(disk, "/etc/shadow"), asked.root_password)), mode, entry.group
        ),
        Edit(FIRST_LOGIN, None),
    ]
    if asked.authorized_keys:
        edits.append(Edit("/root/.ssh/authorized_keys", keys.encode(), 0o600))
    for path in CONSOLES:
        if "--autologin" in _text(disk, path, ""):
            edits.append(Edit(path, None))
    if asked.environment:
        text = _text(disk, contents.ENVIRONMENT)
        edits.append(Edit(contents.ENVIRONMENT, _bytes(contents.environment(text, asked.environment))))
    return [*edits, *_size_edits(disk, asked), *_network_edits(disk, asked, packages), *_kernel_edits(disk, asked)]


def _size_edits(disk: Disk, asked: Asked) -> list[Edit]:
    if asked.root_size != "first_boot":
        return [Edit(NO_RESIZE, b"")]
    if not disk.exists(RESIZE_UNIT):
        raise InvalidInput(
            "root_size",
            asked.root_size,
            f"the image has no {RESIZE_UNIT}, so nothing would resize it; write `card`, or a size such as 4GB",
        )
    return [Edit(NO_RESIZE, None)]


def _network_edits(disk: Disk, asked: Asked, packages: list[Path]) -> list[Edit]:
    edits = []
    known = [_package(path) for path in packages]
    if asked.interfaces:
        needed = {"ifupdown": "/usr/sbin/ifup"}
        if "bridge_ports" in asked.interfaces or "bridge-ports" in asked.interfaces:
            needed["bridge-utils"] = "/usr/sbin/brctl"
        for name, program in needed.items():
            if name not in [package for package, _architecture in known] and not _has(disk, program):
                raise InvalidInput(
                    "interfaces",
                    f"{len(asked.interfaces)} characters",
                    f"the image has no {name}; add its .deb to packages",
                )
        edits.append(Edit(contents.INTERFACES, asked.interfaces.encode()))
        edits += [Edit(path, text.encode()) for path, text in contents.managers(asked.names).items() if asked.names]
    if packages:
        architecture = _architecture(disk)
        for number, (name, built) in enumerate(known):
            if built not in ("all", architecture):
                raise InvalidInput(
                    f"packages[{number}].src",
                    asked.packages[number].file.src,
                    f"{name} is for {built}, the image for {architecture}",
                )
        edits += [
            Edit(f"{contents.HOME}/packages/{number}-{known[number][0]}.deb", path.read_bytes())
            for number, path in enumerate(packages)
        ]
        edits.append(Edit(f"{contents.HOME}/install-packages", contents.INSTALL.encode(), 0o755))
        unit = f"/etc/systemd/system/{contents.UNIT_NAME}"
        edits.append(Edit(unit, contents.UNIT.encode()))
        edits.append(Edit(f"{WANTS}/{contents.UNIT_NAME}", b"", link=unit))  # as `systemctl enable` does
    return edits


def _has(disk: Disk, program: str) -> bool:
    """In /usr/sbin or /sbin, which are one or two."""
    return any(disk.exists(path) for path in (program, program.removeprefix("/usr")))


def _package(path: Path) -> tuple[str, str]:
    """Name and architecture of a .deb."""
    done = programs.run(["dpkg-deb", "--show", "--showformat", "${Package}\t${Architecture}", str(path)])
    if done.returncode != 0:
        raise TestbedError(f"packages: {path} is no Debian package: {done.stderr.strip()}")
    name, architecture = done.stdout.split("\t")
    return name, architecture


def _architecture(disk: Disk) -> str:
    """Of the image, as its dpkg has noted about itself."""
    for paragraph in _text(disk, "/var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") == "dpkg":
            return fields.get("Architecture", "")
    raise TestbedError("packages: the image has no dpkg that could install them; leave packages out")


def _kernel_edits(disk: Disk, asked: Asked) -> list[Edit]:
    if not asked.kernel:
        return []
    found = sorted(name.removeprefix("vmlinuz-") for name in disk.names("/boot") if name.startswith("vmlinuz-"))
    if not found or not all(fits(asked.kernel, version) for version in found):
        raise InvalidInput(
            "kernel", asked.kernel, f"the image boots {' or '.join(found) or 'no vmlinuz'}; choose an image that has it"
        )
    return [Edit(contents.PIN_PATH, contents.PIN.encode())]


def fits(asked: str, version: str) -> bool:
    """Whether 4.1 is asked and 4.1.2 there, but not 4.19."""
    return version == asked or (version.startswith(asked) and not version[len(asked)].isdigit())


def _text(disk: Disk, path: str, absent: str | None = None) -> str:
    """A file of the image; one that has to be there where `absent` is None."""
    content = disk.read(path)
    if content is None:
        if absent is None:
            raise TestbedError(f"the image has no {path}; choose an image of Armbian, or of another Debian or Ubuntu")
        return absent
    return content.decode("utf-8", errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _prune(folder: Path) -> None:
    """Keep the copies that were used last."""
    copies = sorted(folder.glob("*.img"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in copies[KEPT:]:
        old.unlink()
