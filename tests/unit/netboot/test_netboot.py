# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a boot server, the texts it hands out, and the ramdisk, which other programs judge."""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput, TestbedError
from plugins.module_utils.netboot import elf, image, loader, model, ramdisk, texts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Yq1nq3y9mQm3m1nq3y9mQm3m1nq3y9mQm3m1nq3y9 operator"
LEFT = {"name": "left", "mac": "02:81:4a:58:bd:80", "address": "192.168.77.20", "image": "one", "dtb": "neo.dtb"}
RIGHT = {"name": "right", "mac": "02-82-AA-58-BD-81", "address": "192.168.77.21", "image": "two", "dtb": "neo.dtb"}


def asked(**more: Any) -> dict[str, Any]:
    return {
        "dir": "/srv/netboot",
        "interface": "eth1",
        "address": "192.168.77.1/24",
        "gateway": None,
        "dhcp": "server",
        "nfs": "ganesha",
        "images": [],
        "boards": [LEFT, RIGHT],
        "modules": [],
        "card_modules": [],
        "authorized_keys": [KEY],
        **more,
    }


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"dir": "srv"}, "dir"),
        ({"dir": "/srv/../etc"}, "dir"),
        ({"address": "192.168.77.300/24"}, "address"),
        ({"address": "192.168.77.1/31"}, "address"),
        ({"gateway": "10.0.0.1"}, "gateway"),
        ({"images": [{"name": "one"}, {"name": "one"}]}, "images[1].name"),
        ({"images": [{"name": "One"}]}, "images[0].name"),
        ({"images": [{"name": "one", "src": "/x"}]}, "images[0].src"),
        ({"boards": [LEFT, {**RIGHT, "mac": "02:81:4A:58:BD:80"}]}, "boards[1].mac"),
        ({"boards": [LEFT, {**RIGHT, "mac": "02:81:4a:58:bd"}]}, "boards[1].mac"),
        ({"boards": [LEFT, {**RIGHT, "address": LEFT["address"]}]}, "boards[1].address"),
        ({"boards": [{**LEFT, "address": "192.168.78.20"}]}, "boards[0].address"),
        ({"boards": [{**LEFT, "address": "192.168.77.255"}]}, "boards[0].address"),
        ({"boards": [{**LEFT, "address": "192.168.77.1"}]}, "boards[0].address"),
        ({"boards": [LEFT, {**RIGHT, "name": "left"}]}, "boards[1].name"),
        ({"boards": [{**LEFT, "name": "Left board"}]}, "boards[0].name"),
        ({"boards": [{**LEFT, "overlay_size": "many"}]}, "boards[0].overlay_size"),
        ({"boards": [{**LEFT, "cmdline": "netboot.image=two"}]}, "boards[0].cmdline"),
        ({"boards": [{**LEFT, "cmdline": "x" * 1000}]}, "boards[0].cmdline"),
        ({"boards": [{**LEFT, "files": {"etc/motd": ""}}]}, "boards[0].files"),
        ({"boards": [{**LEFT, "files": {"/../etc/motd": ""}}]}, "boards[0].files"),
        ({"authorized_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "authorized_keys[0]"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(more: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        model.parse(asked(**more))
    assert caught.value.path == place


def test_each_board_is_told_where_its_own_is() -> None:
    made = model.parse(asked(gateway="192.168.77.254"))
    left, right = (texts.pxelinux(made, board) for board in made.boards)
    assert "kernel /images/one/kernel\n" in left and "kernel /images/two/kernel\n" in right
    assert "netboot.address=192.168.77.20/24 netboot.gateway=192.168.77.254 netboot.overlay=tmpfs" in left
    assert texts.pxelinux_name(made.boards[1]) == "tftp/pxelinux.cfg/01-02-82-aa-58-bd-81"


def test_files_of_a_board_are_for_its_address_alone() -> None:
    made = model.parse(asked(boards=[{**LEFT, "overlay": "server"}, RIGHT]))
    assert texts.exports(made).splitlines()[1:] == [
        "/srv/netboot/images 192.168.77.0/24(ro,no_root_squash,no_subtree_check)",
        "/srv/netboot/boards/left 192.168.77.20(rw,no_root_squash,no_subtree_check)",
        "/srv/netboot/boards/right 192.168.77.21(ro,no_root_squash,no_subtree_check)",
    ]
    assert re.findall(r"Clients = (\S+); Access_Type = (\w+);", texts.ganesha(made)) == [
        ("192.168.77.0/24", "RO"),
        ("192.168.77.20", "RW"),
        ("192.168.77.21", "RO"),
    ]


def test_beside_another_dhcp_server_no_address_is_given() -> None:
    given = texts.dnsmasq(model.parse(asked()))
    assert "dhcp-range=192.168.77.0,static," in given and given.count("dhcp-host=") == 2
    proxy = texts.dnsmasq(model.parse(asked(dhcp="proxy")))
    assert "dhcp-range=192.168.77.0,proxy" in proxy and "dhcp-host=" not in proxy


def test_a_board_mounts_no_disk_of_the_image() -> None:
    table = "UUID=1-2 / ext4 defaults 0 1\n# a word\ntmpfs /tmp tmpfs nosuid 0 0\n/dev/mmcblk0p2 none swap sw 0 0\n"
    assert texts.fstab(table).splitlines()[1:] == ["# a word", "tmpfs /tmp tmpfs nosuid 0 0"]


def tree(place: Path) -> Path:
    """An image as far as the ramdisk looks at it, with this machine's own python for busybox."""
    modules = place / "usr/lib/modules/6.1.9"
    (modules / "kernel").mkdir(parents=True)
    (place / "lib").symlink_to("/usr/lib")
    for name in ("nfsv4", "sunrpc", "overlay", "crc32c_generic"):
        (modules / f"kernel/{name}.ko").write_text(name)
    (modules / "kernel/dwmac-sun8i.ko.xz").write_bytes(lzma.compress(b"driver"))
    (modules / "modules.dep").write_text(
        "kernel/nfsv4.ko: kernel/sunrpc.ko\nkernel/sunrpc.ko:\nkernel/overlay.ko:\n"
        "kernel/crc32c_generic.ko:\nkernel/dwmac-sun8i.ko.xz:\n"
    )
    (modules / "modules.builtin").write_text("kernel/drivers/block/loop.ko\nkernel/fs/ext4/ext4.ko\n")
    program = Path(sys.executable).resolve()
    (place / "usr/bin").mkdir()
    (place / "usr/bin/busybox").write_bytes(program.read_bytes())
    loaded, libraries = elf.needed(program.read_bytes())
    for name in [loaded.rsplit("/", 1)[-1], *libraries]:
        (place / "usr/lib" / name).write_text(name)
    if loaded:
        (place / loaded.strip("/")).parent.mkdir(parents=True, exist_ok=True)
        (place / loaded.strip("/")).write_text("loader")
    return place


def unpacked(ramdisk_bytes: bytes, place: Path) -> list[str]:
    """What the program cpio sees in it."""
    place.mkdir()
    done = subprocess.run(
        ["cpio", "-idm", "--quiet"], input=gzip.decompress(ramdisk_bytes), cwd=place, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(place / "modules")) for path in (place / "modules").glob("*/*"))


def test_a_ramdisk_has_what_is_needed_in_the_order_of_loading(tmp_path: Path) -> None:
    made = ramdisk.build(tree(tmp_path / "tree"), "6.1.9", ramdisk.Drivers(("dwmac_sun8i",), ()))
    names = unpacked(made, tmp_path / "out")
    assert names == [
        "card/000-crc32c_generic.ko",
        "server/000-crc32c_generic.ko",
        "start/000-dwmac-sun8i.ko",
        "start/001-sunrpc.ko",
        "start/002-nfsv4.ko",
        "start/003-overlay.ko",
    ]
    assert (tmp_path / "out/modules" / names[2]).read_bytes() == b"driver"
    assert (tmp_path / "out/init").stat().st_mode & 0o777 == 0o755
    assert made == ramdisk.build(tmp_path / "tree", "6.1.9", ramdisk.Drivers(("dwmac_sun8i",), ()))


def test_a_module_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="dwmac_rk"):
        ramdisk.build(tree(tmp_path / "tree"), "6.1.9", ramdisk.Drivers(("dwmac_rk",), ()))


