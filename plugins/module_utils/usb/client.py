# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client wants attached, and getting there: used by the module and, for ever, by the node's service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import TestbedError
from . import protocol, vhci
from .protocol import Refused
from .vhci import Port


class Wanted(NamedTuple):
    """A device of a server: by its bus id there, or by vendor:product where only one of the kind is exported."""

    server: str
    port: int
    busid: str = ""
    product: str = ""

    def matches(self, one: Port) -> bool:
        """Whether a port holds it. While the kernel does not know the device yet, its product is unknown too."""
        if (one.server, one.port) != (self.server, self.port) or self.busid not in ("", one.busid):
            return False
        return not self.product or one.product in (self.product, "")

    def __str__(self) -> str:
        return f"{self.busid or self.product} of {self.server} port {self.port}"

    @property
    def command(self) -> str:
        """As a person would type it."""
        chosen = self.busid or f"<{self.product}>"
        return f"usbip --tcp-port {self.port} attach -r {self.server} -b {chosen}"


def missing(wanted: Sequence[Wanted], ports: Sequence[Port]) -> list[Wanted]:
    """Those that no port holds."""
    return [one for one in wanted if not any(one.matches(port) for port in ports)]


def surplus(wanted: Sequence[Wanted], ports: Sequence[Port], known: Sequence[Wanted]) -> list[Port]:
    """Ports that hold what was wanted once (`known`) and is no more. What others attached is theirs."""
    kept = [port for port in ports if any(one.matches(port) for one in wanted)]
    return [port for port in ports if port not in kept and any(one.matches(port) for one in known)]


def find(one: Wanted) -> str:
    """The bus id at the server. Raises Refused, with what there is instead."""
    there = protocol.exported(one.server, one.port)
    fits = [remote for remote in there if one.busid in ("", remote.busid) and one.product in ("", remote.product)]
    if len(fits) == 1:
        return fits[0].busid
    offered = ", ".join(map(str, there)) or "no free device"
    if fits:
        raise Refused(f"{one}: {len(fits)} devices are meant; name the bus id of one: {offered}")
    raise Refused(f"{one}: no such device is free there; the server has {offered}")


def attach(one: Wanted, seconds: int) -> Port:
    """Attach a device. Raises Refused and StepFailed."""
    return vhci.attach(one.server, one.port, find(one), seconds)


def settle(wanted: Sequence[Wanted], seconds: int) -> list[str]:
    """Attach what is missing; returns what could not be done. One refusal of a server is enough for all of its devices
    when it does not answer: each would wait as long."""
    said: list[str] = []
    silent: set[tuple[str, int]] = set()
    vhci.forget_free()
    for one in missing(wanted, vhci.ports()):
        if (one.server, one.port) in silent:
            continue
        try:
            attach(one, seconds)
        except TestbedError as error:
            said.append(str(error))
            if isinstance(error.__cause__, OSError):
                silent.add((one.server, one.port))
    vhci.load_drivers()
    return said
