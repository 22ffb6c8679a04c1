# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for tests against real kernels: a throwaway network namespace, and the virtual lab."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.engine import Bench, Prompt, namespace, no_descriptors_left
from tests.integration.places import Call, Lab, Netns, caller, run

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def as_root() -> None:
    """These tests change kernel state, in places of their own; that needs root."""
    if os.geteuid() != 0:
        pytest.fail("integration tests need root: `make integration` asks sudo")


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Each run of the engine is a process of its own elsewhere, whose end closes what it held."""
    with no_descriptors_left():
        yield


@pytest.fixture
def netns() -> Iterator[Netns]:
    """A fresh namespace with a veth pair, removed afterwards with everything in it."""
    made = Netns(f"impair-{os.getpid()}-{next(_numbers)}")
    run(["ip", "netns", "add", made.name])
    try:
        made.run(["ip", "link", "set", "lo", "up"])
        made.run(["ip", "link", "add", made.device, "type", "veth", "peer", "name", made.peer])
        for device in (made.device, made.peer):
            made.run(["ip", "link", "set", device, "up"])
        yield made
    finally:
        run(["ip", "netns", "delete", made.name])


@pytest.fixture
def call(netns: Netns, tmp_path: Path) -> Call:
    """Run a module inside the namespace and return its result."""
    return caller(netns, tmp_path)


@pytest.fixture(scope="session")
def lab(as_root: None) -> Iterator[Lab]:
    """The virtual lab, freshly started; one for all tests of a run, so each test gives back what it changes."""
    made = Lab(f"test-{os.getpid()}")
    try:
        made.playbook("lab_up")
        yield made
    finally:
        made.playbook("lab_down")


@pytest.fixture(scope="module")
def place() -> Iterator[Netns]:
    with namespace(4) as made:
        yield made


@pytest.fixture(scope="module")
def prompt(place: Netns) -> Iterator[Prompt]:
    made = Prompt(place.name)
    yield made
    made.close()


@pytest.fixture
def benches(place: Netns, prompt: Prompt, tmp_path: Path) -> Iterator[list[Bench]]:
    """Four interfaces, side by side in one namespace; without any traffic control at the start."""
    made = [Bench(place, prompt, f"t{number}", tmp_path / f"memory{number}") for number in range(4)]
    yield made
    for bench in made:
        bench.clear()
