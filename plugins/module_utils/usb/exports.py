# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What usb_export means on this node: from raw values to a report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import programs
from ..capabilities import load
from ..converge import Report, Step, Target, converge
from ..errors import InvalidInput, MissingCapability, StepFailed
from . import access, agent, host, listening, service, sysfs
from .service import ServiceDomain
from .sysfs import Selector

SIDE = "server"
_PRODUCT = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_BUSID = re.compile(r"\d+-\d+(\.\d+)*")
PORTS = (1, 65535)
SECONDS = (3, 3600)


class Exports(NamedTuple):
    """Bus ids that are exported, and which of them we have bound."""

    bound: frozenset[str]
    ours: frozenset[str]


class ExportsDomain:
    """Devices bound to usbip-host."""

    name = "usbip-host"

    def observe(self) -> Exports:
        bound = frozenset(device.busid for device in sysfs.devices() if device.driver == host.NAME)
        return Exports(bound, frozenset(host.ours()))

    def plan(self, current: Exports, desired: Exports) -> list[Step]:
        """Bind what is missing; release what is ours and not wanted."""
        known = {device.busid: device for device in sysfs.devices()}
        absent = sorted((desired.bound - current.bound) & known.keys())
        steps = [Step(f"usbip bind -b {one}", known[one]) for one in absent]
        for one in sorted((current.ours & current.bound) - desired.bound):
            used = host.status(one) == host.USED
            caution = "disruptive: a client uses it" if used else ""
            steps.append(Step(f"usbip unbind -b {one}", one, retire=True, caution=caution))
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        with agent.alone():  # the service may have been faster
            for step in steps:
                if step.retire:
                    host.release(step.payload)
                else:
                    now = [device for device in sysfs.devices() if device.busid == step.payload.busid]
                    if not now:
                        raise StepFailed(step.command, "the device was unplugged")
                    host.bind(now[0])

    def describe(self, state: Exports) -> list[str]:
        known = {device.busid: device for device in sysfs.devices()}
        return [f"exported: {known.get(one, one)}" for one in sorted(state.bound)]


def selectors(values: Sequence[Mapping[str, Any]], path: str = "devices") -> tuple[Selector, ...]:
    """Raises InvalidInput."""
    found = []
    for number, value in enumerate(values):
        given = {key: str(text) for key, text in value.items() if text is not None}
        place = f"{path}[{number}]"
        if not given:
            raise InvalidInput(place, value, "say which device: busid, product or serial")
        check_busid(given.get("busid"), f"{place}.busid")
        if "product" in given:
            given["product"] = check_product(given["product"], f"{place}.product")
        found.append(Selector(**given))
    return tuple(found)


def check_busid(value: str | None, path: str) -> None:
    if value is not None and not _BUSID.fullmatch(value):
        raise InvalidInput(path, value, "write a bus id such as 1-1 or 1-1.4, as `usbip list -l` shows it")


def check_product(value: str, path: str) -> str:
    if not _PRODUCT.fullmatch(value.lower()):
        raise InvalidInput(path, value, "write vendor:product in hexadecimal such as 0d28:0204, as lsusb shows it")
    return value.lower()


def between(value: int, limits: tuple[int, int], path: str) -> int:
    if not limits[0] <= value <= limits[1]:
        raise InvalidInput(path, value, f"write a number from {limits[0]} to {limits[1]}")
    return value


def present(params: Mapping[str, Any], check: bool) -> tuple[Report, list[str]]:
    """Export the devices; returns what is missing of them too. Raises TestbedError."""
    chosen = selectors(params["devices"])
    port = between(params["port"], PORTS, "port")
    seconds = between(params["timeout"], SECONDS, "timeout")
    clients = access.parse(params["clients"])
    service.require_driver(SIDE)
    if programs.find("usbipd") is None:
        raise MissingCapability("exporting USB devices", "the program usbipd", "install the package usbip on the node")
    _check_port(port)
    absent = _check_devices(chosen, params["missing"] == "allow")
    chains = access.present(load(), port, clients)
    values = {
        "port": port,
        "timeout": seconds,
        "devices": [selector._asdict() for selector in chosen],
        "rules": access.boot_rules(chains),
    }
    wanted = frozenset(device.busid for device in host.wanted(chosen) if not _blocked(device))
    targets = [
        *(chain.target for chain in chains),
        Target(ServiceDomain(SIDE), service.desired(SIDE, values)),
        Target(ExportsDomain(), Exports(wanted, wanted)),
    ]
    return converge(targets, check), absent


def absent(check: bool) -> Report:
    """Nothing of ours any more: service, devices and chain."""
    domain = ServiceDomain(SIDE)
    nothing = Exports(frozenset(), frozenset())
    targets = [Target(domain, service.absent(SIDE, domain.observe())), Target(ExportsDomain(), nothing)]
    report = converge([*(chain.target for chain in access.absent(load())), *targets], check)
    if not check:
        service.tidy()
    return report


def state() -> list[dict[str, Any]]:
    """The devices that are plugged in, and what becomes of them."""
    used = {host.AVAILABLE: "available", host.USED: "used", host.ERROR: "error"}
    return [
        {
            "busid": device.busid,
            "product": device.product,
            "serial": device.serial,
            "name": device.name,
            "exported": device.driver == host.NAME,
            "status": used.get(host.status(device.busid), "local"),
        }
        for device in sysfs.devices()
        if not device.remote
    ]


def _check_port(port: int) -> None:
    found = listening.listener(port)
    if found and not service.owns_listener(SIDE, found[0]):
        who = f"{found[1]} (pid {found[0]})" if found[0] else "somebody"
        raise InvalidInput("port", port, f"{who} listens there already; choose another TCP port, or end it")


def _blocked(device: sysfs.Device) -> str:
    return sysfs.in_use(device.busid) if device.driver != host.NAME else ""


def _check_devices(chosen: Sequence[Selector], allow: bool) -> list[str]:
    """What of the asked devices cannot be exported. Raises InvalidInput unless that is allowed."""
    here = [device for device in sysfs.devices() if not device.remote]
    offered = "; ".join(map(str, here)) or "no device at all"
    said = []
    for number, selector in enumerate(chosen):
        found = [device for device in here if selector.matches(device)]
        reasons = [f"{device} cannot be exported, as {_blocked(device)}" for device in found if _blocked(device)]
        if not found:
            reasons = [f"no such device is plugged in; the node has {offered}"]
        if reasons and not allow:
            raise InvalidInput(f"devices[{number}]", str(selector), "; ".join(reasons))
        said += [f"{selector}: {reason}" for reason in reasons]
    return said
