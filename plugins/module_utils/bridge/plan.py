# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From one state of the links to another: the domain `links` of converge.py.

Whole interfaces are brought up and taken down by ifupdown, from the very text that boots the node; whatever remains
is one `ip` command each. So a port that somebody took out goes back without disturbing the bridge.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from .. import programs
from ..converge import Step
from ..errors import MissingCapability, StepFailed
from . import links
from .interfaces_file import MAIN
from .links import Address, Link, Links

PROGRAM_SECONDS = 90.0  # an `ifup` that waits for DHCP takes 60 at most by dhclient's default


class LinksDomain:
    """The bridge `bridge` and some other interfaces.

    `trial` names interfaces whose stanzas stand in `trial_file`, while /etc still holds the text before:
    they are brought up from there, and taken down again from there.
    """

    name = "links"

    def __init__(self, names: Sequence[str], trial_file: str, trial: Sequence[str]) -> None:
        self.names = tuple(names)
        self._desired = Links(())
        self._files: Mapping[str, str] = dict.fromkeys(trial, trial_file)

    def observe(self) -> Links:
        """The links as they are."""
        return links.observe(self.names)[0]

    def describe(self, state: Links) -> list[str]:
        """Lines in the words of `ip`."""
        return links.describe(state)

    def plan(self, current: Links, desired: Links) -> list[Step]:
        """Whole interfaces first, then whatever they leave to do."""
        self._desired = desired
        steps: list[Step] = []
        for command, reached in self._whole(current, desired):
            steps.append(_step(command))
            current = reached
        return steps + [_step(command) for command in _details(current, desired)]

    def apply(self, steps: Sequence[Step]) -> None:
        """Run the commands in order, then put right what ifup and the hooks of other packages did besides."""
        for step in steps:
            _run(step)
        for command in _details(self.observe(), self._desired):
            _run(_step(command))

    def _whole(self, current: Links, desired: Links) -> Iterator[tuple[list[str], Links]]:
        """Commands for whole interfaces, each with the state that it leads to."""
        for parts in (_routes_away, self._bridges, _leaving, self._ports):
            for command, reached in parts(current, desired):
                current = reached
                yield command, reached

    def _bridges(self, current: Links, desired: Links) -> Iterator[tuple[list[str], Links]]:
        for link in desired.links:
            now = current.get(link.name)
            if now.exists and not link.exists:
                current = _without_bridge(current, link.name, up=not now.configured)
                command = self._ifupdown("ifdown", link.name) if now.configured else _ip("link delete dev", link.name)
                yield command, current
            elif link.bridge and not now.exists and link.configured:
                current = _with_bridge(current, desired, link)
                yield self._ifupdown("ifup", link.name), current
            elif link.bridge and not now.exists:
                current = current.put(Link(link.name, bridge=True, up=False))
                yield [*_ip("link add name", link.name), "type", "bridge"], current

    def _ports(self, current: Links, desired: Links) -> Iterator[tuple[list[str], Links]]:
        for link in desired.links:
            now = current.get(link.name)
            if link.bridge or not link.exists or not now.exists:
                continue
            if now.configured and not link.configured:
                # what a stanza `manual` leaves is cleared below: its addresses stay in the state
                current = current.put(now._replace(configured=False, up=False, routes=()))
                yield self._ifupdown("ifdown", link.name), current
            elif link.configured and not now.configured:
                # what ifup brings depends on the stanza: all is said again below, by commands that may be repeated
                current = current.put(now._replace(configured=True, up=not link.up, addresses=(), routes=()))
                yield self._ifupdown("ifup", link.name), current

    def _ifupdown(self, program: str, name: str) -> list[str]:
        return [program, "--force", "-i", self._files.get(name, MAIN), name]


def _routes_away(current: Links, desired: Links) -> Iterator[tuple[list[str], Links]]:
    """Routes of interfaces that become ports: ifup refuses a second default route."""
    for link in current.links:
        wanted = desired.get(link.name)
        for route in link.routes if wanted.master and not link.master else ():
            current = current.put(current.get(link.name)._replace(routes=()))
            yield ["ip", route[0], "route", "delete", *route[1:]], current


def _leaving(current: Links, desired: Links) -> Iterator[tuple[list[str], Links]]:
    """Ports that leave: down, so that they get their link-local addresses again with the mode that they had."""
    for link in desired.links:
        now = current.get(link.name)
        if link.exists and now.exists and now.master and not link.master:
            now = now._replace(master="", up=False)
            current = current.put(now)
            yield [*_ip("link set dev", link.name), "nomaster", "down"], current
        if link.exists and now.exists and not link.master and link.addrgenmode not in ("", now.addrgenmode):
            current = current.put(now._replace(addrgenmode=link.addrgenmode))
            yield [*_ip("link set dev", link.name), "addrgenmode", link.addrgenmode], current


