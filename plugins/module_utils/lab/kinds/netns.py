# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are namespaces of the host: up in an instant, at line rate, with what the host's kernel has.

Their links are plugged while they run, their addresses are given from outside, and Ansible's connection plugin
`impair.testbed.netns` enters them: there is no ssh. What a node is made of stands in space.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ... import programs
from .. import access
from ..links import Attachment
from ..model import Node
from .base import Place, Process


class Netns:
    """Network, mounts, processes and host name of its own; kernel, programs, /tmp and homes are the host's."""

    programs: Mapping[str, str] = {"unshare": "util-linux", "nsenter": "util-linux"}
    live = True

    def image(self, cache: Path) -> tuple[Path, bool]:
        return Path("/"), False

    def image_missing(self, cache: Path) -> bool:
        return False

    def image_identity(self, cache: Path) -> str:
        return ""

    def prepare(self, node: Node, place: Place) -> None:
        """A node of this kind has no files before it starts."""

    def process(self, node: Node, place: Place, management: Attachment, data: Mapping[str, Attachment]) -> Process:
        for name in (access.SPACE, access.PID, access.SETTLED):
            (place.directory / name).unlink(missing_ok=True)
        argv = (
            *(programs.find("unshare") or "unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"),
            # What is unmounted on the host goes here too: a named namespace that was deleted there is not kept by us.
            *("--propagation", "slave"),
            *(sys.executable, "-I", "-S", "space.py", node.name, "router" if node.router else "host"),
        )
        return Process(argv, {}, (), "")


def network_batch(node: Node) -> list[str]:
    """What `ip -batch` does in the node once its links are plugged; it may be done again."""
    lines = ["link set lo up"]
    for interface in node.interfaces:
        for address in interface.addresses:
            # No detection of duplicates: an address would be unusable for its first second or two.
            lines.append(f"address replace {address} dev {interface.name}" + (" nodad" if ":" in address else ""))
        lines.append(f"link set dev {interface.name} up")
    for to, via in node.all_routes:
        there = "::/0" if to == "default" and ":" in via else to  # a batch knows no -6
        lines.append(f"route replace {there} via {via}")
    return lines
