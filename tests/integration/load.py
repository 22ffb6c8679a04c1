# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to an impairment while numbered packets pass it, and what became of these packets."""

from __future__ import annotations

import re
import subprocess
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.places import CHECKOUT, Netns, run

SOURCE = CHECKOUT / "tests/oracle/load.c"
DEVICE = "t0"  # of the near end, where the impairments are
NEAR, FAR = "10.77.0.1", "10.77.0.2"
FIRST, PORTS = 5001, 5
RATES = (40_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500)  # packets per second
DELAY = 20_000  # microseconds that every class adds where the kernel has netem
TRIAL = 1.0  # seconds

Interfaces = list[dict[str, Any]]


class Flow(NamedTuple):
    """What became of the packets to one port; times on the way in microseconds."""

    port: int
    sent: int
    received: int
    reordered: int
    least: int
    most: int

    @property
    def lost(self) -> int:
        return self.sent - self.received


class Load:
    """Two namespaces, a veth pair between them, and a program that sends from the near one to the far one."""

    def __init__(self, near: Netns, far: Netns, folder: Path) -> None:
        self.near, self.far, self.program = near, far, folder / "load"
        run(["cc", "-O2", "-o", str(self.program), str(SOURCE)])

    def during(self, rate: int, what: Callable[[], object]) -> list[Flow]:
        """Send `rate` packets per second while `what` is called."""
        receiver = self._start(self.far, "receive", str(FIRST), str(PORTS))
        assert receiver.stdout is not None and receiver.stdout.readline() == "ready\n"
        sender = self._start(self.near, "send", FAR, str(FIRST), str(PORTS), str(rate))
        try:
            what()
        finally:
            sent = _numbers(sender)
            received = _numbers(receiver)
        return [Flow(*one, *other[1:]) for one, other in zip(sent, received)]

    def numbers(self, rate: int, what: Callable[[], object]) -> tuple[int, list[int]]:
        """(how many were sent to FIRST, the numbers that came) while `what` is called."""
        came = self.program.with_name("came")
        receiver = self._start(self.far, "list", str(FIRST), str(came))
        assert receiver.stdout is not None and receiver.stdout.readline() == "ready\n"
        sender = self._start(self.near, "send", FAR, str(FIRST), "1", str(rate))
        try:
            what()
        finally:
            ((_port, sent),) = _numbers(sender)
            _numbers(receiver)
        return sent, list(array("Q", came.read_bytes()))

    def holds(self) -> int:
        """Packets per second that pass as the interface is now, none lost, none reordered."""
        for rate in RATES:
            flows = self.during(rate, lambda: subprocess.run(["sleep", str(TRIAL)], check=True))
            if not any(flow.lost or flow.reordered for flow in flows):
                return rate
        pytest.fail(f"not even {RATES[-1]} packets per second pass: {flows}")

    def _start(self, place: Netns, *words: str) -> subprocess.Popen[str]:
        argv = ["ip", "netns", "exec", place.name, str(self.program), *words]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _numbers(program: subprocess.Popen[str]) -> list[list[int]]:
    program.terminate()
    printed = program.communicate(timeout=30)[0]
    assert program.returncode == 0
    return [[int(word) for word in line.split()] for line in printed.splitlines()]


