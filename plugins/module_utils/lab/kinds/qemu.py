# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are virtual machines under QEMU: Debian's generic kernel as boards have it, with USB and usbip.

Each node's disk is a qcow2 file over the shared image; its own files come from a second disk, as in kinds/uml.py.
The kernel starts directly and unpacked, which under emulation saves ten of sixteen seconds.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Mapping
from pathlib import Path

from ... import programs
from ...errors import StepFailed, TestbedError
from .. import access, image, seed
from ..links import Attachment
from ..model import IGB, MANAGEMENT, Interface, Node, mac_for, management_addresses
from ..recipe_qemu import QEMU
from .base import Place, Process

MACHINE = "qemu-system-x86_64"
FIRST_PORT = 10000  # of the lab's namespace, where nothing else listens; node N's ssh is at this plus N

# quiet and no console blanking aside: what the emulated hardware has no use for, or measures for seconds.
COMMAND_LINE = (
    "console=ttyS0 quiet panic=0 net.ifnames=0 mitigations=off audit=0 apparmor=0 nokaslr no_timer_check tsc=reliable "
    "random.trust_cpu=on cryptomgr.notests"
)
IOMMU = "intel_iommu=on iommu=pt"


class Qemu:
    """Debian's `linux-image-amd64`, emulated where the processor has no virtualization."""

    programs: Mapping[str, str] = {
        MACHINE: "qemu-system-x86",
        "qemu-img": "qemu-utils",
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "unshare": "util-linux",
    }
    live = False

    def image(self, cache: Path) -> tuple[Path, bool]:
        return image.build(cache, QEMU, complete=unpack)

    def image_missing(self, cache: Path) -> bool:
        return not image.image_path(cache, QEMU).exists()

    def image_identity(self, cache: Path) -> str:
        return image.identity(image.image_path(cache, QEMU))

    def prepare(self, node: Node, place: Place) -> None:
        key = access.make_host_key(place.directory, node.name)
        devices = {"vec0": MANAGEMENT} | {f"vec{n}": i.name for n, i in enumerate(in_order(node), start=1)}
        seed.write(place.directory / "seed.tar", node, devices, key, place.public_key)
        sockets = place.directory / "s"  # where users of munet look for them
        sockets.mkdir()
        for name, target in (("console", "tty"), ("monitor", "monitor")):
            (sockets / name).symlink_to(f"../{target}")
        backing = str(image.image_path(place.cache, QEMU))
        disk = str(place.directory / "disk.qcow2")
        made = programs.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, disk])
        if made.returncode != 0:
            raise StepFailed("qemu-img create", made.stderr.strip())

    def process(self, node: Node, place: Place, management: Attachment, data: Mapping[str, Attachment]) -> Process:
        root = image.image_path(place.cache, QEMU)
        own = place.directory.name  # relative to the run directory: sockets have short paths
        port = FIRST_PORT + node.number
        machine = [programs.find(MACHINE) or MACHINE]
        environment: dict[str, str] = {}
        command_line = COMMAND_LINE
        bus = ["-machine", "q35"]
        if has_sriov(node):
            machine, environment = sriov_machine(place.cache)
            command_line += f" {IOMMU}"
            # Interrupts that QEMU's IOMMU remaps have to pass it (docs/system/devices/igb.rst, hw/i386/intel_iommu.c).
            bus = ["-machine", "q35,kernel-irqchip=split", "-device", "intel-iommu,intremap=on,caching-mode=on"]
        argv = [
            *(*machine, "-name", node.name, "-nodefaults", "-no-user-config"),
            *("-display", "none", *bus, *accelerators(), "-cpu", "max", "-m", f"{node.memory}M"),
            *("-smp", str(node.cpus)),
            *("-kernel", str(root.with_suffix(".vmlinux")), "-initrd", str(root.with_suffix(".initrd"))),
            *("-append", command_line),
            *("-chardev", f"socket,id=tty,path={own}/tty,server=on,wait=off,logfile={own}/console.log,logappend=on"),
            *("-serial", "chardev:tty", "-monitor", f"unix:{own}/monitor,server=on,wait=off"),
            *("-gdb", "chardev:gdb", "-chardev", f"socket,id=gdb,path={own}/s/gdbserver,server=on,wait=off"),
            # The lab ends by killing, and its disks go with it: the host's page cache is all the safety that it needs.
            *_disk("root", f"{own}/disk.qcow2", "qcow2,cache=unsafe,discard=unmap"),
            *_disk("seed", f"{own}/seed.tar", "raw,readonly=on"),
            *_network(0, _management(node, port), mac_for("management", node.name, MANAGEMENT)),
        ]
        for number, interface in enumerate(in_order(node), start=1):
            argv += _network(number, backend(data[interface.name]), interface.mac, interface.device)
        return Process(tuple(argv), environment, (), f"127.0.0.1:{port}")


