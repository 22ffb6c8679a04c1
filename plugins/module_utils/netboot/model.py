# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a boot server: its place in the network, images, and boards. Checked before anything is touched."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..board.source import Published
from ..errors import InvalidInput
from ..units import parse_capacity
from .ramdisk import Drivers

OVERLAYS = ("tmpfs", "server", "card")
CMDLINE = 1024  # bytes that an ARM kernel takes (arch/arm/include/uapi/asm/setup.h, COMMAND_LINE_SIZE), with the end

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_DTB = re.compile(r"[A-Za-z0-9._/-]+\.dtb")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]+")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")


class Image(NamedTuple):
    """A version in the store; `source` is None where the tree was put there by hand."""

    name: str
    source: Published | None
    signature: str
    keyring: str
    kernel: str  # release, or its beginning; empty: the highest


class Board(NamedTuple):
    """One board. `overlay_size` in bytes; `files` are the board's own, path → text, above those of the image."""

    name: str
    mac: str
    address: ipaddress.IPv4Address
    image: str
    dtb: str
    overlay: str
    overlay_size: int
    cmdline: str
    files: tuple[tuple[str, str], ...]


class Asked(NamedTuple):
    """All of it. `address` is the server's own, with the network's length."""

    folder: Path
    interface: str
    address: ipaddress.IPv4Interface
    gateway: str
    dhcp: str  # server or proxy
    nfs: str  # ganesha or kernel
    images: tuple[Image, ...]
    boards: tuple[Board, ...]
    drivers: Drivers
    authorized_keys: tuple[str, ...]


def parse(params: Mapping[str, Any]) -> Asked:
    """The values of the module's arguments; raises InvalidInput at the first that cannot be used."""
    folder = _matching("dir", str(params["dir"]), _FOLDER, "write an absolute path of letters, digits, . _ and -")
    interface = _matching("interface", str(params["interface"]), _INTERFACE, "write the name of one interface")
    try:
        address = ipaddress.IPv4Interface(params["address"])
    except ValueError as error:
        raise InvalidInput("address", params["address"], "write the server's own, such as 192.168.1.2/24") from error
    if address.network.prefixlen > 30:
        raise InvalidInput(
            "address", params["address"], "there is no room for boards in it; write it as 192.168.1.2/24"
        )
    gateway = str(params["gateway"] or "")
    if gateway:
        _address("gateway", gateway, address)
    images = tuple(_image(f"images[{number}]", image) for number, image in enumerate(params["images"]))
    _once([(f"images[{number}].name", image.name) for number, image in enumerate(images)], "image")
    boards = tuple(_board(f"boards[{number}]", board, address) for number, board in enumerate(params["boards"]))
    for field in ("name", "mac", "address"):
        places = [(f"boards[{number}].{field}", str(getattr(board, field))) for number, board in enumerate(boards)]
        _once(places, "board")
    drivers = Drivers(*(tuple(str(name) for name in params[field]) for field in ("modules", "card_modules")))
    asked = Asked(
        Path(folder),
        interface,
        address,
        gateway,
        params["dhcp"],
        params["nfs"],
        images,
        boards,
        drivers,
        tuple(_key(number, str(key)) for number, key in enumerate(params["authorized_keys"])),
    )
    for number, board in enumerate(boards):
        if len(cmdline(asked, board)) >= CMDLINE:
            raise InvalidInput(
                f"boards[{number}].cmdline", board.cmdline, "the kernel takes 1023 bytes in all; shorten it"
            )
    return asked


def cmdline(asked: Asked, board: Board) -> str:
    """What the board's kernel is told: where everything is, and what the user adds."""
    named = {
        "server": asked.address.ip,
        "store": asked.folder,
        "image": board.image,
        "board": board.name,
        "mac": board.mac,
        "address": f"{board.address}/{asked.address.network.prefixlen}",
        "gateway": asked.gateway,
        "overlay": board.overlay,
    }
    told = [f"netboot.{name}={value}" for name, value in named.items() if str(value)]
    return " ".join([*told, *board.cmdline.split()])


