# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module call that changes nothing against ansible.builtin.ping, on this machine over a local connection.

One playbook alternates the two; a callback writes down what each task took on the controller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from .rows import Row
from .trees import INTERFACE

PAIRS = 20
GOAL = 1.4
HERE = Path(__file__).resolve().parent

ASKED = f"""
      impair.testbed.impairment:
        interfaces: [{{name: {INTERFACE}, rate: 100mbit}}]
        management: []
"""
PLAYBOOK = f"""
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: first
{ASKED}
"""


def playbook() -> str:
    """The first call makes the impairment and fills the cache of capabilities; then pairs."""
    text = PLAYBOOK
    for _pair in range(PAIRS + 1):
        text += f"    - name: ping\n      ansible.builtin.ping:\n    - name: impairment\n{ASKED}"
    return text


def run_inside() -> dict[str, list[float]]:
    """Seconds of each task, by name; in a namespace of this process alone."""
    from . import place

    place.enter()
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        path, times = Path(folder) / "calls.yml", Path(folder) / "times.json"
        path.write_text(playbook(), encoding="utf-8")
        own = {"ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"), "ANSIBLE_CALLBACKS_ENABLED": "task_times"}
        words = ["ansible-playbook", "-i", "localhost,", str(path)]
        subprocess.run(words, env={**os.environ, **own, "TASK_TIMES": str(times)}, check=True, stdout=sys.stderr)
        return dict(json.loads(times.read_text(encoding="utf-8")))


def rows() -> Iterator[Row]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.calls"], capture_output=True, text=True, check=False)
    if done.returncode:
        yield Row("module call without a change, against ping", f"cannot: {done.stderr[-200:]}", "", GOAL)
        return
    taken = json.loads(done.stdout)
    ours, ping = (median(taken[name][1:]) for name in ("impairment", "ping"))
    yield Row("module call without a change, against ping", ours, ping, GOAL)


if __name__ == "__main__":
    print(json.dumps(run_inside()))
