# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What usb_attach means on this node: from raw values to a report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..converge import Report, Step, Target, converge
from ..errors import InvalidInput, TestbedError
from . import agent, client, exports, service, sysfs, vhci
from .client import Wanted
from .service import ServiceDomain
from .vhci import Port

SIDE = "client"
AGAIN = 0.5  # seconds

State = tuple[Port, ...]


class AttachedDomain:
    """Ports of vhci_hcd. Desired are entries; observed are ports."""

    name = "vhci_hcd"

    def __init__(self, timeout: int, wait: float, known: Sequence[Wanted]) -> None:
        """`timeout`: of a dead link; `wait`: for a server to give a device; both in seconds. `known`: wanted before."""
        self._timeout = timeout
        self._wait = wait
        self._known = tuple(known)

    def observe(self) -> State:
        return tuple(vhci.ports()) if vhci.loaded() else ()

    def plan(self, current: State, desired: Sequence[Wanted | Port]) -> list[Step]:
        """Attach what is missing; detach what was wanted before and is no more. Ports of before are for a roll-back."""
        wanted = [_wanted(one) for one in desired]
        steps = [Step(one.command, one) for one in client.missing(wanted, current)]
        for port in client.surplus(wanted, current, self._known):
            reason = sysfs.in_use(port.local)
            caution = f"disruptive: {reason}" if reason else ""
            steps.append(Step(f"usbip detach -p {port.number}", port, retire=True, caution=caution))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.retire:
                with agent.alone():
                    vhci.detach(step.payload.number)
            else:
                self._attach(step.payload)

    def describe(self, state: State) -> list[str]:
        return [str(port) for port in state]

    def _attach(self, one: Wanted) -> None:
        """Until it is there, by us or by the service; servers may just be starting."""
        end = time.monotonic() + self._wait
        while True:
            with agent.alone():
                if not client.missing([one], vhci.ports()):
                    return
                try:
                    client.attach(one, self._timeout)
                    return
                except TestbedError:
                    if time.monotonic() > end:
                        raise
            time.sleep(AGAIN)


def _wanted(one: Wanted | Port) -> Wanted:
    return Wanted(one.server, one.port, one.busid) if isinstance(one, Port) else one


def parse(values: Sequence[Mapping[str, Any]]) -> tuple[Wanted, ...]:
    """Raises InvalidInput."""
    found = []
    for number, value in enumerate(values):
        place = f"devices[{number}]"
        given = {key: text for key, text in value.items() if text is not None}
        if not given["server"].strip() or " " in given["server"]:
            raise InvalidInput(f"{place}.server", given["server"], "write the server's address or name")
        if not given.get("busid") and not given.get("product"):
            raise InvalidInput(place, given, "say which of the server's devices: busid or product")
        exports.check_busid(given.get("busid"), f"{place}.busid")
        exports.between(given["port"], exports.PORTS, f"{place}.port")
        if "product" in given:
            given["product"] = exports.check_product(given["product"], f"{place}.product")
        found.append(Wanted(**given))
    return tuple(dict.fromkeys(found))


def present(params: Mapping[str, Any], check: bool) -> tuple[Report, list[str]]:
    """Attach the devices; returns what of them is not to be had, where that is allowed. Raises TestbedError."""
    wanted = parse(params["devices"])
    seconds = exports.between(params["timeout"], exports.SECONDS, "timeout")
    service.require_driver(SIDE)
    domain = AttachedDomain(seconds, params["wait"], [*_known(), *wanted])
    said: list[str] = []
    now: tuple[Wanted, ...] = wanted
    if params["missing"] == "allow":
        now, said = _to_be_had(wanted, domain.observe())
    values = {"timeout": seconds, "devices": [one._asdict() for one in wanted]}
    return converge([Target(ServiceDomain(SIDE), service.desired(SIDE, values)), Target(domain, now)], check), said


def absent(check: bool) -> Report:
    """Nothing of ours any more: service and devices."""
    running = ServiceDomain(SIDE)
    domain = AttachedDomain(0, 0, _known())
    report = converge([Target(running, service.absent(SIDE, running.observe())), Target(domain, ())], check)
    if not check:
        service.tidy()
    return report


def state() -> list[dict[str, Any]]:
    """The taken ports."""
    names = {vhci.CONNECTING: "connecting", vhci.USED: "attached"}
    return [
        {
            "port": port.number,
            "status": names.get(port.status, "error"),
            "server": port.server,
            "server_port": port.port,
            "busid": port.busid,
            "local_busid": port.local,
            "product": port.product,
            "nodes": sysfs.offers(port.local) if port.status == vhci.USED else {},
        }
        for port in (vhci.ports() if vhci.loaded() else [])
    ]


def _known() -> list[Wanted]:
    return [Wanted(**one) for one in service.config(SIDE).get("devices", ())]


def _to_be_had(wanted: Sequence[Wanted], ports: State) -> tuple[tuple[Wanted, ...], list[str]]:
    """Those that are attached or can be now, and why the others cannot."""
    good, said = [], []
    for one in wanted:
        try:
            if client.missing([one], ports):
                client.find(one)
            good.append(one)
        except TestbedError as error:
            said.append(str(error))
    return tuple(good), said
