# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes in the kernel: loaded and attached for the length of a `with` block, and what their maps say then."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .. import guard
from ..bpf import asked, program, syscall
from ..bpf.elf import read
from ..bpf.own import OwnDomain
from ..converge import Target, converge
from ..errors import InvalidInput
from ..netlink import Socket
from . import histogram, limits
from .histogram import Histogram

FILE = "observe.o"
REQUESTS, RETRANSMISSIONS, CALLS = "requests", "retransmissions", "syscalls"
ENDS = {"leaving": "egress", "arriving": "ingress"}  # programs at the interface
# Raw tracepoints (include/trace/events/tcp.h, syscalls.h).
TRACEPOINTS = {
    RETRANSMISSIONS: {"retransmitted": "tcp_retransmit_skb"},
    CALLS: {"left": "sys_exit", "entered": "sys_enter"},
}
NUMBERS = struct.Struct("=4Q")  # what struct service has behind its histogram
KEY = struct.Struct("=I")


class Service(NamedTuple):
    """What was seen of a port; bytes are those of the streams, `again` segments that left a second time.

    `retransmitted`: segments that the kernel said it sends again.
    """

    latency: Histogram
    bytes_out: int
    bytes_in: int
    again: int
    retransmitted: int


class Seen(NamedTuple):
    """By port, by the number of the system call, and by program: how often it ran, and for how many ns."""

    services: dict[int, Service]
    calls: dict[int, Histogram]
    cost: dict[str, tuple[int, int]]


class Probes:
    """Probes that stand; `attach` makes them."""

    def __init__(self, maps: dict[str, int]) -> None:
        self._maps = maps  # descriptors
        self._programs: dict[str, int] = {}
        self._size = syscall.map_info(maps["services"]).value_size

    def choose(self, process: int) -> None:
        """System calls of this process are to be seen, too; it is numbered as we see it."""
        syscall.update(self._maps["processes"], KEY.pack(process), KEY.pack(1))

    def seen(self) -> Seen:
        """What the maps hold by now."""
        services = syscall.items(self._maps["services"], KEY.size, self._size)
        calls = syscall.items(self._maps["calls"], KEY.size, histogram.LAYOUT.size)
        noted = {KEY.unpack(key)[0]: histogram.decode(value) for key, value in calls.items()}
        return Seen(
            {KEY.unpack(key)[0]: _service(value) for key, value in sorted(services.items())},
            {call: one for call, one in noted.items() if one.count},
            {name: syscall.runs(descriptor) for name, descriptor in self._programs.items()},
        )

    def add(self, name: str, descriptor: int) -> None:
        """A program whose runs `seen` is to tell."""
        self._programs[name] = descriptor


@contextlib.contextmanager
def attach(code: bytes, hooks: Sequence[str], interface: str, wanted: limits.Limits) -> Iterator[Probes]:
    """Probes for the length of the block. `code`: the object file; `interface`: where the requests pass.

    Raises InvalidInput, MissingCapability with what the kernel lacks, StepFailed.
    """
    tracing = [hook for hook in TRACEPOINTS if hook in hooks]
    places = limits.members(f"to observe {' and '.join(tracing)}") if tracing else limits.no_places()
    with contextlib.ExitStack() as stack:
        maps = {}
        for one in read(code, FILE).maps:
            maps[one.name] = program.create(one)
            stack.callback(os.close, maps[one.name])
        syscall.update(maps["limits"], KEY.pack(0), limits.pack(wanted, places))
        for port in wanted.ports:
            size = syscall.map_info(maps["services"]).value_size
            syscall.update(maps["services"], KEY.pack(port), bytes(size))
        probes = Probes(maps)
        stack.callback(os.close, syscall.count_runs())
        for hook in tracing:
            for name, tracepoint in TRACEPOINTS[hook].items():
                loaded = program.load(code, _section(name), maps, FILE, kind=syscall.RAW_TRACEPOINT).descriptor
                stack.callback(os.close, loaded)
                probes.add(name, loaded)
                stack.callback(os.close, syscall.attach_raw(tracepoint, loaded))
        if REQUESTS in hooks:
            _at_interface(stack, probes, code, interface, maps)
        yield probes


def _section(name: str) -> str:
    """Of a tracepoint's program: where the kernel tells of failures, too, one that leaves them out."""
    or_not = name == "retransmitted" and limits.tells_failures()
    return f"raw_tp/{name}_or_not" if or_not else f"raw_tp/{name}"


def _at_interface(
    stack: contextlib.ExitStack, probes: Probes, code: bytes, interface: str, maps: dict[str, int]
) -> None:
    """The programs that see packets."""
    if not interface:
        raise InvalidInput("interface", interface, "say where the requests leave the node")
    for name, end in ENDS.items():
        words = {"name": _name(name), "interface": interface, "attach": end, "section": f"tc/{name}", "priority": 1}
        one = asked.parse(words, code, FILE)
        detach(interface, name)  # what a run left that was killed: it has other maps
        stack.callback(detach, interface, name)
        with guard.alone(), Socket() as rtnetlink:
            domain = OwnDomain(rtnetlink, interface, _name(name))
            domain.claim(one)
            converge([Target(domain, domain.prepare(one, maps))], False)
            probes.add(name, domain.descriptor(one))


def detach(interface: str, program_name: str) -> None:
    """Take one of the programs of ENDS from an interface, if it is there; a run that was killed may have left it."""
    with guard.alone(), Socket() as rtnetlink:
        domain = OwnDomain(rtnetlink, interface, _name(program_name))
        converge([Target(domain, domain.absent())], False)
        domain.forget()


def _name(program_name: str) -> str:
    return f"probes-{program_name}"


def _service(value: bytes) -> Service:
    return Service(histogram.decode(value), *NUMBERS.unpack_from(value, histogram.LAYOUT.size))


def together(seen: Sequence[Seen]) -> Seen:
    """What was seen in several rounds, as one."""
    ports = sorted({port for one in seen for port in one.services})
    numbers = sorted({number for one in seen for number in one.calls})
    programs = dict.fromkeys(name for one in seen for name in one.cost)
    return Seen(
        {port: _sum([one.services[port] for one in seen if port in one.services]) for port in ports},
        {number: histogram.add([one.calls[number] for one in seen if number in one.calls]) for number in numbers},
        {name: _cost([one.cost.get(name, (0, 0)) for one in seen]) for name in programs},
    )


def _sum(services: Sequence[Service]) -> Service:
    latency = histogram.add([one.latency for one in services])
    return Service(latency, *(sum(column) for column in zip(*(one[1:] for one in services))))


def _cost(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(count for count, _spent in pairs), sum(spent for _count, spent in pairs)
