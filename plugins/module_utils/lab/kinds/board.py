# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are emulated boards: Allwinner's H3 (QEMU's orangepi-pc) with a card, a boot loader and armhf of its own.

A node starts from its card as a board does: u-boot, then what u-boot finds. The card is a file of the user's
(`lab_board_card`, as flash.yml wrote it), or one made here over the small image of recipe_board.py. What the node
writes goes to a qcow2 file over it: the card stays as it was written.

The on-board Ethernet is eth0. All others, also the management link, are adapters behind the USB port, as the testbed's
boards have them.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

from ... import programs
from ...board.files import Disk, Edit
from ...board.layout import find_root
from ...errors import InvalidInput, StepFailed
from .. import access, image, seed
from ..links import Attachment
from ..model import MAC_IN_NAME, Interface, Node
from ..recipe_board import BOARD_IMAGE
from .base import Place, Process
from .qemu import FIRST_PORT, backend

MACHINE = "qemu-system-arm"
ETHERNET = "eth0"
ADAPTERS = 2  # beside that of the management link: the port's controller has three ports
USB = "usb-bus.7"  # OHCI of the NanoPi Neo's USB port; QEMU's adapter is no high-speed device
# hw/usb/dev-network.c puts 40 in place of an address's first byte, and udev names adapters by their address.
PREFIX = "enx40"
MANAGEMENT = f"{PREFIX}ae4c000001"
HOST_ADDRESS, ADDRESS = "169.254.0.1", "169.254.0.2"  # each board has a network of its own
NETWORK = f"{HOST_ADDRESS}/30"
STANZA = f"\nauto {MANAGEMENT}\niface {MANAGEMENT} inet static\n    address {ADDRESS}/30\n"


class Board:
    """A NanoPi Neo, as far as QEMU's Orange Pi PC is one: 1 GiB of memory, whatever is asked."""

    programs: Mapping[str, str] = {
        MACHINE: "qemu-system-arm",
        "qemu-img": "qemu-utils",
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "debugfs": "e2fsprogs",
        "sfdisk": "fdisk",
        "mkimage": "u-boot-tools",
        "cpio": "cpio",
        "unshare": "util-linux",
    }

    live = False

    def image(self, cache: Path) -> tuple[Path, bool]:
        return image.build(cache, BOARD_IMAGE)

    def image_missing(self, cache: Path) -> bool:
        return not image.image_path(cache, BOARD_IMAGE).exists()

    def image_identity(self, cache: Path) -> str:
        return image.identity(image.image_path(cache, BOARD_IMAGE))

    def prepare(self, node: Node, place: Place) -> None:
        card = Path(node.card).absolute() if node.card else self._card(node, place)
        size = 1 << (card.stat().st_size - 1).bit_length()  # hw/sd/sd.c takes powers of two only
        disk = str(place.directory / "disk.qcow2")
        _run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(card), disk, str(size)])

    @staticmethod
    def _card(node: Node, place: Place) -> Path:
        """The small image with the node's own files."""
        card = place.directory / "card.img"
        _run(["cp", "--sparse=always", str(image.image_path(place.cache, BOARD_IMAGE)), str(card)])
        card.chmod(0o600)
        key = access.make_host_key(place.directory, node.name)
        files = seed.files(node, {}, key, place.public_key)
        edits = [
            Edit(f"/{path}", (text + (STANZA if path == "etc/network/interfaces" else "")).encode(), mode)
            for path, (mode, text) in files.items()
            if not path.startswith(seed.LAB)
        ]
        work = place.directory / "edits"
        work.mkdir()
        Disk(str(card), find_root(str(card), card.stat().st_size)).write(edits, work)
        shutil.rmtree(work)
        return card

    def process(self, node: Node, place: Place, management: Attachment, data: Mapping[str, Attachment]) -> Process:
        own = place.directory.name  # relative to the run directory: sockets have short paths
        port = FIRST_PORT + node.number
        argv = [
            *(programs.find(MACHINE) or MACHINE, "-name", node.name, "-nodefaults", "-no-user-config"),
            # Where what was translated does not fit (MiB), all of it is thrown away and translated anew.
            *("-display", "none", "-machine", "orangepi-pc", "-accel", "tcg,thread=multi,tb-size=512"),
            # Without it the guest's time runs 2.4 times as fast: its device tree does not say the timer's frequency.
            *("-global", "cortex-a7-arm-cpu.cntfrq=24000000"),
            *("-chardev", f"socket,id=tty,path={own}/tty,server=on,wait=off,logfile={own}/console.log,logappend=on"),
            *("-serial", "chardev:tty", "-monitor", f"unix:{own}/monitor,server=on,wait=off"),
            *("-drive", f"if=sd,file={own}/disk.qcow2,format=qcow2,cache=unsafe"),
            *("-netdev", _management(port), "-device", _adapter("management", MANAGEMENT.removeprefix("enx"))),
        ]
        for number, interface in enumerate(node.interfaces):
            kind, *options = backend(data[interface.name]).split(",")
            argv += ["-netdev", ",".join([kind, f"id=net{number}", *options])]
            if interface.name == ETHERNET:
                argv += [
                    "-net",
                    f"nic,netdev=net{number}",
                    "-global",
                    f"allwinner-sid.identifier={identifier(interface)}",
                ]
            else:
                argv += ["-device", _adapter(f"net{number}", interface.name.removeprefix("enx"))]
        return Process(tuple(argv), {}, (), f"127.0.0.1:{port}")


