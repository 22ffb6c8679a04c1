# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is asked to a folder that a boot server hands out: look, plan, and do what is missing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import programs
from ..board import prepare, source
from ..board.progress import Progress, size_text
from ..errors import InvalidInput, MissingCapability, StepFailed, TestbedError
from . import image, listeners, ramdisk, texts
from .model import Asked, Board, Image, parse

MANIFEST = "state/files.json"  # the files written here, to be removed when they are no longer asked for
SERVICES = {"dnsmasq.conf": "dnsmasq", "ganesha.conf": "nfs", "exports": "nfs"}  # which one reads what


class File(NamedTuple):
    """A file below the store's folder."""

    path: str
    content: bytes
    mode: int = 0o644


class Step(NamedTuple):
    """One change, in words; what it does; and the file that it writes, if it is one."""

    words: str
    act: Callable[[], None]
    path: str = ""


def manage(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Have the folder hold all that the boards need; returns the module's result. In check mode nothing is changed.

    Raises TestbedError. What was done until then stays, and the next run goes on from there.
    """
    try:
        return _manage(parse(params), _cache(params), check)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise TestbedError(f"{error.strerror or error}{place}; remedy that and run this again") from error


def _cache(params: Mapping[str, Any]) -> Path:
    return Path(params["cache_dir"]) if params["cache_dir"] else prepare.cache_directory()


def _manage(asked: Asked, cache: Path, check: bool) -> dict[str, Any]:
    _open_to_all(asked.folder)
    listeners.check(asked)
    missing = _missing(asked)
    before = _held(asked)
    done: list[Step] = []
    for number, made in missing:
        done.append(_image_step(asked, made, number, cache, check))
    # What the boards fetch is made of the trees, so it can be planned when they are there.
    for step in _plan(asked):
        done.append(step)
        if not check:
            step.act()
    if done and not check and (left := _plan(asked)):
        raise StepFailed(left[0].words, "it reads back otherwise than it was written")
    return {
        "changed": bool(done),
        "before": before,
        "after": before if check else _held(asked),
        "steps": [step.words for step in done],
        "restart": sorted({SERVICES[step.path] for step in done if step.path in SERVICES}),
        "cards": {name: _digest(asked, name) for name in _cards(asked)},
    }


def _open_to_all(folder: Path) -> None:
    """dnsmasq reads the files that it hands out as a user of its own."""
    for place in (folder, *folder.parents):
        if place.is_dir() and not place.stat().st_mode & 0o001:
            raise InvalidInput(
                "dir", str(folder), f"{place} is closed to other users; take a folder such as /srv/netboot"
            )


def _missing(asked: Asked) -> list[tuple[int, Image]]:
    """Images without a tree. Raises InvalidInput for one that is another one by now, or that boards lack."""
    missing = []
    for number, listed in enumerate(asked.images):
        place = f"images[{number}]"
        if not _tree(asked, listed.name).is_dir():
            if listed.source is None:
                raise InvalidInput(f"{place}.src", "", f"the store has no tree {listed.name}; say what to make it from")
            source.check(listed.source._replace(place=f"{place}.src"))
            missing.append((number, listed))
        elif listed.source and (known := _known(asked, listed.name)) not in ("", listed.source.sha256.lower()):
            raise InvalidInput(
                f"{place}.sha256",
                listed.source.sha256,
                f"{listed.name} was made from {known[:16]}…; give this one another name, versions stand side by side",
            )
    have = {listed.name for listed in asked.images} | {path.name for path in _trees(asked)}
    for number, board in enumerate(asked.boards):
        if board.image not in have:
            there = ", ".join(sorted(have)) or "none"
            raise InvalidInput(
                f"boards[{number}].image", board.image, f"there is no such image; the store has: {there}"
            )
    return missing


def _tree(asked: Asked, name: str) -> Path:
    return asked.folder / "images" / name


def _trees(asked: Asked) -> list[Path]:
    folder = asked.folder / "images"
    listed = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in listed if path.is_dir() and not path.name.startswith(".")]


def _known(asked: Asked, name: str) -> str:
    """The checksum of what a tree was made from; empty for one that was put there."""
    marker = asked.folder / "state" / f"{name}.sha256"
    return marker.read_text(encoding="ascii").strip() if marker.exists() else ""


def _image_step(asked: Asked, listed: Image, number: int, cache: Path, check: bool) -> Step:
    """Fetch and judge the image, also in check mode; make its tree."""
    tree = _tree(asked, listed.name)
    with prepare.workplace(cache) as work:
        path = image.fetch(listed, f"images[{number}].src", cache, work)
        if not check:
            tree.parent.mkdir(parents=True, exist_ok=True)
            (asked.folder / "state").mkdir(exist_ok=True)
            head = image.extract(listed, path, cache, work, tree)
            (asked.folder / "cards").mkdir(exist_ok=True)
            image.write_card(head, str(asked.address.ip), asked.folder / "cards" / f"{listed.name}.img")
            known = listed.source.sha256.lower() if listed.source else ""
            (asked.folder / "state" / f"{listed.name}.sha256").write_text(f"{known}\n", encoding="ascii")
    return Step(f"make images/{listed.name} from {path}", lambda: None)


def _plan(asked: Asked) -> list[Step]:
    """What is still to do, in order: what a board finds is there before the boot server points to it."""
    files = _files(asked)
    steps = [_host_key_step(asked, board) for board in asked.boards if not _host_key(asked, board).exists()]
    for board in asked.boards:
        if board.overlay == "server" and not _changes(asked, board).exists():
            steps.append(_changes_step(asked, board))
    steps += [step for file in files if (step := _file_step(asked, file))]
    return steps + _stale_steps(asked, [file.path for file in files])


def _files(asked: Asked) -> list[File]:
    files = []
    for name in sorted({board.image for board in asked.boards}):
        if _tree(asked, name).is_dir():
            listed = next((listed for listed in asked.images if listed.name == name), None)
            dtbs = [board.dtb for board in asked.boards if board.image == name]
            made = image.boot_files(_tree(asked, name), name, listed.kernel if listed else "", dtbs, asked.drivers)
            files += [File(f"tftp/images/{name}/{file}", content) for file, content in made.items()]
    for board in asked.boards:
        own = texts.board_files(asked, board, _texts(_tree(asked, board.image)))
        files += [
            File(f"boards/{board.name}/files/{path}", text.encode(), 0o600 if path.startswith("root/") else 0o644)
            for path, text in own.items()
        ]
        files.append(File(texts.pxelinux_name(board), texts.pxelinux(asked, board).encode()))
    files.append(File("dnsmasq.conf", texts.dnsmasq(asked).encode()))
    if asked.nfs == "ganesha":
        return [*files, File("ganesha.conf", texts.ganesha(asked).encode())]
    return [*files, File("exports", texts.exports(asked).encode())]


def _texts(tree: Path) -> dict[str, str]:
    """Files of the image of which its boards have variants."""
    found = {name: ramdisk.inside(tree, name) for name in ("etc/fstab", "etc/hosts")}
    return {name: path.read_text(encoding="utf-8", errors="replace") for name, path in found.items() if path}


def _file_step(asked: Asked, file: File) -> Step | None:
    path = asked.folder / file.path
    if path.is_file() and path.read_bytes() == file.content and path.stat().st_mode & 0o7777 == file.mode:
        return None
    return Step(f"write {file.path}", lambda: _write(path, file), file.path)


def _write(path: Path, file: File) -> None:
    """At once for whoever reads it meanwhile."""
    _folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    part.touch(mode=0o600)
    part.write_bytes(file.content)
    part.chmod(file.mode)
    part.rename(path)


def _folder(path: Path) -> None:
    """A folder of a board's layer hides the mode that the image gives it."""
    if not path.is_dir():
        _folder(path.parent)
        path.mkdir()
        path.chmod(0o700 if str(path).endswith(tuple(f"/files/{name}" for name in texts.PRIVATE)) else 0o755)


def _host_key(asked: Asked, board: Board) -> Path:
    return asked.folder / "boards" / board.name / "files" / texts.HOST_KEY


def _host_key_step(asked: Asked, board: Board) -> Step:
    """A board that forgets at each boot is still known by its key."""
    path = _host_key(asked, board)

    def act() -> None:
        _folder(path.parent)
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", board.name, "-f", str(path)], "openssh-client")

    return Step(f"ssh-keygen -t ed25519 -f boards/{board.name}/files/{texts.HOST_KEY}", act)


def _changes(asked: Asked, board: Board) -> Path:
    return asked.folder / "boards" / board.name / "changes.ext4"


def _changes_step(asked: Asked, board: Board) -> Step:
    """What the board keeps: a file system in a file, as overlayfs takes no NFS for its upper layer (ovl_mount_dir)."""
    path = _changes(asked, board)
    part = path.with_suffix(".part")

    def act() -> None:
        _folder(path.parent)
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        os.truncate(part, board.overlay_size)
        _run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", board.name[:16], str(part)], "e2fsprogs")
        part.rename(path)

    return Step(f"mke2fs boards/{board.name}/changes.ext4  # {size_text(board.overlay_size)}", act)


def _run(argv: Sequence[str], package: str) -> None:
    if programs.find(argv[0]) is None:
        raise MissingCapability(f"`{argv[0]}`", f"the program {argv[0]}", f"install {package}")
    try:
        done = programs.run(argv, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise StepFailed(" ".join(argv), "it did not end within 300 s") from error
    if done.returncode != 0:
        raise StepFailed(" ".join(argv), done.stderr.strip())


def _stale_steps(asked: Asked, wanted: Sequence[str]) -> list[Step]:
    """Files written for what is no longer asked; then the note of what is there."""
    manifest = asked.folder / MANIFEST
    known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else []
    used = {board.image for board in asked.boards} | {path.name for path in _trees(asked)}
    gone = [path for path in known if path not in wanted and not _of_image(path, used)]
    steps = [_remove_step(asked.folder / path, path) for path in gone if (asked.folder / path).exists()]
    kept = sorted({*wanted, *(path for path in known if path not in gone)})
    if kept != known:
        text = json.dumps(kept, indent=0) + "\n"
        steps.append(Step(f"write {MANIFEST}", lambda: _write(manifest, File(MANIFEST, text.encode()))))
    return steps


def _remove_step(file: Path, path: str) -> Step:
    return Step(f"remove {path}", lambda: file.unlink(missing_ok=True), path)


def _of_image(path: str, names: set[str]) -> bool:
    """What boards fetch of a version that is still in the store stays, for those that go back to it."""
    parts = path.split("/")
    return parts[:2] == ["tftp", "images"] and parts[2] in names


def _cards(asked: Asked) -> list[str]:
    return sorted(path.stem for path in (asked.folder / "cards").glob("*.img"))


def _digest(asked: Asked, name: str) -> dict[str, str]:
    path = asked.folder / "cards" / f"{name}.img"
    return {"src": str(path), "sha256": source.digest(path, "", Progress())}


def _held(asked: Asked) -> list[str]:
    """What the folder has, in words."""
    shown = [f"image {path.name}" for path in _trees(asked)]
    folder = asked.folder / "tftp/pxelinux.cfg"
    for path in sorted(folder.glob("01-*")) if folder.is_dir() else []:
        line = next((line for line in path.read_text(encoding="utf-8").splitlines() if "append" in line), "")
        shown.append(f"{path.name[3:].replace('-', ':')}: {line.strip()}")
    return shown