def test_the_script_of_the_ramdisk_is_one(tmp_path: Path) -> None:
    script = tmp_path / "init"
    script.write_text(ramdisk.INIT)
    for argv in (
        ["sh", "-n", str(script)],
        ["shellcheck", "-s", "dash", "-e", "SC1008,SC2239,SC2013,SC2154", str(script)],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_links_are_followed_as_the_board_does(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/x").write_text("its own")
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "out").symlink_to("../../../../etc/passwd")
    found = ramdisk.inside(tmp_path, "lib/x")
    assert found and found.read_text() == "its own"
    assert ramdisk.inside(tmp_path, "out") is None
    (tmp_path / "ring").symlink_to("ring")
    assert ramdisk.inside(tmp_path, "ring") is None


def test_what_a_program_needs_is_what_readelf_says() -> None:
    for path in ("/bin/sh", sys.executable):
        program = Path(path).resolve()
        said = subprocess.run(["readelf", "-dlW", str(program)], capture_output=True, text=True, check=True).stdout
        loaded = re.findall(r"program interpreter: (.*)\]", said)
        assert elf.needed(program.read_bytes()) == (loaded[0], re.findall(r"\(NEEDED\).*\[(.*)\]", said))
    with pytest.raises(TestbedError):
        elf.needed(b"#!/bin/sh\n")


def test_u_boot_takes_the_script(tmp_path: Path) -> None:
    script = tmp_path / "boot.scr"
    script.write_bytes(loader.script("echo hello\n"))
    said = subprocess.run(["dumpimage", "-l", str(script)], capture_output=True, text=True, check=True).stdout
    assert "ARM Linux Script" in said and "0: 11 Bytes" in " ".join(said.split()).replace("Image ", "")


def test_the_highest_kernel_that_fits_is_taken(tmp_path: Path) -> None:
    for release in ("6.1.9-armmp", "6.1.10-armmp", "6.6.2-armmp"):
        (tmp_path / "lib/modules" / release).mkdir(parents=True)
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / f"boot/vmlinuz-{release}").touch()
    (tmp_path / "lib/modules/7.0.0-without-a-kernel").mkdir()
    assert image.kernel(tmp_path, "one", "")[0] == "6.6.2-armmp"
    assert image.kernel(tmp_path, "one", "6.1")[0] == "6.1.10-armmp"
    with pytest.raises(InvalidInput, match=re.escape("images.one.kernel")):
        image.kernel(tmp_path, "one", "6.2")
