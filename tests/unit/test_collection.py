# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as somebody installs it: built, installed into an empty place, used by its full names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py"))
PLAYBOOKS = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))


class Installed:
    """An installed collection, and ansible's programs run far away from the checkout."""

    def __init__(self, place: Path) -> None:
        self.collections = place / "collections"
        self._elsewhere = place / "elsewhere"
        self._elsewhere.mkdir()

    def run(self, *argv: str) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._elsewhere),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(argv, cwd=self._elsewhere, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("collection")
    source = place / "source"
    _copy_checkout(source)
    made = Installed(place)
    made.run("ansible-galaxy", "collection", "build", "--output-path", str(place), str(source))
    tarball = next(place.glob("impair-testbed-*.tar.gz"))
    made.run("ansible-galaxy", "collection", "install", "--offline", "-p", str(made.collections), str(tarball))
    return made


def _copy_checkout(target: Path) -> None:
    """What git tracks, and what is new and not ignored: never caches or results."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)


def test_every_module_is_found_and_documented(installed: Installed) -> None:
    found = json.loads(installed.run("ansible-doc", "-t", "module", "-j", "-l", "impair.testbed"))
    assert sorted(found) == [f"impair.testbed.{name}" for name in MODULES]
    assert all(found.values()), "each has a short description"


def test_the_connection_is_found_and_documented(installed: Installed) -> None:
    found = json.loads(installed.run("ansible-doc", "-t", "connection", "-j", "impair.testbed.serial"))
    options = found["impair.testbed.serial"]["doc"]["options"]
    own = {variable["name"] for option in options.values() for variable in option.get("vars", [])}
    assert {"ansible_serial_port", "ansible_serial_timeout", "ansible_user", "ansible_pipelining"} <= own


def test_action_group_is_every_module() -> None:
    runtime = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())
    assert runtime["action_groups"]["testbed"] == MODULES


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbooks_parse_by_their_full_names(installed: Installed, playbook: str) -> None:
    inventory = installed.collections / "ansible_collections/impair/testbed/inventories/virtual"
    installed.run("ansible-playbook", "--syntax-check", "-i", str(inventory), f"impair.testbed.{playbook}")


def test_nothing_of_the_workshop_is_shipped(installed: Installed) -> None:
    shipped = {path.name for path in (installed.collections / "ansible_collections/impair/testbed").iterdir()}
    assert shipped.isdisjoint({".git", ".ci", ".ansible", "artifacts"})
    assert {"LICENSE", "README.md", "meta", "plugins", "roles", "playbooks"} <= shipped
