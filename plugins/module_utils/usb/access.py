# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach the exported devices: a chain of ours in front of the port."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..chains.domain import ChainsDomain
from ..chains.model import EMPTY, Chain, ChainsState, Jump, Rule, chain_name
from ..chains.text import join
from ..chains.variants import Program, choose, working
from ..converge import Target
from ..errors import InvalidInput

OWNER = "usb"
TABLE = "filter"
HOOK = "INPUT"
IPV6 = "/proc/net/if_inet6"  # there where the kernel has IPv6


def parse(clients: Sequence[Any]) -> tuple[str, ...]:
    """Addresses and networks in their shortest spelling. Raises InvalidInput."""
    found = []
    for number, value in enumerate(clients):
        try:
            found.append(str(ipaddress.ip_network(str(value))))
        except ValueError as error:
            allowed = f"write an address or a network such as 192.168.1.0/24 ({error})"
            raise InvalidInput(f"clients[{number}]", value, allowed) from None
    return tuple(dict.fromkeys(found))


def families() -> list[tuple[str, int]]:
    """Programs and IP versions that the kernel has: usbipd listens on both."""
    return [("iptables", 4), *([("ip6tables", 6)] if os.path.exists(IPV6) else [])]


class Wall(NamedTuple):
    """The chain of one program; the state is EMPTY where none is to be."""

    domain: ChainsDomain
    desired: ChainsState

    @property
    def target(self) -> Target:
        return Target(self.domain, self.desired)


def desired(port: int, clients: Sequence[str], version: int) -> ChainsState:
    """The node itself and the clients pass on to the rules of others; everybody else's packets are dropped."""
    name = chain_name(OWNER, HOOK)
    tcp = ("-p", "tcp", "--dport", str(port))
    allowed = [client for client in clients if ipaddress.ip_network(client).version == version]
    rules: list[Rule] = [("-i", "lo", "-j", "RETURN")]
    rules += [("-s", client, *tcp, "-j", "RETURN") for client in allowed]
    return ChainsState((Chain(name, (*rules, (*tcp, "-j", "DROP"))),), (Jump(HOOK, name, 0),))


def present(capabilities: Mapping[str, bool | str], port: int, clients: Sequence[str]) -> list[Wall]:
    """The chain in each family, and none of it in a variant that is not used. Raises MissingCapability."""
    walls = []
    for family, version in families():
        chosen = choose(capabilities, family)
        walls.append(Wall(ChainsDomain(chosen, TABLE, OWNER), desired(port, clients, version)))
        walls += [wall for wall in absent(capabilities, family) if wall.domain.program != chosen]
    return walls


def absent(capabilities: Mapping[str, bool | str], *only: str) -> list[Wall]:
    """None of it, wherever it stands."""
    able = [program for family in only or ("iptables", "ip6tables") for program in working(capabilities, family)]
    return [Wall(ChainsDomain(program, TABLE, OWNER), EMPTY) for program in able if _holds(program)]


def _holds(program: Program) -> bool:
    table = program.save().get(TABLE)
    return table is not None and chain_name(OWNER, HOOK) in table.chains


def boot_rules(walls: Sequence[Wall]) -> list[dict[str, Any]]:
    """What brings the chains back at boot: agent.restore(). Rules in the program's own spelling."""
    found = []
    for wall in walls:
        for chain in wall.domain.canonical(wall.desired).chains:
            lines = [f"*{TABLE}", f":{chain.name} - [0:0]", *(join(("-A", chain.name, *rule)) for rule in chain.rules)]
            text = "\n".join([*lines, "COMMIT", ""])
            found.append({"command": wall.domain.program.command, "text": text, "jump": [HOOK, "-j", chain.name]})
    return found
