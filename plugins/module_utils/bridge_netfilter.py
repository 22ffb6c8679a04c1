# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain bridge netfilter: whether a bridge shows its packets to iptables and ip6tables.

The flags of each bridge (/sys/class/net/BRIDGE/bridge/nf_call_*) leave all other bridges alone, unlike the
sysctls net.bridge.bridge-nf-call-*, which are on from the moment br_netfilter is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .converge import Step
from .errors import MissingCapability, StepFailed
from .memory import Memory
from .programs import run

SYSCTLS = Path("/proc/sys/net/bridge")
FLAGS = ("nf_call_iptables", "nf_call_ip6tables")
KEY = "bridge-netfilter"


class Flag(NamedTuple):
    """A bridge's flag and its value."""

    bridge: str
    name: str
    value: int

    @property
    def file(self) -> Path:
        return Path("/sys/class/net", self.bridge, "bridge", self.name)


State = tuple[Flag, ...]


class BridgeNetfilter:
    """The flags of some bridges. The first write remembers what they were."""

    name = "bridge netfilter"

    def __init__(self, bridges: Sequence[str], memory: Memory | None = None) -> None:
        self._memory = memory or Memory()
        remembered = [Flag(*flag) for flag in self._memory.recall(KEY) or []]
        self._before = {(flag.bridge, flag.name): flag.value for flag in remembered}
        self._bridges = sorted({*bridges, *(flag.bridge for flag in remembered)})

    def desired(self, seen: Sequence[str]) -> State:
        """The bridges in `seen` show their packets; the others are as they were before us."""
        return tuple(
            flag._replace(value=1 if flag.bridge in seen else self._before.get((flag.bridge, flag.name), flag.value))
            for flag in self.observe()
        )

    def observe(self) -> State:
        flags = [Flag(bridge, name, 0) for bridge in self._bridges for name in FLAGS]
        return tuple(flag._replace(value=int(flag.file.read_text("ascii"))) for flag in flags if flag.file.exists())

    def plan(self, current: State, desired: State) -> list[Step]:
        return [
            Step(f"echo {flag.value} > {flag.file}", flag, retire=not flag.value)
            for flag in desired
            if flag not in current
        ]

    def apply(self, steps: Sequence[Step]) -> None:
        self._memory.remember(KEY, self.observe())
        for step in steps:
            try:
                step.payload.file.write_text(f"{step.payload.value}\n", encoding="ascii")
            except OSError as error:
                raise StepFailed(step.command, str(error)) from None

    def describe(self, state: State) -> list[str]:
        return [f"{flag.file}: {flag.value}" for flag in state]


def loaded() -> bool:
    """Whether the kernel has br_netfilter now."""
    return SYSCTLS.is_dir()


def load() -> None:
    """Load br_netfilter without showing any bridge's packets to iptables yet."""
    if loaded():
        return
    answer = run(["modprobe", "br_netfilter"])
    if answer.returncode or not loaded():
        raise MissingCapability(
            "counting bridged packets in iptables", "CONFIG_BRIDGE_NETFILTER", answer.stderr.strip()
        )
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"):
        (SYSCTLS / name).write_text("0\n", encoding="ascii")
