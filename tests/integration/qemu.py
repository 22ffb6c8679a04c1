# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pytest inside a throwaway machine under QEMU that sees this machine's files read-only, by 9P.

The kernel is that of the lab's nodes, Debian's generic one: with a JIT compiler for BPF, types, and several processors.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plugins.module_utils.lab import image
from plugins.module_utils.lab.kinds.qemu import COMMAND_LINE, MACHINE, accelerators
from plugins.module_utils.lab.kinds.table import DRIVERS
from plugins.module_utils.lab.recipe_qemu import QEMU
from tests.integration.uml import CACHE, INIT, ROOT, Outcome, pytest_with

# In place of the lab's own: an archive behind another replaces its files (Documentation/driver-api/early-userspace).
FIRST = r"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t ext4 -o ro /dev/vda /root
/bin/busybox chroot /root /sbin/modprobe -a 9pnet_virtio 9p
/bin/busybox mkdir /host
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose files /host
/bin/busybox mount --move /root /host/mnt
/bin/busybox mount --move /dev /host/dev
exec /bin/busybox switch_root /host {init}
"""
# This machine may lack /lib/modules, and its files cannot be written: an overlay holds the mount point.
MODULES = """chroot /mnt modprobe overlay; mkdir -p /run/overlay/upper /run/overlay/work
mount -t overlay -o lowerdir=/usr/lib,upperdir=/run/overlay/upper,workdir=/run/overlay/work overlay /usr/lib
mkdir -p /usr/lib/modules; mount --bind /mnt/usr/lib/modules /usr/lib/modules; mount -t tmpfs tmpfs /mnt
"""


def pytest_inside(arguments: Sequence[str], folder: Path, seconds: float = 580) -> Outcome:
    """Exit code and output of `pytest ARGUMENTS` in such a machine; `folder`, there /run/out, keeps what it wrote."""
    DRIVERS["qemu"].image(CACHE / "lab")
    init = folder / "init"
    init.write_text(
        INIT.format(
            cache=CACHE.parent,
            bytecode=sys.pycache_prefix or "",
            path=Path(sys.executable).parent,
            out="-t 9p -o trans=virtio,version=9p2000.L,cache=none out",
            modules=MODULES,
            root=ROOT,
            command=shlex.join(pytest_with(arguments)),
        ),
        encoding="utf-8",
    )
    init.chmod(0o755)
    done = subprocess.run(
        machine(init, folder), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )
    code = folder / "code"
    if not code.exists():
        return Outcome(1, f"the machine ended early:\n{done.stdout}{done.stderr}")
    return Outcome(int(code.read_text()), (folder / "output").read_text())


def machine(init: Path, folder: Path) -> list[str]:
    """The command that runs `init` as the first process."""
    root = image.image_path(CACHE / "lab", QEMU)
    shared = "local,security_model=none,multidevs=remap"
    return [
        *(MACHINE, "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-machine", "q35"),
        *(*accelerators(), "-cpu", "max", "-smp", "2", "-m", "1G", "-no-reboot"),
        *("-kernel", str(root.with_suffix(".vmlinux")), "-initrd", str(ramdisk(root, init, folder))),
        *("-append", f"{COMMAND_LINE} panic=-1"),
        *("-drive", f"if=virtio,file={root},format=raw,readonly=on"),
        *("-virtfs", f"{shared},path=/,mount_tag=files,readonly=on"),
        *("-virtfs", f"{shared},path={folder},mount_tag=out"),
    ]


def ramdisk(root: Path, init: Path, folder: Path) -> Path:
    """The lab's, and what comes first in another archive behind it."""
    made = folder / "initrd"
    first = archived("init", 0o100755, FIRST.format(init=init).encode())
    made.write_bytes(root.with_suffix(".initrd").read_bytes() + first + archived("TRAILER!!!", 0, b""))
    return made


def archived(name: str, mode: int, content: bytes) -> bytes:
    """A file as the kernel unpacks it: "newc" of Documentation/driver-api/early-userspace/buffer-format.rst."""
    sizes = {1: mode, 4: 1, 6: len(content), 11: len(name) + 1}  # mode, links, file size, size of the name
    head = b"070701" + b"".join(b"%08x" % sizes.get(field, 0) for field in range(13)) + name.encode() + b"\0"
    return b"".join(part + bytes(-len(part) % 4) for part in (head, content))