def check(node: Node) -> None:
    """Raise InvalidInput for what no emulated board can be or have."""
    if node.card and not Path(node.card).is_file():
        raise InvalidInput(f"{node.name}.lab_board_card", node.card, "no such file; playbooks/flash.yml writes one")
    adapters = [interface for interface in node.interfaces if interface.name != ETHERNET]
    for interface in adapters:
        named = MAC_IN_NAME.fullmatch(interface.name)
        if not named or not interface.name.startswith(PREFIX) or interface.name == MANAGEMENT:
            raise InvalidInput(
                f"{node.name}.{interface.name}",
                interface.name,
                f"a board has {ETHERNET} and USB adapters; these are called {PREFIX} and ten more digits of their "
                f"address, but not {MANAGEMENT}",
            )
    if len(adapters) > ADAPTERS:
        raise InvalidInput(f"{node.name}.{adapters[-1].name}", adapters[-1].name, f"{ADAPTERS} adapters at most")


def _run(argv: list[str]) -> None:
    done = programs.run(argv, timeout=300)
    if done.returncode != 0:
        raise StepFailed(" ".join(argv[:2]), done.stderr.strip())


def _management(port: int) -> str:
    """As in kinds/qemu.py, with the same addresses for every board: a card needs not know which node it will be."""
    network = f"net={NETWORK},host={HOST_ADDRESS},dhcpstart={ADDRESS}"
    return f"user,id=management,restrict=on,ipv6=off,{network},hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:22"


def _adapter(netdev: str, digits: str) -> str:
    mac = ":".join(digits[place : place + 2] for place in range(0, 12, 2))
    return f"usb-net,bus={USB},netdev={netdev},mac={mac}"


def identifier(interface: Interface) -> str:
    """The chip's identifier from which u-boot makes this interface's address, which begins with 02 always.

    u-boot, board/sunxi/board.c and arch/arm/mach-sunxi/cpu_info.c: 02, the lowest byte of the first word, and the
    CRC-32 of the other three words; here two of these are zero.
    """
    octets = bytes.fromhex(interface.mac.replace(":", ""))
    last = _preimage(int.from_bytes(octets[2:], "big"))
    return f"02c000{octets[1]:02x}-0000-0000-0000-0000{last:08x}"


def _preimage(crc: int) -> int:
    """The word that, little-endian behind eight zeros, has this CRC-32: CRCs are linear in each bit."""
    zero = zlib.crc32(bytes(12))
    basis: dict[int, tuple[int, int]] = {}
    for place in range(32):
        word = 1 << place
        value = zlib.crc32(bytes(8) + word.to_bytes(4, "little")) ^ zero
        while value and value.bit_length() in basis:
            other, others = basis[value.bit_length()]
            value, word = value ^ other, word ^ others
        basis[value.bit_length()] = value, word
    missing, found = crc ^ zero, 0
    while missing:
        value, word = basis[missing.bit_length()]
        missing, found = missing ^ value, found ^ word
    return found
