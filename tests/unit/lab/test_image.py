# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which image belongs to which recipe, and how mmdebstrap is asked for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from plugins.module_utils.lab import image, recipe
from plugins.module_utils.lab.recipe_board import BOARD_IMAGE
from plugins.module_utils.lab.recipe_qemu import QEMU

ALL = (recipe.UML, QEMU, BOARD_IMAGE)


def test_each_kind_has_its_own_kind_of_file(tmp_path: Path) -> None:
    paths = [image.image_path(tmp_path, made) for made in ALL]
    assert [path.name.split("-")[0] for path in paths] == ["uml", "qemu", "board"]
    assert [path.suffix for path in paths] == [".ext4", ".ext4", ".img"]


def test_whatever_decides_the_content_gives_another_image(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "packages": (),
        "files": {},
        "finish": "true",
        "options": ("--arch=arm64",),
        "sources": ("deb …",),
    }
    others = {image.image_path(tmp_path, BOARD_IMAGE._replace(**{key: value})) for key, value in changes.items()}
    assert len(others | {image.image_path(tmp_path, BOARD_IMAGE)}) == len(changes) + 1


def test_no_program_of_the_board_runs_while_its_image_is_built() -> None:
    words = image._command(BOARD_IMAGE, Path("extras.tar"))
    assert words.index("--variant=extract") > words.index("--variant=essential")  # mmdebstrap takes the last
    assert "chroot" not in BOARD_IMAGE.finish
    assert not any(word.startswith("--customize-hook") for word in words)  # which needs a shell in there
    assert words[-2:] == ["-", *BOARD_IMAGE.sources]


def test_only_the_newest_images_of_a_kind_stay(tmp_path: Path) -> None:
    names = [f"board-bookworm-{number}" for number in range(image.KEPT + 2)]
    for age, name in enumerate([*names, "qemu-bookworm-1"]):
        for suffix in (".img" if name.startswith("board") else ".ext4", ".log"):
            (tmp_path / f"{name}{suffix}").touch()
            os.utime(tmp_path / f"{name}{suffix}", (age, age))
    image._prune(tmp_path, BOARD_IMAGE)
    assert {path.stem for path in tmp_path.iterdir()} == {*names[2:], "qemu-bookworm-1"}
