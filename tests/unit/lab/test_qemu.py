# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a node under QEMU is started, and how its kernel is unpacked."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from plugins.module_utils.errors import TestbedError
from plugins.module_utils.lab import links
from plugins.module_utils.lab.kinds import qemu
from plugins.module_utils.lab.kinds.base import Place
from plugins.module_utils.lab.model import Interface, Node

NODE = Node(
    "left",
    "qemu",
    256,
    3,
    (
        Interface("eth0", "52:54:00:00:00:01", "cable", "10.0.0.1/24", ""),
        Interface("eth1", "52:54:00:00:00:02", "other", "", ""),
    ),
)


def test_each_interface_is_a_device_in_its_order_and_ssh_has_a_way_of_its_own(tmp_path: Path) -> None:
    data = {"eth0": links.Attachment("socket", "w.sock"), "eth1": links.Attachment("tap", "tap1")}
    place = Place(tmp_path / "left", tmp_path, "key")
    process = qemu.Qemu().process(NODE, place, links.management(NODE), data)
    words = list(process.argv)
    backends = [words[number + 1] for number, word in enumerate(words) if word == "-netdev"]
    assert backends[0].startswith("user,id=net0,restrict=on,")
    assert backends[0].endswith("hostfwd=tcp:127.0.0.1:10003-169.254.3.2:22")
    assert backends[1:] == [
        "stream,id=net1,server=off,addr.type=unix,addr.path=w.sock.stream",
        "tap,id=net2,ifname=tap1,script=no,downscript=no,vhost=off",
    ]
    devices = [word for word in words if word.startswith("virtio-net-pci,")]
    assert [device.split(",")[2] for device in devices[1:]] == ["mac=52:54:00:00:00:01", "mac=52:54:00:00:00:02"]
    assert (process.ends, process.sshd) == ((), "127.0.0.1:10003")
    assert not any(str(tmp_path / "left") in word for word in words)  # a long run directory is no matter


def test_a_card_with_sriov_comes_last_behind_a_port_of_its_own_with_an_iommu(tmp_path: Path) -> None:
    first, second = NODE.interfaces
    node = NODE._replace(interfaces=(first._replace(device="igb"), second))
    data = {name: links.Attachment("tap", f"tap-{name}") for name in ("eth0", "eth1")}
    process = qemu.Qemu().process(node, Place(tmp_path / "left", tmp_path / "lab", "key"), links.management(node), data)
    words = list(process.argv)
    devices = [words[number + 1] for number, word in enumerate(words) if word == "-device"]
    assert devices[0].startswith("intel-iommu,") and "intel_iommu=on" in words[words.index("-append") + 1]
    assert devices[-3].startswith("virtio-net-pci,netdev=net1,mac=52:54:00:00:00:02")
    assert devices[-2].startswith("pcie-root-port,id=port2,")
    assert devices[-1] == "igb,bus=port2,netdev=net2,mac=52:54:00:00:00:01,romfile="
    assert [one.name for one in qemu.in_order(node)] == ["eth1", "eth0"]
    assert process.env == {}
    program = tmp_path / "qemu/usr/bin/qemu-system-x86_64"
    program.parent.mkdir(parents=True)
    program.touch()
    fetched = qemu.Qemu().process(node, Place(tmp_path / "left", tmp_path / "lab", "key"), links.management(node), data)
    assert fetched.argv[0] == str(program) and list(fetched.env) == ["QEMU_MODULE_DIR"]
    plain = qemu.Qemu().process(NODE, Place(tmp_path / "left", tmp_path / "lab", "key"), links.management(NODE), data)
    assert not any("iommu" in word or "igb" in word for word in plain.argv) and plain.argv[0] != str(program)


@pytest.mark.parametrize(
    ("flags", "first"), [("fpu vmx sse", "kvm"), ("fpu svm", "kvm"), ("fpu sse hypervisor", "tcg"), ("", "tcg")]
)
def test_kvm_is_for_processors_that_have_virtualization(tmp_path: Path, flags: str, first: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    asked = qemu.accelerators(tmp_path / "cpuinfo")
    assert asked[1].startswith(first)
    assert asked[-1].startswith("tcg,")


def packed(content: bytes) -> bytes:
    """A kernel as its build leaves it: three sectors, then code, then what is packed, then its length."""
    header = bytearray(3 * 512)
    header[0x1F1] = 2
    struct.pack_into("<II", header, 0x248, 100, len(content) + 4)
    return bytes(header) + bytes(100) + content + struct.pack("<I", 7)


def test_the_kernel_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "image.vmlinuz").write_bytes(packed(lzma.compress(b"\x7fELF the kernel")))
    qemu.unpack(tmp_path / "image.ext4")
    assert (tmp_path / "image.vmlinux").read_bytes() == b"\x7fELF the kernel"


def test_a_kernel_that_is_packed_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.vmlinuz").write_bytes(packed(b"\x28\xb5\x2f\xfd zstd's magic number"))
    with pytest.raises(TestbedError, match="xz"):
        qemu.unpack(tmp_path / "image.ext4")
