# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is asked to a card that holds it: look at the card, prepare the copy, compare, and write what differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import programs
from ..errors import InvalidInput, MissingCapability, TestbedError
from ..units import parse_capacity
from . import card, contents, prepare, source, target
from .files import Disk
from .layout import find_any_root
from .prepare import Copy
from .progress import Progress, size_text
from .source import Published
from .target import Bounds, Target

NEEDED = {
    "sfdisk": "fdisk",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "dd": "coreutils",
    "cmp": "diffutils",
}


class Held(NamedTuple):
    """What a card holds."""

    words: str
    booted: str = ""  # the name of the board that has run from it since


def manage(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Have the target hold the image; returns the module's result. In check mode the target is only read.

    Raises TestbedError, with nothing written to the target unless the message says that it is not whole.
    """
    try:
        return _manage(params, check)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise TestbedError(f"{error.strerror or error}{place}; remedy that and run this again") from error


def _manage(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    asked = contents.parse(params)
    image = Published("src", params["src"], params["sha256"])
    for file in (image, *(package.file for package in asked.packages)):
        source.check(file)
    if bool(params["signature"]) != bool(params["keyring"]):
        raise InvalidInput("signature", params["signature"], "signature and keyring go together: give both, or none")
    for program, package in NEEDED.items():
        if not programs.find(program):
            raise MissingCapability("preparing an image", f"the program {program}", f"install the package {package}")
    cache = _cache(params["cache_dir"])
    say = Progress(params["progress"] or "")
    goal = target.look(params["target"], Bounds(_capacity(params, "card_min"), _capacity(params, "card_max")))
    with prepare.workplace(cache) as work:
        path = prepare.published(image, cache, say)
        if params["signature"]:
            source.verify(path, params["signature"], params["keyring"], work, say)
        copy = prepare.prepared(path, image.sha256, asked, goal.size, cache, work, say)
    if copy.size > goal.size:
        raise InvalidInput(
            "target", goal.path, f"it has {goal.size} bytes, and the image {copy.size}; take a larger card"
        )
    return _flash(goal, copy, bool(params["force"]), check, say)


def _cache(path: str | None) -> Path:
    cache = Path(path) if path else prepare.cache_directory()
    if not str(cache).isprintable() or set('?"') & set(str(cache)):
        raise InvalidInput(
            "cache_dir", str(cache), "debugfs cannot take a path with ? or quotes in it; choose another folder"
        )
    return cache


def _capacity(params: Mapping[str, Any], name: str) -> int:
    try:
        return parse_capacity(params[name])
    except ValueError as error:
        raise InvalidInput(name, params[name], str(error)) from error


def _flash(goal: Target, copy: Copy, force: bool, check: bool, say: Progress) -> dict[str, Any]:
    descriptor = target.claim(goal)
    with open(descriptor, "rb", closefd=True, buffering=0):
        if card.same(descriptor, copy.path, copy.size, say):
            shown = [f"{goal}: {_own(copy)}"]
            return _result(False, shown, shown, [], copy)
        held = _held(descriptor, goal)
        before = [f"{goal}: {held.words}"]
        if held.booted and not force:
            raise TestbedError(
                f"target {goal.path}: {held.words}; what {held.booted} has kept there would be lost: "
                "take another card, or set force: true (board_image_force)"
            )
        steps = [card.command(goal, copy.path, copy.size), f"cmp -n {copy.size} {copy.path} {goal.path}"]
        if check:
            return _result(True, before, before, steps, copy)
        card.write(descriptor, goal, copy.path, copy.size, say)
        return _result(True, before, [f"{goal}: {_own(copy)}"], steps, copy)


def _own(copy: Copy) -> str:
    return f"{copy.path.stem}, {size_text(copy.size)}, byte for byte"


def _held(descriptor: int, goal: Target) -> Held:
    if card.not_whole(descriptor):
        return Held("not whole: a write was interrupted")
    root = find_any_root(goal.real)
    if root is None:
        return Held("no image of a board")
    found = contents.parse_marker(Disk(goal.real, root).read(contents.MARKER))
    if found is None:
        return Held(f"an ext4 file system {root.label!r} that was not made here")
    name = str(found.get("hostname"))
    if found["uses"] != root.uses:
        return Held(f"{name}-{found['recipe']}, which has booted since it was written", name)
    return Held(f"{name}-{found['recipe']}, never booted, and other bytes than are asked")


def _result(changed: bool, before: list[str], after: list[str], steps: list[str], copy: Copy) -> dict[str, Any]:
    return {
        "changed": changed,
        "before": before,
        "after": after,
        "steps": steps,
        "image": str(copy.path),
        "recipe": copy.recipe,
    }
