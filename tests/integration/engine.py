# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tc engine at work in a network namespace of the test's own process, beside tc that makes and judges the same."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from plugins.module_utils.converge import Report
from plugins.module_utils.memory import Memory
from plugins.module_utils.netlink import Socket
from plugins.module_utils.tc import observe
from plugins.module_utils.tc.domain import TcDomain
from plugins.module_utils.tc.model import Tree
from plugins.modules import tc as module
from tests.integration.places import Netns
from tests.oracle import tc as oracle

CLONE_NEWNET = 0x40000000  # linux/sched.h
EMPTY: oracle.Tree = {"qdiscs": [], "classes": [], "filters": []}


@contextmanager
def inside(place: Netns) -> Iterator[None]:
    """Run the block in the namespace; sockets that it opens stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{place.name}", os.O_RDONLY)
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(there)
        os.close(home)


class Bench:
    """One interface under test: the engine on one side, tc on the other."""

    def __init__(self, place: Netns, device: str, folder: Path) -> None:
        self.place, self.device, self.memory = place, device, Memory(folder)
        with inside(place):
            self.index = socket.if_nametoindex(device)

    def run(
        self, tree: oracle.Tree = EMPTY, state: str = "present", purge: bool = False, check: bool = False
    ) -> Report:
        """What the module tc does, in this process and with a memory of the test's own."""
        module.TcDomain = partial(TcDomain, memory=self.memory)  # type: ignore[misc,assignment]
        with inside(self.place):
            return module.run(
                self.device,
                tree["qdiscs"],
                tree.get("classes", []),
                tree.get("filters", []),
                state,
                purge,
                check,
            )

    def observed(self) -> Tree:
        with inside(self.place), Socket() as rtnetlink:
            return observe.decode(observe.read(rtnetlink, self.index))

    def tc(self, lines: Sequence[str]) -> None:
        """Run lines of `tc -batch`."""
        self.place.run(["tc", "-batch", "-"], stdin="\n".join(lines) + "\n")

    def shell(self, lines: Sequence[str], device: str) -> None:
        """Type step lines of another interface into a shell, for this one."""
        typed = "".join(f"{line}\n" for line in lines).replace(f" {device} ", f" {self.device} ")
        self.place.run(["sh", "-e"], stdin=typed)

    def make(self, tree: oracle.Tree) -> None:
        """Make the tree by tc."""
        self.tc(oracle.commands(self.device, tree))

    def clear(self) -> None:
        self.place.run(["tc", "qdisc", "del", "dev", self.device, "root"], check=False)

    def state(self) -> list[tuple[Any, ...]]:
        with inside(self.place):
            return oracle.state(self.index)

    def show(self, parents: Sequence[str] = ()) -> dict[str, list[str]]:
        return oracle.show(lambda argv: self.place.run(argv).stdout, self.device, parents)


@contextmanager
def watched(place: Netns) -> Iterator[Callable[[], list[str]]]:
    """Watch the namespace by `tc monitor`; the function gives the lines that the monitor printed so far.

    Marks on the loopback interface tell when the monitor listens, and when it has seen everything.
    """
    argv = ["ip", "netns", "exec", place.name, "stdbuf", "-oL", "tc", "monitor"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        stream = monitor.stdout
        os.set_blocking(stream.fileno(), True)

        def until(mark: str) -> list[str]:
            lines: list[str] = []
            for line in stream:
                if f" {mark}: dev lo" in line and "deleted" not in line:
                    return [entry for entry in lines if "dev lo" not in entry]
                lines.append(line.rstrip())
            raise AssertionError("tc monitor ended")

        def mark(handle: str) -> None:
            place.run(["tc", "qdisc", "add", "dev", "lo", "root", "handle", f"{handle}:", "pfifo"])
            place.run(["tc", "qdisc", "del", "dev", "lo", "root"])

        def seen() -> list[str]:
            mark("a2")
            return until("a2")

        try:
            while not _readable(stream.fileno()):
                mark("a1")
            until("a1")
            yield seen
        finally:
            monitor.terminate()


def _readable(fileno: int, seconds: float = 0.05) -> bool:
    import select

    return bool(select.select([fileno], [], [], seconds)[0])
