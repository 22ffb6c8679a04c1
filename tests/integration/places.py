# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places where a test can run a command against a real kernel."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
Done = subprocess.CompletedProcess[str]
Call = Callable[..., dict[str, Any]]  # a module of ours as ansible calls it: its name, its arguments, options


def run(argv: Sequence[str], stdin: str | None = None, check: bool = True, timeout: float = 120) -> Done:
    """Run a program; where it fails and check is set, the test fails with what it said. Timeout in seconds."""
    done = subprocess.run(list(argv), input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


# Of asm-generic/socket.h: SO_NETNS_COOKIE.
COOKIE = "import socket, sys; print('%x' % int.from_bytes(socket.socket().getsockopt(1, 71, 8), sys.byteorder))"


def namespace_number() -> str:
    """The number that no other network namespace has had, of ours, as folders are called by it."""
    return run(["python3", "-c", COOKIE]).stdout.strip()


class Netns(NamedTuple):
    """A network namespace with a veth pair in it: `device` is the one under test, `peer` its other end."""

    name: str
    device: str = "veth0"
    peer: str = "veth1"

    def run(self, argv: Sequence[str], stdin: str | None = None, check: bool = True) -> Done:
        """Run a program inside the namespace."""
        return run(["ip", "netns", "exec", self.name, *argv], stdin, check)

    def number(self) -> str:
        """As namespace_number() there."""
        return self.run(["python3", "-c", COOKIE]).stdout.strip()


def caller(place: Netns, folder: Path) -> Call:
    """What runs a module inside the namespace and gives its result, with what ansible `said` beside it.

    The collection is linked into the empty folder.
    """
    link = folder / "ansible_collections" / "impair" / "testbed"
    link.parent.mkdir(parents=True)
    link.symlink_to(CHECKOUT)

    def calling(name: str, arguments: dict[str, Any], *options: str, **environment: str) -> dict[str, Any]:
        done = place.run(
            [
                *(
                    "env",
                    "ANSIBLE_NOCOLOR=1",
                    "ANSIBLE_CALLBACK_RESULT_FORMAT=json",
                    f"ANSIBLE_COLLECTIONS_PATH={folder}",
                ),
                *(f"{key}={value}" for key, value in environment.items()),
                *("ansible", "localhost"),
                *("-i", "localhost,", "-c", "local", "-e", "ansible_python_interpreter=/usr/bin/python3"),
                *("-m", f"impair.testbed.{name}", *options, *(["-a", json.dumps(arguments)] if arguments else [])),
            ],
            check=False,
        )
        printed = done.stdout
        return {"failed": "FAILED!" in printed, "said": done.stderr, **json.loads(printed[printed.index("=> ") + 3 :])}

    return calling


class Lab(NamedTuple):
    """A virtual lab of the nodes that an inventory of the project describes, under a name of its own.

    `inventory` is one more of them, whose hosts' variables say what is different; `extra` are variables for all.
    """

    name: str
    inventory: Path | None = None
    base: str = "inventories/virtual"
    extra: Sequence[str] = ()

    @property
    def run_dir(self) -> Path:
        """Where the lab keeps its sockets, keys and logs; the inventory says the same."""
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/impair.testbed-{os.getuid()}"
        return Path(runtime, "impair.testbed", self.name)

    def run(self, node: str, argv: Sequence[str], stdin: str | None = None, check: bool = True) -> Done:
        """Run a program on a node, over an ssh connection that is kept: a new one costs the node half a second."""
        kept = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={self.run_dir}/kept-%n"]
        return run(["ssh", "-F", str(self.run_dir / "ssh_config"), *kept, node, shlex.join(argv)], stdin, check)

    def playbook(self, name: str, *arguments: str, check: bool = True, timeout: float = 560) -> Done:
        """Run one of the project's playbooks on this lab."""
        argv = ["ansible-playbook", f"playbooks/{name}.yml", *self._inventory(), *arguments]
        return run(["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", *argv], None, check, timeout)

    def module(self, node: str, name: str, arguments: str = "", *options: str, check: bool = True) -> Done:
        """Run one module on a node (or a pattern of nodes); arguments are its options as YAML or JSON."""
        argv = ["ansible", node, *self._inventory(), "-m", name, *(["-a", arguments] if arguments else []), *options]
        return run(["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", *argv], None, check)

    def _inventory(self) -> list[str]:
        more = ["-i", str(self.inventory)] if self.inventory else []
        variables = [word for one in (f"lab_name={self.name}", *self.extra) for word in ("-e", one)]
        return ["-i", self.base, *more, *variables]

    def enter(self, node: str, argv: Sequence[str], stdin: str | None = None, check: bool = True) -> Done:
        """Run a program in a node that is namespaces of this machine."""
        pid = (self.run_dir / node / "nspid").read_text().strip()
        words = ["nsenter", "--target", pid, "--net", "--mount", "--uts", "--pid", "--", *argv]
        return run(words, stdin, check)