def _without_bridge(current: Links, name: str, up: bool) -> Links:
    """`ifdown` takes the ports down as well, `ip link delete` does not. Either way the ports need their ifup again."""
    ports = [
        link._replace(master="", up=up and link.up, configured=False) for link in current.links if link.master == name
    ]
    return current.put(links.absent(name), *ports)


def _with_bridge(current: Links, desired: Links, link: Link) -> Links:
    """What ifupdown and /lib/bridge-utils/ifupdown.sh make of our stanza."""
    ports = [current.get(port.name) for port in desired.links if port.master == link.name]
    joined = [
        port._replace(up=True, master=link.name, addrgenmode="none" if port.addrgenmode else "") for port in ports
    ]
    return current.put(link, *joined)


def _details(current: Links, desired: Links) -> Iterator[list[str]]:
    """Single properties; each command may be repeated without harm."""
    for link in desired.links:
        now = current.get(link.name)
        if link.exists:
            yield from _properties(now, link)
            yield from _addresses(now, link)
            if link.up and not now.up:
                yield [*_ip("link set dev", link.name), "up"]
    for link in desired.links:
        if link.exists:
            yield from _routes(current.get(link.name), link)
    for link in desired.links:
        if link.exists and not link.up and current.get(link.name).up:
            yield [*_ip("link set dev", link.name), "down"]


def _properties(now: Link, link: Link) -> Iterator[list[str]]:
    dev = _ip("link set dev", link.name)
    if link.addrgenmode and link.addrgenmode != now.addrgenmode:
        yield [*dev, "addrgenmode", link.addrgenmode]
    if link.bridge and link.mac and link.mac != now.mac:
        yield [*dev, "address", link.mac]
    if link.bridge and (link.stp, link.forward_delay) != (now.stp, now.forward_delay):
        options = ["forward_delay", str(link.forward_delay), "stp_state", str(int(link.stp))]
        yield [*dev, "type", "bridge", *options]
    if link.master != now.master:
        yield [*dev, "master", link.master] if link.master else [*dev, "nomaster"]


def _addresses(now: Link, link: Link) -> Iterator[list[str]]:
    if link.master and now.addresses:
        yield _ip("address flush dev", link.name)
        return
    wanted = {address.cidr for address in link.addresses}
    have = {address.cidr for address in now.addresses}
    for address in now.addresses:
        if address.cidr not in wanted and not address.dynamic:
            yield [*_ip("address delete", address.cidr), "dev", link.name]
    for address in link.addresses:
        if address.cidr not in have and not address.dynamic:
            yield _address_command(link.name, address)


def _address_command(name: str, address: Address) -> list[str]:
    command = [*_ip("address replace", address.cidr), "dev", name, "scope", address.scope]
    if address.broadcast:
        command += ["broadcast", address.broadcast]
    if address.label and address.label != name:
        command += ["label", address.label]
    return command


def _routes(now: Link, link: Link) -> Iterator[list[str]]:
    have = {route_key(route) for route in now.routes}
    wanted = {route_key(route) for route in link.routes}
    for route in now.routes:
        if route_key(route) not in wanted and not _leased(route):
            yield ["ip", route[0], "route", "delete", *route[1:]]
    for route in link.routes:
        if route_key(route) not in have and not _leased(route):
            yield ["ip", route[0], "route", "replace", *route[1:]]


def _leased(route: Sequence[str]) -> bool:
    """A DHCP client's route comes and goes with its lease."""
    return "dhcp" in route


def route_key(route: Sequence[str]) -> tuple[str, ...]:
    """What tells one route from another: not who added it, nor how."""
    pairs = dict(zip(route[2:-1:2], route[3::2]))
    return (*route[:2], *(f"{word} {pairs[word]}" for word in ("via", "dev", "table", "metric") if word in pairs))


def _ip(words: str, name: str) -> list[str]:
    return ["ip", *words.split(), name]


def _run(step: Step) -> None:
    """Its output goes to a file: a DHCP client that ifup leaves behind would hold a pipe open."""
    path = programs.find(step.payload[0])
    if path is None:
        raise MissingCapability(f"`{step.command}`", f"the program {step.payload[0]}")
    environment = {**os.environ, "LC_ALL": "C", "PATH": programs.SEARCH_PATH}
    with tempfile.TemporaryFile() as output:
        try:
            code = subprocess.run(
                [path, *step.payload[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                timeout=PROGRAM_SECONDS,
                env=environment,
            ).returncode
        except subprocess.TimeoutExpired:
            raise StepFailed(step.command, f"it did not end within {PROGRAM_SECONDS:g} s") from None
        output.seek(0)
        if code:
            raise StepFailed(step.command, output.read().decode("utf-8", "replace").strip() or f"exit code {code}")


def _step(command: Sequence[str]) -> Step:
    return Step(" ".join(command), tuple(command))