@contextmanager
def ends(name: str) -> Iterator[tuple[Netns, Netns]]:
    """The near and the far namespace, connected and with addresses; nothing else is on the way."""
    near, far = Netns(f"{name}-near", DEVICE), Netns(f"{name}-far", "p0")
    made = []
    try:
        for place in (near, far):
            run(["ip", "netns", "add", place.name])
            made.append(place)
            place.run(["sh", "-c", "! [ -d /proc/sys/net/ipv6 ] || sysctl -qw net.ipv6.conf.all.disable_ipv6=1"])
        near.run(["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "p0", "netns", far.name])
        for place, own in ((near, NEAR), (far, FAR)):
            place.run(["ip", "address", "add", f"{own}/24", "dev", place.device])
            place.run(["ip", "link", "set", place.device, "up"])
        hardware = far.run(["cat", "/sys/class/net/p0/address"]).stdout.strip()
        near.run(["ip", "neighbour", "replace", FAR, "lladdr", hardware, "dev", DEVICE, "nud", "permanent"])
        yield near, far
    finally:
        for place in made:
            run(["ip", "netns", "delete", place.name])


def udp(port: int) -> dict[str, Any]:
    return {"protocol": "udp", "destination_port": port}


def hundred_changes(emulated: bool) -> Iterator[tuple[str, Interfaces]]:
    """What is asked before, and after each of 100 changes; every class delays by DELAY where `emulated`.

    Port 5001 stays in class a and 5002 in b, 5003 leaves a for a class of its own now and then, 5004 goes to and fro
    between a and b, and 5005 alone has what is left. Where a flow changes its class the delay is the same in both.
    """
    delay = {"delay": f"{DELAY}us"} if emulated else {}
    slow = {"delay": f"{2 * DELAY}us"} if emulated else {"rate": "150mbit"}
    first = {"name": "a", "match": [udp(5001), udp(5003), udp(5004)], "rate": "200mbit", **delay}
    second = {"name": "b", "match": [udp(5002)], "rate": "300mbit", **delay}
    own = {"name": "own", "match": udp(5003), "rate": "50mbit", **delay}
    rest = {"name": "rest", **delay}

    def asked(*classes: dict[str, Any]) -> Interfaces:
        return [{"name": DEVICE, "classes": list(classes)}]

    yield "the start", asked(first, second, rest)
    for turn in range(10):
        first = {**first, "rate": f"{201 + turn}mbit"}
        yield "a rate", asked(first, second, rest)
        second = {**second, "burst": f"{100 + turn}kB", "ceil": f"{400 + turn}mbit"}
        yield "burst and ceil", asked(first, second, rest)
        yield "a class added in front", asked(own, first, second, rest)
        more = {**second, "match": [udp(5002), {"protocol": "tcp", "port": 80 + turn}]}
        yield "a match added", asked(own, first, more, rest)
        yield "a larger value", asked(own, first, more, {**rest, **slow})
        less, more = {**first, "match": [udp(5001), udp(5003)]}, {**second, "match": [udp(5002), udp(5004)]}
        yield "a flow to another class", asked(own, less, more, {**rest, **slow})
        yield "another order", asked(more, own, less, {**rest, **slow})
        yield "the value as before", asked(more, own, less, rest)
        yield "a class taken away", asked(more, less, rest)
        yield "the flow back", asked(first, second, rest)


class Outcome(NamedTuple):
    """What a hundred changes did at `rate` packets per second; `astray`: packets that the wrong class took."""

    rate: int
    flows: list[Flow]
    astray: int


def hundred(emulated: bool, name: str, folder: Path) -> Outcome:
    """Change an impairment a hundred times under load, in namespaces of this name."""
    load()
    with ends(name) as places, inside(places[0]):
        try:
            found = _hundred(Load(*places, folder), hundred_changes(emulated))
        finally:
            engine.clear()
    print(f"{found.rate} packets per second: {found.flows}")
    return found


def _hundred(made: Load, changes: Iterator[tuple[str, Interfaces]]) -> Outcome:
    engine.apply(next(changes)[1], [])
    rate = made.holds()

    def change() -> None:
        for what, asked in changes:
            assert engine.apply(asked, []).report.changed, what

    before = _not_in_own_class(made.near)
    flows = made.during(rate, change)
    return Outcome(rate, flows, _not_in_own_class(made.near) - before - flows[-1].sent)


def _not_in_own_class(near: Netns) -> int:
    """Packets in the class for what passes unimpaired and in the one for the rest, by tc's counters.

    Both have no rate at the end, so tc shows the one that stands for none; so has the class around all.
    """
    shown = near.run(["tc", "-s", "class", "show", "dev", DEVICE]).stdout
    counted = re.findall(r"class htb 7e57:(\S+) .*? rate (\S+) .*\n Sent \d+ bytes (\d+) pkt", shown)
    return sum(int(packets) for handle, rate, packets in counted if rate == "80Gbit" and handle != "1")
