# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a board's owner asks of an image, checked; and the files that this makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidInput
from ..units import parse_capacity
from .source import Published

HOME = "/var/lib/impair.testbed"
MARKER = "/etc/impair.testbed-image.json"  # which image this is; on the card, for the next run
ENVIRONMENT = "/boot/armbianEnv.txt"  # what Armbian's boot.scr imports
INTERFACES = "/etc/network/interfaces"
NO_PASSWORD = "*"  # nothing hashes to it; unlike "!" it leaves ssh keys alone (sshd(8), LOCKED_PASSWD_PREFIX)
ROOT_SIZES = ("image", "first_boot", "card")

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, and what Ansible's inventories use
_KEY = re.compile(r"(?:\S.*\s)?(?:ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)\S+ [A-Za-z0-9+/]{40,}={0,2}(?:\s.*)?")
_HASH = re.compile(r"\$(?:y|gy|7|6|5|2[aby])\$[A-Za-z0-9./,=$]{20,}")  # crypt(5)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IFACE = re.compile(r"^\s*iface\s+(\S+)", re.MULTILINE)
_PORTS = re.compile(r"^\s*bridge[_-]ports\s+(.*)", re.MULTILINE)
_NO_NAMES = ("lo", "none", "all")  # bridge-utils-interfaces(5)
_KERNEL = re.compile(r"\d[A-Za-z0-9.+-]*")


class Package(NamedTuple):
    """A Debian package that the image is to have from its first boot on."""

    file: Published


class Asked(NamedTuple):
    """How the copy of the image is to differ from the published one."""

    hostname: str
    authorized_keys: tuple[str, ...]
    interfaces: str  # /etc/network/interfaces; empty: as the image has it
    environment: tuple[tuple[str, str], ...]
    packages: tuple[Package, ...]
    root_password: str  # a hash
    kernel: str  # the version to stay at, or its beginning; empty: any
    root_size: str  # one of ROOT_SIZES, or bytes in decimal

    @property
    def names(self) -> tuple[str, ...]:
        """The interfaces that ifupdown is to have: those with stanzas, and ports of its bridges."""
        ports = " ".join(_PORTS.findall(self.interfaces)).split()
        return tuple(
            name for name in dict.fromkeys([*_IFACE.findall(self.interfaces), *ports]) if name not in _NO_NAMES
        )


def parse(params: Mapping[str, Any]) -> Asked:
    """The values of the module's arguments; raises InvalidInput at the first that cannot be used."""
    hostname = str(params["hostname"])
    if not _HOSTNAME.fullmatch(hostname):
        raise InvalidInput("hostname", hostname, "write one label of small letters, digits and -, such as master")
    password = params["root_password"] or NO_PASSWORD
    if password != NO_PASSWORD and not _HASH.fullmatch(password):
        raise InvalidInput(
            "root_password",
            "(not shown)",
            "write a hash as `mkpasswd` or `openssl passwd -6` give it, never the password itself",
        )
    keys = tuple(_key(number, str(key)) for number, key in enumerate(params["authorized_keys"]))
    if not keys and password == NO_PASSWORD:
        raise InvalidInput(
            "authorized_keys", [], "without a public key or a root_password nobody could log in; give one of them"
        )
    interfaces = str(params["interfaces"] or "")
    if interfaces and not _IFACE.search(interfaces):
        raise InvalidInput(
            "interfaces", interfaces, "there is no `iface` in it; write the file as interfaces(5) describes it"
        )
    kernel = str(params["kernel"] or "")
    if kernel and not _KERNEL.fullmatch(kernel):
        raise InvalidInput("kernel", kernel, "write a version or its beginning, such as 4.19 or 6.6.44-current-sunxi")
    return Asked(
        hostname,
        keys,
        interfaces if interfaces.endswith("\n") or not interfaces else interfaces + "\n",
        _environment(params["environment"]),
        _packages(params["packages"]),
        password,
        kernel,
        _root_size(str(params["root_size"])),
    )


def _key(number: int, key: str) -> str:
    if "\n" in key.strip() or not _KEY.fullmatch(key.strip()):
        raise InvalidInput(
            f"authorized_keys[{number}]",
            key[:30],
            "write one line of a public key, as in ~/.ssh/id_ed25519.pub; never a private one",
        )
    return key.strip()


