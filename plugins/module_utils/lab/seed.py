# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's own files as a tar archive that the node unpacks over its root file system at its first start."""

from __future__ import annotations

import io
import ipaddress
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from .model import MANAGEMENT, Interface, Node, Route, management_addresses

Own: TypeAlias = "ipaddress.IPv4Interface | ipaddress.IPv6Interface"
LAB = "etc/impair.testbed-lab"


def stanza(interface: Interface, routes: Sequence[Route] = (), router: bool = False) -> str:
    """The interface in the words of interfaces(5), with those of the routes that go over it."""
    if not interface.addresses:
        return f"iface {interface.name} inet manual\n"
    lines = [f"auto {interface.name}"]
    gateway, left = interface.gateway, list(routes)
    for number, address in enumerate(interface.addresses):
        own = ipaddress.ip_interface(address)
        lines += [f"iface {interface.name} {'inet6' if own.version == 6 else 'inet'} static", f"    address {address}"]
        if own.version == 6:
            lines.append("    dad-attempts 0")
        if own.version == 6 and router:  # not before: the first address loads the kernel's module
            lines.append("    up sysctl -q -w net.ipv6.conf.all.forwarding=1")
        if interface.mtu and not number:
            lines.append(f"    mtu {interface.mtu}")
        if gateway and _reached(gateway, own):
            lines.append(f"    gateway {gateway}")
            gateway = ""
        lines += [f"    up ip -{own.version} route replace {to} via {via}" for to, via in left if _reached(via, own)]
        left = [route for route in left if not _reached(route.via, own)]
    return "".join(f"{line}\n" for line in lines)


def _reached(gateway: str, own: Own) -> bool:
    return ipaddress.ip_address(gateway) in own.network


def interfaces_file(node: Node) -> str:
    """/etc/network/interfaces as the node has it before any role of the testbed has run."""
    loopback = "auto lo\niface lo inet loopback\n"
    if node.router:
        loopback += "    up sysctl -q -w net.ipv4.ip_forward=1\n"
    parts = ["source /etc/network/interfaces.d/*\n", loopback]
    return "\n".join(parts + [stanza(interface, node.routes, node.router) for interface in node.interfaces])


def network_batch(node: Node, devices: Mapping[str, str]) -> str:
    """What happens before ifup, for `ip -batch`; `devices` maps the kernel's device names to the asked ones."""
    lines = ["link set lo up"]
    lines += [f"link set {device} name {name}" for device, name in devices.items()]
    lines += [f"address add {management_addresses(node.number)[1]} dev {MANAGEMENT}", f"link set {MANAGEMENT} up"]
    return "".join(f"{line}\n" for line in lines)


def files(node: Node, devices: Mapping[str, str], host_key: Path, public_key: str) -> dict[str, tuple[int, str]]:
    """Path inside the node → mode and content. `devices` maps the kernel's device names to the asked ones."""
    return {
        "etc/hostname": (0o644, f"{node.name}\n"),
        "etc/hosts": (0o644, f"127.0.0.1 localhost\n127.0.1.1 {node.name}\n::1 localhost\n"),
        "etc/network/interfaces": (0o644, interfaces_file(node)),
        "etc/ssh/ssh_host_ed25519_key": (0o600, host_key.read_text(encoding="ascii")),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, host_key.with_suffix(".pub").read_text(encoding="ascii")),
        "root/.ssh/authorized_keys": (0o600, public_key),
        f"{LAB}/interfaces": (0o644, "".join(f"{interface.name}\n" for interface in node.interfaces)),
        f"{LAB}/network": (0o644, network_batch(node, devices)),
    }


def write(target: Path, node: Node, devices: Mapping[str, str], host_key: Path, public_key: str) -> None:
    """Write the archive. Its size is a multiple of a disk's sector, as tar pads to 10 KiB."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for folder, mode in (("root/.ssh", 0o700), (LAB, 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, (mode, text) in files(node, devices, host_key, public_key).items():
            content = text.encode()
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))
    target.chmod(0o600)
