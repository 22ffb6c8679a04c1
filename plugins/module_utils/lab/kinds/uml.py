# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are User-Mode-Linux kernels: a whole Linux as one process, without hardware support or privileges.

Each node's disk is a copy-on-write file over the shared image. Its own files (names, addresses, keys) come from a
second disk, a plain tar archive, which the node unpacks at its first start only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ... import programs
from ...errors import TestbedError
from .. import access, image, recipe, seed
from ..links import Attachment
from ..model import BUILT, MANAGEMENT, Node, mac_for, management_addresses
from .base import Place, Process

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")

# Packets that wait where a cable lags; of more than the usual 64 the driver loses what comes meanwhile (vector_send in
# arch/um/drivers/vector_kern.c lets the stack go on although its socket takes nothing).
DEPTH = 256


def program() -> Path:
    return Path(programs.find(KERNEL) or KERNEL)


def kernel_path(node: Node, cache: Path) -> Path:
    """The program that is the node's kernel. All but Debian's have what they need built in."""
    if not node.kernel:
        return program()
    return cache.parent / "kernel/um/linux" if node.kernel == BUILT else Path(node.kernel)


def host_kernel() -> image.Kernel:
    """The one release that the kernel's package brings modules for."""
    releases = sorted(MODULES.iterdir()) if MODULES.is_dir() else []
    if not releases:
        raise TestbedError(f"{MODULES} has no kernel modules; install the package user-mode-linux")
    return image.Kernel(program(), releases[-1])


def image_path(cache: Path) -> Path:
    return image.image_path(cache, recipe.UML, program())


class Uml:
    """Debian's `user-mode-linux`: netem, HTB, fw, u32, ebtables, iptables-legacy; one processor a node."""

    programs: Mapping[str, str] = {
        KERNEL: "user-mode-linux",
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "unshare": "util-linux",
        "taskset": "util-linux",
    }
    live = False

    def image(self, cache: Path) -> tuple[Path, bool]:
        return image.build(cache, recipe.UML, host_kernel())

    def image_missing(self, cache: Path) -> bool:
        return not image_path(cache).exists()

    def image_identity(self, cache: Path) -> str:
        return image.identity(image_path(cache))

    def prepare(self, node: Node, place: Place) -> None:
        key = access.make_host_key(place.directory, node.name)
        devices = {"vec0": MANAGEMENT} | {f"vec{n}": i.name for n, i in enumerate(node.interfaces, start=1)}
        seed.write(place.directory / "seed.tar", node, devices, key, place.public_key)

    def process(self, node: Node, place: Place, management: Attachment, data: Mapping[str, Attachment]) -> Process:
        attachments = [(management, mac_for("management", node.name, MANAGEMENT))]
        attachments += [(data[interface.name], interface.mac) for interface in node.interfaces]
        scratch = place.directory / "uml"
        shutil.rmtree(scratch, ignore_errors=True)
        argv = [
            # First process of a PID namespace of its own. Where a UML kernel is killed alone (kill -9, out of memory),
            # the processes that it traced go on by themselves, with the guest's code and the host's system calls;
            # here the kernel of the host ends them together with it.
            *(programs.find("unshare") or "unshare", "--pid", "--fork", "--kill-child"),
            *(programs.find("taskset") or "taskset", "--cpu-list", str(processor(os.getpid() + node.number))),
            str(kernel_path(node, place.cache)),
            f"umid={node.name}",
            f"uml_dir={scratch}",
            f"mem={node.memory}M",
            f"ubd0={place.directory / 'disk.cow'},{image_path(place.cache)}",
            f"ubd1r={place.directory / 'seed.tar'}",
            "root=/dev/ubda",
            "rootfstype=ext4",
            "rw",
            "init=/sbin/lab-init",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
            "quiet",
            # Boot-time benchmarks of checksums for RAID; they take 0.85 s of each start.
            "initcall_blacklist=raid6_select_algo,calibrate_xor_blocks",
        ]
        argv += [self._device(number, *attachment) for number, attachment in enumerate(attachments)]
        ends = tuple(attachment.id for attachment, _mac in attachments if attachment.transport == "fd")
        environment = {"TMPDIR": memory_directory(node.memory, place.directory)}
        sshd = f"{management_addresses(node.number)[1].partition('/')[0]}:22"
        return Process(tuple(argv), environment, ends, sshd)

    @staticmethod
    def _device(number: int, attachment: Attachment, mac: str) -> str:
        # No gro=1: it merges packets, and a lab that counts packets must see each of them.
        if attachment.transport == "tap":
            return f"vec{number}:transport=tap,ifname={attachment.id},mac={mac}"
        if attachment.transport == "socket":
            return f"vec{number}:transport=bess,dst={attachment.id},mac={mac},depth={DEPTH}"
        return f"vec{number}:transport=fd,fd={{fd:{attachment.id}}},mac={mac}"


def processor(turn: int) -> int:
    """The processor that a kernel stays on. A lab's take turns, and where they begin differs between labs.

    Each system call and page fault in a node goes from one process of this machine to another and back; where these are
    on two processors it takes up to three times as long, as one has to wake the other.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[turn % len(allowed)]


def memory_directory(memory: int, fallback: Path) -> str:
    """Where UML's memory file goes: /dev/shm where it fits, else the node's folder. The file has no name once open."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return str(fallback)
    return "/dev/shm" if room.f_bavail * room.f_frsize > 2 * memory << 20 else str(fallback)
