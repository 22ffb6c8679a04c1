# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions with SR-IOV and their virtual functions (VFs) as they are asked for; values are checked with their path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import units
from ..errors import InvalidInput
from ..schema import Parser, choice, leaf, mapping, sequence, text, whole_number

MOST = 256  # VFs that a call may ask for; the device has its own limit
MEGABIT = 10**6 // 8  # bytes per second: the kernel holds rates of VFs in whole Mbit/s
LINK_STATES = ("auto", "enable", "disable")  # linux/if_link.h, IFLA_VF_LINK_STATE_*
NAME = re.compile(r"[^/:\s]{1,15}")
SPACE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}")


class Vf(NamedTuple):
    """A VF. None is what nobody asked for, or what the driver does not tell; rates in Mbit/s, 0 is without limit.

    `driver` is "" where none is bound. `space` is the namespace, by its name, in which its interface is: "" is the one
    of the function; `name` is that of the interface.
    """

    mac: str | None = None
    vlan: int | None = None
    qos: int | None = None
    min_rate: int | None = None
    max_rate: int | None = None
    spoofchk: bool | None = None
    trust: bool | None = None
    state: str | None = None
    driver: str | None = None
    space: str | None = None
    name: str | None = None


class Function(NamedTuple):
    """An interface whose device has VFs."""

    interface: str
    vfs: tuple[Vf, ...]


def _mac(value: object) -> str:
    found = str(value).lower()
    if not re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", found) or int(found[:2], 16) & 1 or found == "00" + ":00" * 5:
        raise ValueError("write a unicast MAC address, such as 52:54:00:aa:01:00")
    return found


def _rate(value: object) -> int:
    if value in (0, "0"):
        return 0
    rate = units.parse_rate(value)
    if rate % MEGABIT:
        raise ValueError("the kernel holds rates of VFs in whole Mbit/s, such as 20mbit; 0 is without limit")
    if rate // MEGABIT >= 2**32:
        raise ValueError("the kernel holds rates of VFs below 2^32 Mbit/s")
    return rate // MEGABIT


def _boolean(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(path, value, "write true or false")
    return value


def _matching(pattern: re.Pattern[str], allowed: str) -> Parser:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value) or value in (".", ".."):
            raise ValueError(allowed)
        return value

    return leaf(parse)


VF: Mapping[str, Parser] = {
    "mac": leaf(_mac),
    "vlan": whole_number(0, 4094),
    "qos": whole_number(0, 7),
    "min_rate": leaf(_rate),
    "rate": leaf(_rate),
    "spoofchk": _boolean,
    "trust": _boolean,
    "state": choice(*LINK_STATES),
    "driver": _matching(re.compile(r"[A-Za-z0-9_-]{1,63}"), "write a driver's name, such as vfio-pci"),
    "netns": _matching(SPACE, "write a namespace's name of letters, digits, `_`, `-` and `.`"),
    "name": _matching(NAME, "write an interface's name of 15 characters at most"),
}
_INTERFACES = sequence(
    mapping({"name": text, "count": whole_number(0, MOST), "vfs": sequence(mapping(VF))}, required=("name",))
)


def parse(interfaces: object) -> tuple[Function, ...]:
    """What is asked for, in its order. Raises InvalidInput."""
    found: list[Function] = []
    macs: dict[str, str] = {}
    for index, asked in enumerate(_INTERFACES(interfaces, "interfaces")):
        path = f"interfaces[{index}]"
        if asked["name"] in [one.interface for one in found]:
            raise InvalidInput(f"{path}.name", asked["name"], "this interface stands twice")
        vfs = tuple(_vf(f"{path}.vfs[{number}]", values, macs) for number, values in enumerate(asked.get("vfs", ())))
        count = asked.get("count", len(vfs))
        if count < len(vfs):
            raise InvalidInput(f"{path}.count", count, f"there are settings for {len(vfs)} VFs")
        found.append(Function(asked["name"], vfs + (Vf(),) * (count - len(vfs))))
    return tuple(found)


def _vf(path: str, asked: Mapping[str, Any], macs: dict[str, str]) -> Vf:
    mac = asked.get("mac")
    if mac in macs:
        raise InvalidInput(f"{path}.mac", mac, f"{macs[mac]} has this address")
    if mac:
        macs[mac] = path
    if asked.get("qos") and not asked.get("vlan"):
        raise InvalidInput(f"{path}.qos", asked["qos"], "it is part of a VLAN's tag; give `vlan`, too")
    least, most = asked.get("min_rate"), asked.get("rate")
    if least and most and least > most:
        raise InvalidInput(f"{path}.min_rate", f"{least}mbit", f"it is above the rate of {most}mbit")
    if "name" in asked and "netns" not in asked:
        raise InvalidInput(f"{path}.name", asked["name"], "the name is that in a namespace; give `netns`, too")
    if "netns" in asked and asked.get("driver") == "vfio-pci":
        raise InvalidInput(f"{path}.netns", asked["netns"], "a VF with the driver vfio-pci has no interface")
    vlan = asked.get("vlan")
    return Vf(
        mac,
        vlan,
        asked.get("qos", None if vlan is None else 0),
        least,
        most,
        asked.get("spoofchk"),
        asked.get("trust"),
        asked.get("state"),
        asked.get("driver"),
        asked.get("netns"),
        asked.get("name"),
    )


def words(vf: Vf) -> str:
    """In the words of ip-link(8), and in ours for what it does not say."""
    parts = [f"mac {vf.mac}"] if vf.mac else []
    if vf.vlan is not None:
        parts.append(f"vlan {vf.vlan} qos {vf.qos or 0}")
    rates = (("max_tx_rate", vf.max_rate), ("min_tx_rate", vf.min_rate))
    parts += [f"{name} {rate}" for name, rate in rates if rate is not None]
    flags = (("spoofchk", vf.spoofchk), ("trust", vf.trust))
    parts += [f"{name} {switch(value)}" for name, value in flags if value is not None]
    parts += [f"state {vf.state}"] if vf.state else []
    parts += [f"driver {vf.driver}"] if vf.driver else []
    parts += [f"netns {vf.space}"] if vf.space else []
    parts += [f"name {vf.name}"] if vf.name else []
    return " ".join(parts)


def switch(value: bool) -> str:
    return "on" if value else "off"


def record(functions: Sequence[Function]) -> list[Any]:
    """As JSON holds it."""
    return [[one.interface, [list(vf) for vf in one.vfs]] for one in functions]


def recorded(found: Sequence[Any]) -> tuple[Function, ...]:
    return tuple(Function(name, tuple(Vf(*vf) for vf in vfs)) for name, vfs in found)
