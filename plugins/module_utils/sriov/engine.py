# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring interfaces to their VFs: in a module's call, and at boot."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence

from ..converge import Target, converge
from ..errors import InvalidInput, MissingCapability
from ..netlink import Socket
from . import sysfs
from .domain import SriovDomain
from .model import Function, recorded

APPEARS_WITHIN = 60.0  # seconds at boot until the driver of a device has made its interface


def check(asked: Sequence[Function]) -> None:
    """Raise InvalidInput or MissingCapability where this node cannot have what is asked, before anything is touched."""
    present = {name for _index, name in socket.if_nameindex()}
    for index, (interface, vfs) in enumerate(asked):
        path = f"interfaces[{index}]"
        if interface not in present:
            raise InvalidInput(f"{path}.name", interface, "this node has no such interface")
        if sysfs.count(interface) is None:
            raise MissingCapability(
                f"{path}.name: {interface}",
                f"a device with SR-IOV behind it ({sysfs.count_file(interface)})",
                "it may be off in the firmware of the machine or card, or the driver has none",
            )
        most = sysfs.most(interface)
        if most is not None and len(vfs) > most:
            raise InvalidInput(f"{path}.count", len(vfs), f"{interface} has {most} VFs at most")
        for number, vf in enumerate(vfs):
            for key, value in (("driver", vf.driver), ("netns", vf.space)):
                if value is not None and sysfs.autoprobe_file(interface) is None:
                    raise InvalidInput(
                        f"{path}.vfs[{number}].{key}", value, f"VFs of {interface} are no PCI devices with a driver"
                    )


def at_boot(config: str) -> list[str]:
    """What the configuration says, once its interfaces are there; the steps that it took. Raises TestbedError."""
    with open(config, encoding="utf-8") as file:
        functions = recorded(json.load(file)["interfaces"])
    end = time.monotonic() + APPEARS_WITHIN
    while True:
        missing = {one.interface for one in functions} - {name for _index, name in socket.if_nameindex()}
        if not missing or time.monotonic() > end:
            break
        time.sleep(0.2)
    check(functions)
    with Socket() as rtnetlink:
        domain = SriovDomain(rtnetlink, [one.interface for one in functions])
        return converge([Target(domain, functions)]).steps