def _image(place: str, asked: Mapping[str, Any]) -> Image:
    name = _matching(f"{place}.name", str(asked["name"]), _NAME, "write small letters, digits, . and -")
    src, sha256 = str(asked.get("src") or ""), str(asked.get("sha256") or "")
    if bool(src) != bool(sha256):
        raise InvalidInput(f"{place}.src", src, "src and sha256 go together: give both, or none for a tree of your own")
    signature, keyring = str(asked.get("signature") or ""), str(asked.get("keyring") or "")
    if bool(signature) != bool(keyring):
        raise InvalidInput(f"{place}.signature", signature, "signature and keyring go together: give both, or none")
    source = Published(f"{place}.src", src, sha256) if src else None
    return Image(name, source, signature, keyring, str(asked.get("kernel") or ""))


def _board(place: str, asked: Mapping[str, Any], server: ipaddress.IPv4Interface) -> Board:
    mac = str(asked["mac"]).lower().replace("-", ":")
    overlay = str(asked.get("overlay") or OVERLAYS[0])
    if overlay not in OVERLAYS:
        raise InvalidInput(f"{place}.overlay", overlay, f"write one of {', '.join(OVERLAYS)}")
    size = str(asked.get("overlay_size") or "1GiB")
    try:
        capacity = parse_capacity(size)
    except ValueError as error:
        raise InvalidInput(f"{place}.overlay_size", size, str(error)) from error
    line = str(asked.get("cmdline") or "")
    if not line.isprintable() or re.search(r"(^|\s)netboot\.", line):
        raise InvalidInput(f"{place}.cmdline", line, "write one line; what begins with netboot. is written for you")
    return Board(
        _matching(f"{place}.name", str(asked["name"]), _HOSTNAME, "write one label of small letters, digits and -"),
        _matching(f"{place}.mac", mac, _MAC, "write six pairs of hexadecimal digits, such as 02:81:4a:58:bd:80"),
        _address(f"{place}.address", str(asked["address"]), server),
        _matching(f"{place}.image", str(asked["image"]), _NAME, "write the name of an image in the store"),
        _matching(
            f"{place}.dtb", str(asked["dtb"]), _DTB, "write a device tree's file, such as sun8i-h3-nanopi-neo.dtb"
        ),
        overlay,
        capacity,
        line,
        _files(f"{place}.files", asked.get("files") or {}),
    )


def _files(place: str, asked: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    for path in asked:
        if not str(path).startswith("/") or ".." in str(path).split("/") or not str(path).isprintable():
            raise InvalidInput(place, path, "write absolute paths on the board, such as /etc/motd")
    return tuple((str(path), str(text)) for path, text in sorted(asked.items()))


def _address(place: str, value: str, server: ipaddress.IPv4Interface) -> ipaddress.IPv4Address:
    try:
        found = ipaddress.IPv4Address(value.partition("/")[0])
    except ValueError as error:
        raise InvalidInput(place, value, "write an address such as 192.168.1.107") from error
    network = server.network
    if found not in network or found in (network.network_address, network.broadcast_address):
        raise InvalidInput(place, value, f"it is no host's address in the server's network {network}")
    if found == server.ip:
        raise InvalidInput(place, value, "that is the server's own address")
    return found


def _key(number: int, key: str) -> str:
    if "\n" in key.strip() or not re.match(r"(?:\S.*\s)?(?:ssh-|ecdsa-sha2-|sk-)\S+ [A-Za-z0-9+/]{40,}", key.strip()):
        raise InvalidInput(
            f"authorized_keys[{number}]", key[:30], "write one line of a public key, as in ~/.ssh/id_ed25519.pub"
        )
    return key.strip()


def _once(places: Sequence[tuple[str, str]], what: str) -> None:
    seen: dict[str, str] = {}
    for place, value in places:
        if value in seen:
            raise InvalidInput(place, value, f"another {what} has it too ({seen[value]}); each needs its own")
        seen[value] = place


def _matching(place: str, value: str, pattern: re.Pattern[str], allowed: str) -> str:
    if not pattern.fullmatch(value) or ".." in value:
        raise InvalidInput(place, value, allowed)
    return value