def _environment(asked: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    for name, value in asked.items():
        place = f"environment.{name}"
        if not _VARIABLE.fullmatch(str(name)):
            raise InvalidInput(place, name, "the names in armbianEnv.txt have letters, digits and _")
        if isinstance(value, (dict, list)) or not str(value).isprintable():
            raise InvalidInput(place, value, "write one line of text")
    return tuple((str(name), str(value)) for name, value in sorted(asked.items()))


def _packages(asked: Sequence[Mapping[str, Any]]) -> tuple[Package, ...]:
    return tuple(
        Package(Published(f"packages[{number}].src", str(package["src"]), str(package["sha256"])))
        for number, package in enumerate(asked)
    )


def _root_size(value: str) -> str:
    if value in ROOT_SIZES:
        return value
    try:
        return str(parse_capacity(value))
    except ValueError as error:
        raise InvalidInput("root_size", value, f"write one of {', '.join(ROOT_SIZES)}, or {error}") from error


# Texts of files, before and after


def hosts(text: str, hostname: str) -> str:
    """/etc/hosts with the node's own name; other lines stay."""
    kept = [line for line in text.splitlines() if line.split()[:1] != ["127.0.1.1"]]
    if not any(line.split()[:1] == ["127.0.0.1"] for line in kept):
        kept.insert(0, "127.0.0.1 localhost")
    return "".join(f"{line}\n" for line in [*kept, f"127.0.1.1 {hostname}"])


def shadow(text: str, password: str) -> str:
    """/etc/shadow with root's hash. Its age goes: 0, as Armbian has it, asks for a new one."""
    lines = []
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == "root" and len(fields) > 2:
            fields[1:3] = [password, ""]
        lines.append(":".join(fields))
    return "".join(f"{line}\n" for line in lines)


def environment(text: str, asked: Sequence[tuple[str, str]]) -> str:
    """armbianEnv.txt with these settings; a line that stands is changed in place."""
    lines, left = [], dict(asked)
    for line in text.splitlines():
        name = line.split("=", 1)[0].strip()
        if name in dict(asked):
            if name not in left:
                continue  # a second line of the same name would win
            line = f"{name}={left.pop(name)}"
        lines.append(line)
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}={value}" for name, value in left.items())])


NETWORKD = "/etc/systemd/network/00-impair.testbed-image.network"
NETWORKMANAGER = "/etc/NetworkManager/conf.d/89-impair.testbed-image.conf"
PIN = """\
# impair.testbed: board_kernel keeps the kernel that this image came with.
Package: linux-image-* linux-dtb-* linux-headers-* linux-u-boot-*
Pin: release *
Pin-Priority: -1
"""
PIN_PATH = "/etc/apt/preferences.d/impair.testbed-kernel"


def managers(names: Sequence[str]) -> dict[str, str]:
    """networkd (and with it netplan) and NetworkManager leave these interfaces to ifupdown: path → text."""
    head = "# impair.testbed: /etc/network/interfaces has these interfaces\n"
    devices = ";".join(f"interface-name:{name}" for name in names)
    return {
        NETWORKD: f"{head}[Match]\nName={' '.join(names)}\n\n[Link]\nUnmanaged=yes\n",
        NETWORKMANAGER: f"{head}[keyfile]\nunmanaged-devices+={devices}\n",
    }


# dpkg runs on the board itself, at its first boot and before its network: the image may be of another architecture than
# this machine. Services are started afterwards, and not waited for: they may be ordered behind this very unit.
UNIT_NAME = "impair.testbed-packages.service"
UNIT = f"""\
[Unit]
Description=Packages that the image came with (impair.testbed)
ConditionPathExists={HOME}/packages
Wants=network-pre.target
Before=network-pre.target networking.service

[Service]
Type=oneshot
ExecStart=/bin/sh {HOME}/install-packages

[Install]
WantedBy=multi-user.target
"""
INSTALL = f"""\
#!/bin/sh
# Runs once, at the board's first boot: installs the packages that lie here, without network.
set -e
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
dpkg --force-confold --install {HOME}/packages/*.deb
rm -r {HOME}/packages
systemctl daemon-reload
if systemctl -q is-enabled networking.service; then systemctl --no-block start networking.service; fi
"""


def marker(recipe: str, source: str, hostname: str, uses: Sequence[int]) -> str:
    """What the card says of itself. `uses` are those of the file system before any boot (layout.Root)."""
    return (
        json.dumps({"recipe": recipe, "source": source, "hostname": hostname, "uses": list(uses)}, sort_keys=True)
        + "\n"
    )


def parse_marker(content: bytes | None) -> dict[str, Any] | None:
    """The reverse of `marker`; None where it is not one of ours."""
    try:
        found = json.loads(content or b"")
    except ValueError:
        return None
    known = isinstance(found, dict) and isinstance(found.get("recipe"), str) and isinstance(found.get("uses"), list)
    return found if known else None
