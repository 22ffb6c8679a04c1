# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine that carries the lab must have: programs, and for TAP links the tun device."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .. import programs
from ..errors import InvalidInput, MissingCapability
from .kinds.qemu import has_sriov, sriov_machine
from .kinds.table import DRIVERS, LIVE
from .kinds.uml import kernel_path
from .model import IGB, Node, Topology

COMMON = {"ip": "iproute2"}
SSH = {"socat": "socat", "ssh-keygen": "openssh-client"}
TUN = "/dev/net/tun"


def missing_packages(topology: Topology, cache: Path) -> list[str]:
    """Debian packages that bring the programs this lab needs and the host lacks."""
    needed = dict(COMMON)
    kinds = {node.kind for node in topology.nodes}
    for kind in kinds:
        needed |= DRIVERS[kind].programs
    if kinds - LIVE:
        needed |= SSH
    if os.geteuid() != 0:
        needed["newuidmap"] = "uidmap"
    return sorted({package for program, package in needed.items() if programs.find(program) is None})


def check(topology: Topology, cache: Path) -> None:
    """Raise MissingCapability where the lab could not start, with the remedy."""
    packages = missing_packages(topology, cache)
    if packages:
        raise MissingCapability("the lab", f"packages {', '.join(packages)}", f"apt-get install {' '.join(packages)}")
    for node in topology.nodes:
        kernel = kernel_path(node, cache)
        if node.kernel and not os.access(kernel, os.X_OK):
            raise MissingCapability(f"{node.name}.lab_node_kernel", f"the kernel {kernel}", "`make kernel` builds one")
        if has_sriov(node):
            _check_sriov(node, cache)
    own_kernel = {node.name for node in topology.nodes if node.kind not in LIVE}
    tapped = [link for link in topology.links if link.kind in ("tap", "bridge")]
    taps = [link for link in tapped if own_kernel & {end.node for end in link.ends}]
    if taps and not os.access(TUN, os.R_OK | os.W_OK):
        raise MissingCapability(
            f"link {taps[0].name} ({taps[0].kind})",
            f"read and write access to {TUN}",
            "run as root, or use links of kind socket",
        )


def _check_sriov(node: Node, cache: Path) -> None:
    """QEMU has a card with SR-IOV since 8.0; Debian 12 has 7.2."""
    (program, *words), environment = sriov_machine(cache)
    argv = [program, *words, "-device", f"{IGB},help"]
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, timeout=60, check=False)
    if not done.stdout.startswith(b"igb options"):  # it ends with 0 in any case
        what = f"{node.name}: an interface with `device: {IGB}`"
        raise MissingCapability(what, "QEMU 8.0 or newer", "`make qemu` fetches one, beside that of the machine")


def check_ports(topology: Topology, held: Sequence[str]) -> None:
    """Raise InvalidInput where a port of this machine cannot be given to the lab; `held` are those that it has."""
    for number, link in enumerate(topology.links):
        for place, end in enumerate(link.ends):
            if not end.port or end.port in held:
                continue
            path = f"lab_links[{number}].ends[{place}].port"
            shown = programs.run(["ip", "-j", "address", "show", "dev", end.port])
            if shown.returncode != 0:
                raise InvalidInput(path, end.port, "this machine has no such interface")
            used = [one["local"] for one in json.loads(shown.stdout)[0]["addr_info"] if one["scope"] == "global"]
            if used:
                raise InvalidInput(
                    path, end.port, f"this machine uses it, as {', '.join(used)}; a port is the lab's alone"
                )
            if os.geteuid() != 0:
                raise MissingCapability(f"port {end.port} of link {link.name}", "root", "run the lab as root")