def _disk(name: str, path: str, form: str) -> list[str]:
    drive = f"if=none,id={name},file={path},format={form}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def _network(number: int, backend: str, mac: str, device: str = "") -> list[str]:
    """A device and what it is plugged into. No merged packets: the backends here offer no offloads."""
    kind, *options = backend.split(",")
    netdev = ["-netdev", ",".join([kind, f"id=net{number}", *options])]
    plugged = f"netdev=net{number},mac={mac},romfile="
    if device != IGB:
        return [*netdev, "-device", f"virtio-net-pci,{plugged}"]
    # On a bus of its own: its virtual functions have addresses from 10.0 on there.
    port = f"pcie-root-port,id=port{number},chassis={number},slot={number}"
    return [*netdev, "-device", port, "-device", f"igb,bus=port{number},{plugged}"]


def has_sriov(node: Node) -> bool:
    return any(one.device == IGB for one in node.interfaces)


def in_order(node: Node) -> list[Interface]:
    """The interfaces as the node's kernel finds them: cards with SR-IOV last, as their driver comes last."""
    return sorted(node.interfaces, key=lambda one: one.device == IGB)


def sriov_machine(cache: Path) -> tuple[list[str], dict[str, str]]:
    """The command, and its environment, of a QEMU that has igb (since 8.0): one in the cache, else the machine's."""
    root = cache.parent / "qemu/usr"
    program = root / "bin" / MACHINE
    if not program.exists():
        return [programs.find(MACHINE) or MACHINE], {}
    firmware = [word for folder in ("qemu", "seabios") for word in ("-L", str(root / "share" / folder))]
    return [str(program), *firmware], {"QEMU_MODULE_DIR": str(root / "lib/x86_64-linux-gnu/qemu")}


def _management(node: Node, port: int) -> str:
    """QEMU's own small network, which leads nowhere but from that port to the node's sshd."""
    host, inside = (address.partition("/")[0] for address in management_addresses(node.number))
    network = f"net={host}/30,host={host},dhcpstart={inside}"
    return f"user,restrict=on,ipv6=off,{network},hostfwd=tcp:127.0.0.1:{port}-{inside}:22"


def backend(attachment: Attachment) -> str:
    if attachment.transport == "tap":
        return f"tap,ifname={attachment.id},script=no,downscript=no,vhost=off"
    return f"stream,server=off,addr.type=unix,addr.path={attachment.id}.stream"


def accelerators(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """KVM, where the processor has virtualization: /dev/kvm may be there all the same, and hang every kernel.

    Emulation stands in where KVM cannot be used for another reason.
    """
    flags = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    emulation = ["-accel", "tcg,thread=multi,tb-size=128"]
    return ["-accel", "kvm", *emulation] if flags & {"vmx", "svm"} else emulation


def unpack(draft: Path) -> None:
    """Unpack the kernel beside an image, so that no node has to do it in emulation.

    Documentation/x86/boot.rst: the number of sectors before the 64-bit code is at 0x1f1, offset and length of what is
    packed at 0x248 and 0x24c; QEMU starts the ELF file inside by its PVH entry.
    """
    packed = draft.with_suffix(".vmlinuz").read_bytes()
    start = (packed[0x1F1] + 1) * 512 + struct.unpack_from("<I", packed, 0x248)[0]
    try:
        kernel = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed[start:])
    except lzma.LZMAError as error:
        raise TestbedError(f"the kernel in {draft.with_suffix('.vmlinuz')} is not packed by xz: {error}") from error
    draft.with_suffix(".vmlinux").write_bytes(kernel)
