# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of a board's card with all of Debian on it: systemd, udev, a ramdisk by initramfs-tools, all configured.

Its packages are configured while it is built, which takes programs for armhf that run here: qemu-user, and a kernel
that starts it for them. Where the machine's does not, it is told to in a user namespace, which takes Linux 6.7.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from plugins.module_utils.lab import image
from plugins.module_utils.lab.recipe import PACKAGES, WITHOUT, Recipe
from plugins.module_utils.lab.recipe_board import BOARD, CARD, CARD_FILES, LEFT_OUT, SOURCES
from tests.integration.places import CHECKOUT

HANDLERS = Path("/proc/sys/fs/binfmt_misc")
# Documentation/admin-guide/binfmt-misc.rst; the head of an ELF file: 32 bit, little-endian, executable or shared, ARM.
MAGIC = r"\x7fELF\x01\x01\x01" + r"\x00" * 9 + r"\x02\x00\x28\x00"
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe" + r"\xff" * 3
HANDLER = f":qemu-arm:M::{MAGIC}:{MASK}:/usr/bin/qemu-arm-static:F"
INSIDE = (
    'echo unshared; read -r mapped; mount -t binfmt_misc none "$0"; printf %s "$1" >"$0/register"; shift; exec "$@"'
)

RAMDISK = """# What Debian would find out by itself on the board.
MODULES=list
COMPRESS=gzip
"""
MODULES = "\n".join(("crc32c_generic", "mdio_mux", "dwmac_sun8i", "sunxi_mmc", "mmc_block", "ext4", ""))
# By the address in memory of H3's Ethernet; images of Armbian have this name, or end0.
ETH0 = "[Match]\nPath=platform-1c30000.ethernet\n\n[Link]\nName=eth0\n"
# QEMU's USB adapter as RNDIS, and nothing else: as CDC Ethernet it reports a change of its link thirty times a second.
ONE_DRIVER = "blacklist cdc_subset\n"
ADAPTERS = 'ACTION=="add", SUBSYSTEM=="usb", ATTR{idProduct}=="a4a2", ATTR{bConfigurationValue}="2"\n'
FILES = {
    **CARD_FILES,
    "etc/fstab": (0o644, "/dev/mmcblk0p1 / ext4 defaults 0 1\n"),
    "etc/initramfs-tools/conf.d/board": (0o644, RAMDISK),
    "etc/initramfs-tools/modules": (0o644, MODULES),
    "etc/modprobe.d/adapters.conf": (0o644, ONE_DRIVER),
    "etc/systemd/network/10-eth0.link": (0o644, ETH0),
    "etc/udev/rules.d/70-adapters.rules": (0o644, ADAPTERS),
}
FINISH = f"""set -e
cd "$1"
release=$(ls usr/lib/modules)
INITRD=Yes chroot . update-initramfs -c -k "$release"
size=1020
{CARD}"""
DEBIAN = Recipe(
    "debian",
    (*PACKAGES, *BOARD, "initramfs-tools", "systemd-sysv"),
    WITHOUT,
    FILES,
    FINISH,
    suffix=".img",
    options=("--arch=armhf", "--variant=important", *LEFT_OUT),
    sources=SOURCES,
)


def build() -> Path:
    """The image, from the lab's cache where it is there."""
    path = image.image_path(image.cache_directory(), DEBIAN)
    if not path.exists():
        for_armhf([sys.executable, "-m", __name__], seconds=1500)
    return path


def for_armhf(argv: list[str], seconds: float) -> None:
    """Run a program that starts programs for armhf."""
    if (HANDLERS / "qemu-arm").exists():
        subprocess.run(argv, cwd=CHECKOUT, timeout=seconds, check=True)
        return
    alone = ["unshare", "--user", "--mount", "sh", "-ec", INSIDE, str(HANDLERS), HANDLER, *argv]
    with subprocess.Popen(alone, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stdout.readline() == "unshared\n"
        for name in ("uid_map", "gid_map"):  # all users are themselves there, too
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 4294967295\n")
        said, _none = process.communicate("mapped\n", timeout=seconds)
    assert process.returncode == 0, said


if __name__ == "__main__":
    image.build(image.cache_directory(), DEBIAN, timeout=1400)
