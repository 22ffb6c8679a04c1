# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fifty namespaces around a router: how long that takes, and what is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.integration.labs import entered, held, host, processes, wait_for, workers
from tests.integration.places import CHECKOUT, Lab, run

pytestmark = pytest.mark.testbed
LEAVES = 49
# Each other leaf is asked once, all at the same time: the Nth (from 1) is 10.0.N-1.N+1.
ASK = f"""for n in $(seq 2 {LEAVES}); do
    ping -q -c 3 -i 0.3 -W 10 10.0.$((n - 1)).$((n + 1)) >/dev/null && echo $n &
done; wait"""


def playbook(lab: Lab, name: str) -> float:
    """Seconds that it took on two processors."""
    argv = ["ansible-playbook", f"playbooks/{name}.yml", "-i", lab.base, "-e", f"lab_name={lab.name}"]
    started = time.monotonic()
    run(["env", "-C", str(CHECKOUT), "taskset", "-c", "0,1", *argv])
    return time.monotonic() - started


def check_nothing_is_left(lab: Lab, spaces: set[str], before: dict[str, Any]) -> None:
    """No process, no folder, no namespace, and with those nothing that was in them; the host as it was."""
    wait_for(lambda: not processes(lab))
    assert not lab.run_dir.exists()
    wait_for(lambda: spaces.isdisjoint(entered()))
    assert host() == before


@pytest.mark.alone
def test_fifty_nodes_come_and_go_in_time_and_leave_nothing() -> None:
    """The bounds are the promises, and here it takes a third; where ansible alone takes long, they grow with that."""
    lab = Lab(f"startest-{os.getpid()}", base="inventories/star")
    before = host()
    nothing = playbook(lab, "lab_down")
    with contextlib.ExitStack() as stack:
        try:
            took = playbook(lab, "lab_up")
            spaces = stack.enter_context(held(lab))
            answered = lab.enter("n01", ["sh", "-c", ASK]).stdout.split()
        finally:
            gone = playbook(lab, "lab_down")
        check_nothing_is_left(lab, spaces, before)
    print(f"fifty nodes: up in {took:.1f} s, down in {gone:.1f} s, and where nothing is {nothing:.1f} s")
    assert len(answered) == LEAVES - 1
    assert len([space for space in spaces if space.startswith("net:")]) == 51  # one is the lab's own
    assert took <= max(20, 6 * nothing)
    assert gone <= max(10, 3 * nothing)


@pytest.mark.parametrize("stage", ["n10/nspid", "n10/settled"])
def test_nothing_is_left_after_kill_9_at_any_stage(stage: str) -> None:
    """lab_up is killed hard as soon as a stage's first trace is there; lab_up completes what it left; lab_down."""
    lab = Lab(f"startest-{os.getpid()}k", base="inventories/star")
    before = host()
    argv = ["ansible-playbook", "playbooks/lab_up.yml", "-i", lab.base, "-e", f"lab_name={lab.name}"]
    started = subprocess.Popen(
        argv, cwd=CHECKOUT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for((lab.run_dir / stage).exists, 100)
    finally:
        for pid in [started.pid, *workers(lab)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        started.wait()
    with contextlib.ExitStack() as stack:
        try:
            if stage == "n10/settled":
                playbook(lab, "lab_up")
                assert len(lab.enter("n01", ["sh", "-c", ASK]).stdout.split()) == LEAVES - 1
        finally:
            spaces = stack.enter_context(held(lab))
            playbook(lab, "lab_down")
        check_nothing_is_left(lab, spaces, before)
