# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live interfaces that concern a bridge: states that can be observed, stored, compared and given back."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from .. import programs
from ..errors import StepFailed

IFSTATE = "/run/network/ifstate"  # ifupdown's list of what it has brought up, `interface=logical`
FOREVER = 4294967295
_ADDRGENMODES = ("eui64", "none", "stable_secret", "random")  # enum in6_addr_gen_mode, include/uapi/linux/if_link.h
# what `ip route` says although nobody asked for it
_DEFAULTS = {("-4", "scope", "global"), ("-6", "metric", 1024), ("-6", "scope", "global"), ("-6", "proto", "boot")}


class Address(NamedTuple):
    """One address of an interface. A dynamic one came from DHCP or router advertisements and has a lifetime."""

    cidr: str
    broadcast: str = ""
    scope: str = "global"
    label: str = ""
    dynamic: bool = False


class Link(NamedTuple):
    """One interface. `stp` and `forward_delay` (1/100 s) mean something for bridges only."""

    name: str
    exists: bool = True
    bridge: bool = False
    up: bool = True
    mac: str = ""
    master: str = ""
    stp: bool = False
    forward_delay: int = 0
    addrgenmode: str = ""  # how the kernel makes IPv6 link-local addresses; empty where it has no IPv6
    configured: bool = False  # ifupdown has it as up
    addresses: tuple[Address, ...] = ()
    routes: tuple[tuple[str, ...], ...] = ()  # arguments of `ip route add`


class Links(NamedTuple):
    """The bridge and its ports, sorted by name."""

    links: tuple[Link, ...]

    def get(self, name: str) -> Link:
        """The link of this name; one that does not exist where there is none."""
        return next((link for link in self.links if link.name == name), absent(name))

    def put(self, *changed: Link) -> Links:
        """The same with these links instead."""
        names = {link.name for link in changed}
        kept = [link for link in self.links if link.name not in names]
        return Links(tuple(sorted([*kept, *changed])))


def absent(name: str) -> Link:
    """No interface of this name."""
    return Link(name, exists=False, up=False)


def observe(names: Collection[str]) -> tuple[Links, Links]:
    """The named interfaces as they are, and all others (for the checks of the input)."""
    configured = _configured()
    routes = _routes()
    every = [
        _link(entry, entry["ifname"] in configured, routes.get(entry["ifname"], ()))
        for entry in _ip("-d", "address", "show")
    ]
    found = {link.name: link for link in every}
    ours = [found.get(name, absent(name)._replace(configured=name in configured)) for name in names]
    others = [link for link in every if link.name not in names]
    return Links(tuple(sorted(ours))), Links(tuple(sorted(others)))


def to_json(links: Links) -> list[dict[str, Any]]:
    """For the memory file."""
    return [{**link._asdict(), "addresses": [address._asdict() for address in link.addresses]} for link in links.links]


def from_json(entries: Sequence[Mapping[str, Any]]) -> Links:
    """The inverse of to_json."""
    links = []
    for entry in entries:
        addresses = tuple(Address(**address) for address in entry["addresses"])
        routes = tuple(tuple(route) for route in entry["routes"])
        links.append(Link(**{**entry, "addresses": addresses, "routes": routes}))
    return Links(tuple(links))


def describe(links: Links) -> list[str]:
    """Lines in the words of `ip`."""
    return [line for link in links.links for line in _describe(link)]


def _describe(link: Link) -> list[str]:
    if not link.exists:
        return [f"{link.name}: does not exist"]
    words = [f"{link.name}:", "bridge" if link.bridge else "interface", link.mac, "up" if link.up else "down"]
    if link.bridge:
        words.append(f"stp {'on' if link.stp else 'off'} forward_delay {link.forward_delay / 100:g}s")
    if link.master:
        words.append(f"master {link.master}")
    lines = [" ".join(words)]
    lines += [f"{link.name}: address {address.cidr}" for address in link.addresses]
    lines += [f"{link.name}: route {' '.join(route)}" for route in link.routes]
    return lines


def _configured() -> set[str]:
    try:
        with open(IFSTATE, encoding="utf-8") as file:
            return {line.split("=")[0].strip() for line in file if "=" in line}
    except FileNotFoundError:
        return set()


def _ip(*arguments: str) -> list[dict[str, Any]]:
    done = programs.run(["ip", "-j", *arguments])
    if done.returncode:
        raise StepFailed(f"ip -j {' '.join(arguments)}", done.stderr.strip())
    entries: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return [entry for entry in entries if entry]  # iproute2 prints {} for what a filter leaves out


def _link(entry: Mapping[str, Any], configured: bool, routes: Sequence[tuple[str, ...]]) -> Link:
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {}) if info.get("info_kind") == "bridge" else {}
    return Link(
        name=entry["ifname"],
        bridge=info.get("info_kind") == "bridge",
        up="UP" in entry["flags"],
        mac=entry.get("address", ""),
        master=entry.get("master", ""),
        stp=bool(data.get("stp_state", 0)),
        forward_delay=data.get("forward_delay", 0),
        addrgenmode=_addrgenmode(entry["ifname"]),
        configured=configured,
        addresses=tuple(_address(one) for one in entry["addr_info"] if not _automatic(one)),
        routes=tuple(routes),
    )


def _addrgenmode(name: str) -> str:
    """`ip address` does not tell it, and `ip link` would be one more program; the names are iproute2's."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode", encoding="ascii") as file:
            return _ADDRGENMODES[int(file.read())]
    except FileNotFoundError:
        return ""


def _automatic(entry: Mapping[str, Any]) -> bool:
    """Link-local IPv6 addresses, which the kernel makes and removes with the link itself."""
    return entry["family"] == "inet6" and entry.get("scope") == "link"


def _address(entry: Mapping[str, Any]) -> Address:
    return Address(
        cidr=f"{entry['local']}/{entry['prefixlen']}",
        broadcast=entry.get("broadcast", ""),
        scope=entry.get("scope", "global"),
        label=entry.get("label", ""),
        dynamic=bool(entry.get("dynamic")) or entry.get("valid_life_time", FOREVER) != FOREVER,
    )


def _routes() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Routes that somebody added, by interface, in the order of the kernel."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for family in ("-4", "-6"):
        # an unspecific dump; where the kernel lacks the family, ip says nothing and fails
        done = programs.run(["ip", "-j", family, "route", "show", "table", "all"])
        for entry in json.loads(done.stdout or "[]") if done.returncode == 0 else []:
            if entry.get("dev") and entry.get("type", "unicast") == "unicast" and _somebodys(entry):
                found[entry["dev"]] = (*found.get(entry["dev"], ()), _route(family, entry))
    return found


def _somebodys(entry: Mapping[str, Any]) -> bool:
    if entry.get("protocol") in ("kernel", "ra", "redirect"):
        return False
    return not re.match(r"(fe80|ff00)::", entry.get("dst", ""))


def _route(family: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    words = [family, entry["dst"]]
    for key, word in (("gateway", "via"), ("dev", "dev"), ("table", "table"), ("protocol", "proto"),
                      ("scope", "scope"), ("prefsrc", "src"), ("metric", "metric")):  # fmt: skip
        if key in entry and (family, word, entry[key]) not in _DEFAULTS:
            words += [word, str(entry[key])]
    if "onlink" in entry.get("flags", ()):
        words.append("onlink")
    return tuple(words)


def inside(address: str, link: Link) -> bool:
    """Whether this address (without prefix length) stands on the link."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(ipaddress.ip_interface(one.cidr).ip == wanted for one in link.addresses)
