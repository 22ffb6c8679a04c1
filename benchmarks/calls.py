# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module call that changes nothing against ansible.builtin.ping: on this machine, and by ssh on a virtual node.

One playbook alternates the two; a callback writes down what each task took on the controller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from .rows import Row, spread
from .trees import INTERFACE

PAIRS = 20
GOAL = 1.4
HERE = Path(__file__).resolve().parent
LOCAL, NODE = "on this machine", "by ssh on a virtual node"
HEAD = {
    LOCAL: "- hosts: localhost\n  connection: local\n",
    NODE: "- hosts: master\n",
}
INTERFACES = {LOCAL: INTERFACE, NODE: "eth0"}
ASKED = """
      impair.testbed.impairment:
        interfaces: [{{name: {interface}, rate: 100mbit}}]
        management: []
"""


def playbook(where: str) -> str:
    """The first call makes the impairment and fills the cache of capabilities; then pairs."""
    asked = ASKED.format(interface=INTERFACES[where])
    pair = f"    - name: ping\n      ansible.builtin.ping:\n    - name: impairment\n{asked}"
    return f"{HEAD[where]}  gather_facts: false\n  tasks:\n    - name: first\n{asked}{pair * (PAIRS + 1)}"


def timed(where: str, inventory: Sequence[str], folder: Path) -> dict[str, list[float]]:
    """Seconds of each task, by name."""
    path, times = folder / "calls.yml", folder / "times.json"
    path.write_text(playbook(where), encoding="utf-8")
    own = {"ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"), "ANSIBLE_CALLBACKS_ENABLED": "task_times"}
    words = ["ansible-playbook", *inventory, str(path)]
    subprocess.run(words, env={**os.environ, **own, "TASK_TIMES": str(times)}, check=True, stdout=sys.stderr)
    return dict(json.loads(times.read_text(encoding="utf-8")))


def here() -> dict[str, list[float]]:
    """In a namespace of this process alone."""
    from . import place

    place.enter()
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        return timed(LOCAL, ["-i", "localhost,"], Path(folder))


def there() -> dict[str, list[float]]:
    """In a lab of its own, which goes with it."""
    inventory = ["-i", "inventories/virtual", "-e", f"lab_name=bench-{os.getpid()}"]
    try:
        subprocess.run(["ansible-playbook", "playbooks/lab_up.yml", *inventory], check=True, stdout=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            return timed(NODE, inventory, Path(folder))
    finally:
        subprocess.run(["ansible-playbook", "playbooks/lab_down.yml", *inventory], check=False, stdout=sys.stderr)


WAYS = {LOCAL: here, NODE: there}


def rows() -> Iterator[Row]:
    for where in WAYS:
        name = f"module call without a change, against ping, {where}"
        words = [sys.executable, "-m", "benchmarks.calls", where]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            yield Row(name, f"cannot: {done.stderr[-200:]}", "", GOAL)
            continue
        taken = json.loads(done.stdout)
        ours, ping = (taken[task][1:] for task in ("impairment", "ping"))
        yield Row(name, median(ours), median(ping), GOAL, spread(ours, ping))


if __name__ == "__main__":
    print(json.dumps(WAYS[sys.argv[1]]()))
