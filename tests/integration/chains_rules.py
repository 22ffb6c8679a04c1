# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules, good and bad, and how the tests of chains bring them into a namespace."""

from __future__ import annotations

import ctypes
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from plugins.module_utils.chains.domain import ChainsDomain
from plugins.module_utils.chains.model import Chain, ChainsState, Jump
from plugins.module_utils.chains.variants import Program, program
from plugins.module_utils.converge import Step, Target, converge
from plugins.module_utils.errors import StepFailed
from tests.integration.places import Netns, run

IPTABLES = [("iptables", "nft"), ("iptables", "legacy"), ("ip6tables", "nft"), ("ip6tables", "legacy")]
ALL = [*IPTABLES, ("ebtables", "nft")]
CHAIN = "impair-rules-FORWARD"

ORIGINAL = """
ebtables -A FORWARD -i enx8cae4cf5b7ae -j mark --set-mark 2 --mark-target CONTINUE
ebtables -A FORWARD -o enx8cae4cf5b7ae -j mark --set-mark 2 --mark-target CONTINUE
iptables -A OUTPUT -p tcp --dport 7575 -j MARK --set-mark 1
iptables -A INPUT -p tcp --sport 7575 -j MARK --set-mark 1
iptables -A FORWARD -m statistic --mode nth --every 20 --packet 0 -j MARK --set-mark 3
"""

POOL = {
    "iptables": [
        "-m statistic --mode nth --every 20 --packet 0 -j MARK --set-mark 3",
        "-m statistic --mode nth --every 7 --packet 6 -j MARK --set-mark 4",
        "-m statistic --mode random --probability 0.1 -j MARK --set-mark 9",
        "-p tcp --dport 7575 -j MARK --set-mark 1",
        "-p udp --sport 53:99 ! -i eth0 -j ACCEPT",
        '-m comment --comment "two words, a \'quote\', a \\"quote\\" and a \\\\" -j RETURN',
        "-m mark ! --mark 0x20000/0xff0000 -j CONNMARK --save-mark",
        "-m multiport -p tcp --dports 1,2,3 -j DROP",
    ],
    "ebtables": [
        "-i eth0 -j mark --set-mark 2 --mark-target CONTINUE",
        "-o eth0 -j mark --mark-or 0x20000 --mark-target CONTINUE",
        "-p ip --ip-proto tcp --ip-dport 7575 -j mark --set-mark 1 --mark-target CONTINUE",
        "-p arp --arp-op Request -j ACCEPT",
        "-s 02:00:00:00:00:01 -d ff:ff:ff:ff:ff:ff -j DROP",
        "--mark 0x2/0xff -j RETURN",
        '-p ip6 --log --log-prefix "a b" -j CONTINUE',
    ],
}
POOL["ip6tables"] = POOL["iptables"]

BAD = {
    "iptables": [
        "-j NOPE",
        "-p tcp --dport 99999 -j ACCEPT",
        "-m frob -j ACCEPT",
        "--frob",
        "-j",
        "-m statistic --mode nth --every 0 -j ACCEPT",
        "-m statistic --mode nth --every 20 --packet 20 -j ACCEPT",
        "-m statistic --mode random --probability 1.01 -j ACCEPT",
        "-j MARK --set-mark none",
        "-j ACCEPT -A FORWARD",
        "-j ACCEPT -t nat",
        "-j ACCEPT -Z FORWARD",
        f"-j {CHAIN}",
        "-j SNAT --to-source 1.1.1.1",
        "-s 1.2.3.4.5 -j ACCEPT",
        "-d does.not.exist.example -j ACCEPT",
        "-i averyveryverylonginterface -j ACCEPT",
        "-j ACCEPT\u0007",
    ],
    "ebtables": [
        "-j NOPE",
        "-p tcp -j ACCEPT",
        "--frob",
        "-j mark --set-mark",
        "-j mark --set-mark 3 --mark-target FOO",
        "-p ip --ip-dport 80 -j ACCEPT",
        "-i averyveryverylonginterface -j ACCEPT",
        "-j ACCEPT -t nat",
        "-j dnat --to-dst 1:2:3:4:5:6",
        f"-j {CHAIN}",
    ],
}
BAD["ip6tables"] = [rule for rule in BAD["iptables"] if "-s 1.2.3" not in rule]


@contextmanager
def inside(netns: Netns) -> Iterator[None]:
    """Let this thread, and the programs it starts, work in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{netns.name}", os.O_RDONLY)
    try:
        assert libc.setns(there, 0) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        libc.setns(home, 0)
        os.close(home)
        os.close(there)


def found(family: str, variant: str) -> Program:
    made = program(family, variant)
    assert made is not None, f"{family}-{variant} is not installed"
    return made


def saved(netns: Netns, command: str, *options: str) -> str:
    return netns.run([f"{command}-save", *options]).stdout


def table_of(family: str) -> str:
    return "filter" if family == "ebtables" else "mangle"


def state(rules: Sequence[str], place: int | None = None) -> ChainsState:
    return ChainsState(
        (Chain(CHAIN, tuple(tuple(shlex.split(rule)) for rule in rules)),), (Jump("FORWARD", CHAIN, place),)
    )


def domain(family: str, variant: str) -> ChainsDomain:
    return ChainsDomain(found(family, variant), table_of(family), "rules", {CHAIN: "rules"})


def make(netns: Netns, of: ChainsDomain, desired: ChainsState, check: bool = False) -> list[str]:
    with inside(netns):
        return converge([Target(of, desired)], check).steps


def entry(hook: str, *rules: str, table: str = "filter", position: str = "last") -> dict[str, object]:
    return {"table": table, "hook": hook, "rules": list(rules), "position": position}


def namespace(name: str) -> Iterator[Netns]:
    """A namespace with loopback only, removed when the iteration goes on."""
    made = Netns(name)
    run(["ip", "netns", "add", name])
    try:
        made.run(["ip", "link", "set", "lo", "up"])
        yield made
    finally:
        run(["ip", "netns", "delete", name])


class Refusing:
    """A domain whose only step the kernel refuses."""

    name = "refusing"

    def observe(self) -> str:
        return ""

    def plan(self, current: str, desired: str) -> list[Step]:
        return [Step("never", None)] if current != desired else []

    def apply(self, steps: Sequence[Step]) -> None:
        if steps:
            raise StepFailed("never", "refused")

    def describe(self, state: str) -> list[str]:
        return []
