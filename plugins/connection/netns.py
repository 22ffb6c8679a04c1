# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible inside a node of the virtual lab that is namespaces of this machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: netns
short_description: run tasks in a node of kind netns of the virtual lab
description:
  - Enters the namespaces of a node that P(impair.testbed.lab#role) made with C(lab_node_kind=netns), by nsenter, on the
    machine where Ansible runs.
  - What runs there sees the node's network, processes, host name, C(/etc), C(/var) and C(/run), and this machine's
    programs, homes and C(/tmp). It ends with the node.
author:
  - impair.testbed contributors (@impair-testbed)
version_added: 0.1.0
notes:
  - Tasks run as the user who brought the lab up, who is root inside the node. C(become) is not needed.
  - The environment is a fresh one, as over ssh.
options:
  run_dir:
    description: The lab's run directory.
    type: path
    required: true
    vars:
      - name: ansible_netns_run_dir
      - name: lab_run_dir
  node:
    description: The node's name.
    type: string
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_netns_node
extends_documentation_fragment:
  - ansible.builtin.connection_pipelining
"""

import os
import shlex
import subprocess
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

from ..module_utils.lab import access, control
from ..module_utils.lab.inside import command, environment

display = Display()


class Connection(ConnectionBase):
    """Each command is a process of its own; there is nothing to keep open."""

    transport = "impair.testbed.netns"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._prefix()
        self._connected = True
        return self

    def _prefix(self) -> list[str]:
        """Program and arguments before a command in the node; the node may be another process than last time."""
        node = self.get_option("node")
        folder = Path(self.get_option("run_dir"), node)
        pid = control.living(folder / access.SPACE)
        if pid is None:
            raise AnsibleConnectionFailure(
                f"{node} does not run: {folder / access.SPACE} names no living process; "
                "bring the lab up with impair.testbed.lab_up"
            )
        return command(pid)

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Exit code, standard output and standard error of a command."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        argv = [*self._prefix(), "/bin/sh", "-c", cmd]
        display.vvv(f"EXEC {shlex.join(argv)}", host=self.get_option("node"))
        done = subprocess.run(argv, input=in_data or b"", capture_output=True, check=False, env=environment())
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the node."""
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound(f"{in_path} is not there to be copied")
        argv = [*self._prefix(), "dd", "bs=64K", "status=none", f"of={out_path}"]
        with open(in_path, "rb") as source:
            done = subprocess.run(argv, stdin=source, capture_output=True, check=False, env=environment())
        if done.returncode != 0:
            raise AnsibleError(f"copy to {out_path}: {done.stderr.decode(errors='replace').strip()}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the node."""
        super().fetch_file(in_path, out_path)
        argv = [*self._prefix(), "dd", "bs=64K", "status=none", f"if={in_path}"]
        with open(out_path, "wb") as target:
            done = subprocess.run(argv, stdout=target, stderr=subprocess.PIPE, check=False, env=environment())
        if done.returncode != 0:
            raise AnsibleError(f"copy from {in_path}: {done.stderr.decode(errors='replace').strip()}")

    def close(self) -> None:
        self._connected = False

    def reset(self) -> None:
        """The next command looks for the node again."""
        self.close()
