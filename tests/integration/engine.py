# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tc engine at work in a network namespace of the test's own process, beside tc that makes and judges the same."""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.bpf import files
from plugins.module_utils.converge import Report
from plugins.module_utils.memory import Memory
from plugins.module_utils.netlink import RTM_DELQDISC, Socket, tc_message
from plugins.module_utils.tc import observe
from plugins.module_utils.tc.domain import TcDomain
from plugins.module_utils.tc.kinds import bpf as classifier
from plugins.module_utils.tc.model import INGRESS, ROOT, Tree
from plugins.modules import tc as module
from tests.integration.places import Netns, run
from tests.oracle import tc as oracle

_numbers = itertools.count()
CLONE_NEWNET = 0x40000000  # linux/sched.h


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


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Close the maps and programs of BPF that runs of the engine opened in the block and hold: a namespace's take
    8.5 MB."""
    before = _bpf_descriptors()
    try:
        yield
    finally:
        for held in (files._held, classifier._held):
            held.clear()
        for number in _bpf_descriptors() - before:
            os.close(number)


def _bpf_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{name}").startswith("anon_inode:bpf"):
                found.add(int(name))
    return found


class Bench:
    """One interface under test: the engine on one side, tc on the other."""

    def __init__(self, place: Netns, prompt: Prompt, device: str, folder: Path) -> None:
        self.place, self.prompt, self.device, self.folder = place, prompt, device, folder
        with inside(place):
            self.index = socket.if_nametoindex(device)

    def run(
        self,
        tree: oracle.Tree | None = None,
        state: str = "present",
        purge: bool = False,
        check: bool = False,
        disruptive: str = "allow",
    ) -> Report:
        """What the module tc does, in this process and with a memory of the test's own."""
        tree = tree or oracle.NOTHING
        module.TcDomain = partial(TcDomain, memory=Memory(self.folder))  # type: ignore[misc,assignment]
        with inside(self.place):
            return module.run(
                self.device,
                tree["qdiscs"],
                tree.get("classes", []),
                tree.get("filters", []),
                state,
                purge,
                disruptive,
                check,
            )

    def observed(self) -> Tree:
        with inside(self.place), Socket() as rtnetlink:
            return observe.decode(observe.read(rtnetlink, self.index))

    def tc(self, lines: Sequence[str]) -> None:
        """Run lines of `tc -batch`."""
        self.typed(f"tc -batch - <<END\n{_lines(lines)}END\n")

    def shell(self, lines: Sequence[str], device: str) -> None:
        """Type step lines of another interface into a shell, for this one."""
        self.typed(_lines(lines).replace(f" {device} ", f" {self.device} "))

    def typed(self, text: str) -> str:
        """What a shell in the namespace prints; it stops at the first command that fails."""
        return self.prompt.run(text)

    def make(self, tree: oracle.Tree) -> None:
        """Make the tree by tc."""
        self.tc(oracle.commands(self.device, tree))

    def clear(self) -> None:
        """Take the root and what stands at ingress away, if there are such."""
        with inside(self.place), Socket() as rtnetlink:
            for parent in (ROOT, INGRESS):
                rtnetlink.send([tc_message(RTM_DELQDISC, 0, self.index, 0, parent)])

    def state(self) -> list[tuple[Any, ...]]:
        with inside(self.place):
            return oracle.state(self.index)

    def show(self, parents: Sequence[str] = ()) -> list[str]:
        """As tc shows it."""
        lines = _lines(oracle.show_commands(self.device, parents))
        return oracle.normalise(self.typed(f"tc -d -batch - <<END\n{lines}END\n"), self.device)


class Prompt:
    """One shell that stays, in a namespace: programs are slow to start in a virtual machine."""

    def __init__(self, namespace_: str) -> None:
        argv = ["ip", "netns", "exec", namespace_, "sh"]
        pipe = subprocess.PIPE
        self._shell = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def run(self, text: str) -> str:
        """What the commands print; the test fails where one of them fails."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"(set -e\n{text}\n)\nrc=$?; echo; echo :done $rc\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(":done "):
                if line != ":done 0\n":
                    pytest.fail(f"{text}\n{''.join(printed)}")
                return "".join(printed)
            printed.append(line)
        raise AssertionError("the shell ended")

    def close(self) -> None:
        self._shell.communicate()


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def namespace(interfaces: int) -> Iterator[Netns]:
    """A quiet namespace (no IPv6 of its own) with so many interfaces t0, t1 … under test; their peers are p0, p1 …."""
    made = Netns(f"impair-tc-{os.getpid()}-{next(_numbers)}")
    run(["ip", "netns", "add", made.name])
    try:
        lines = ["! [ -d /proc/sys/net/ipv6 ] || sysctl -qw net.ipv6.conf.all.disable_ipv6=1", "ip link set lo up"]
        for number in range(interfaces):
            lines.append(f"ip link add t{number} type veth peer name p{number}")
            lines += [f"ip link set {end}{number} up" for end in "tp"]
        made.run(["sh", "-e"], stdin=_lines(lines))
        yield made
    finally:
        run(["ip", "netns", "delete", made.name])


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
    return bool(select.select([fileno], [], [], seconds)[0])
