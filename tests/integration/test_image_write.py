# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards are written whole, or say that they are not; judged by cmp, sfdisk, debugfs and e2fsck alone."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.board import card as cards
from plugins.module_utils.board import engine, target
from plugins.module_utils.errors import TestbedError
from tests.integration import boards
from tests.integration.boards import CARD, HASH, INTERFACES, KEY, MIB, SIZE, START, Image, arguments, debugfs, loop, sh
from tests.integration.labs import wait_for
from tests.integration.places import CHECKOUT, run


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return boards.make(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return boards.card(tmp_path / "card")


def flash(asked: dict[str, Any], check: bool = False) -> dict[str, Any]:
    return engine.manage(asked, check)


def refused(asked: dict[str, Any], pattern: str) -> None:
    with pytest.raises(TestbedError, match=pattern):
        flash(asked)


def expected(folder: Path, image: Image) -> Path:
    """What a card has to hold where nothing is asked but a name and a key, made without our code: by a loop mount."""
    path = folder / "expected"
    sh(f"cp {image.path} {path}; mkdir {folder}/mnt; mount -o loop,offset={START} {path} {folder}/mnt")
    try:
        sh(f"""cd {folder}/mnt; echo slave >etc/hostname; rm root/.not_logged_in_yet
            printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 slave\\n' >etc/hosts
            printf 'root:*::0:99999:7:::\\ndaemon:*:19000:0:99999:7:::\\n' >etc/shadow
            rm etc/systemd/system/serial-getty@.service.d/override.conf
            mkdir -m 700 root/.ssh; echo '{KEY}' >root/.ssh/authorized_keys; chmod 600 root/.ssh/authorized_keys""")
    finally:
        unmount(folder / "mnt", path)
    return path


def unmount(folder: Path, path: Path | str) -> None:
    """The loop device goes a moment later where somebody else looks through all of them meanwhile."""
    sh(f"umount {folder}")
    wait_for(lambda: not sh(f"losetup --associated {path}").stdout)


def tree(path: Path | str, folder: Path) -> dict[str, tuple[str, str]]:
    """Every file of the root file system: kind, mode and owner; content or link."""
    folder.mkdir()
    sh(f"mount -o loop,ro,noload,offset={START} {path} {folder}")
    try:
        listed = sh(f"cd {folder}; find . -mindepth 1 -printf '%P\\t%M %U %G\\t%l\\n'").stdout.splitlines()
        found = {}
        for line in listed:
            name, mode, link = line.split("\t")
            regular = mode.startswith("-")
            found[name] = (mode, (folder / name).read_text(errors="replace") if regular else link)
        return found
    finally:
        unmount(folder, path)


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_used_card_holds_the_image_and_a_second_run_writes_nothing(
    image: Image, cache: Path, card: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "loop":
        with loop(card) as device:
            written_twice(image, cache, card, device, tmp_path)
    else:
        written_twice(image, cache, card, str(card), tmp_path)


def written_twice(image: Image, cache: Path, card: Path, device: str, tmp_path: Path) -> None:
    asked = arguments(image, device, cache)
    assert flash(asked, check=True)["changed"]
    assert boards.untouched(card)
    assert flash(asked)["changed"]
    published, content = image.path.read_bytes(), card.read_bytes()
    assert content[:START] == published[:START]  # partition table and boot loader
    assert content[SIZE:] == b"\xff" * (CARD - SIZE)
    run(["e2fsck", "-fn", f"{device}?offset={START}"])
    found, wanted = tree(device, tmp_path / "a"), tree(expected(tmp_path, image), tmp_path / "b")
    assert json.loads(found.pop("etc/impair.testbed-image.json")[1])["source"] == image.sha256
    assert found == wanted
    stood = os.stat(card).st_mtime_ns
    for check in (True, False):
        again = flash(asked, check)
        assert not again["changed"] and again["steps"] == []
    assert os.stat(card).st_mtime_ns == stood
    assert card.read_bytes() == content


def test_all_that_can_be_asked_of_an_image(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    bridge = "auto br0\niface br0 inet static\n\tbridge_ports enx8cae4cf5b7ae eth0\n\taddress 192.168.1.107/24\n"
    more: dict[str, Any] = {
        "interfaces": f"{bridge}iface eth0 inet manual\niface enx8cae4cf5b7ae inet manual",
        "environment": {"verbosity": 7, "extraargs": "usbcore.autosuspend=-1 panic=10"},
        "root_password": HASH,
        "kernel": "4.19",
    }
    flash(arguments(image, card, cache, **more))
    found = tree(card, tmp_path / "tree")
    assert found["etc/network/interfaces"] == ("-rw-r--r-- 0 0", more["interfaces"] + "\n")
    assert found["boot/armbianEnv.txt"][1].splitlines() == [
        *("verbosity=7", "bootlogo=false", "fdtfile=sun8i-h3-nanopi-neo.dtb"),
        "extraargs=usbcore.autosuspend=-1 panic=10",
    ]
    assert found["etc/shadow"] == ("-rw-r----- 0 42", f"root:{HASH}::0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n")
    assert "Name=br0 eth0 enx8cae4cf5b7ae\n" in found["etc/systemd/network/00-impair.testbed-image.network"][1]
    assert "interface-name:enx8cae4cf5b7ae" in found["etc/NetworkManager/conf.d/89-impair.testbed-image.conf"][1]
    assert "Pin-Priority: -1\n" in found["etc/apt/preferences.d/impair.testbed-kernel"][1]
    run(["e2fsck", "-fn", f"{card}?offset={START}"])


@pytest.mark.parametrize("size", ["card", "26MiB"])
def test_the_root_file_system_grows(image: Image, cache: Path, card: Path, size: str) -> None:
    """The table, and the file system in it, and all of that is written."""
    done = flash(arguments(image, card, cache, root_size=size))
    assert os.stat(done["image"]).st_size == START + (CARD - START if size == "card" else 26 * MIB)
    partition = json.loads(run(["sfdisk", "--json", str(card)]).stdout)["partitiontable"]["partitions"][0]
    wanted = CARD - START if size == "card" else 26 * MIB
    assert (partition["start"], partition["size"]) == (START // 512, wanted // 512)
    blocks = re.search(r"Block count: +(\d+)\n(?:.*\n)*Block size: +(\d+)", debugfs(card, "stats -h"))
    assert blocks and int(blocks[1]) * int(blocks[2]) == wanted
    run(["e2fsck", "-fn", f"{card}?offset={START}"])
    assert debugfs(card, "ls -p /root").count(".no_rootfs_resize") == 1
    assert not flash(arguments(image, card, cache, root_size=size))["changed"]


@pytest.mark.parametrize("packer", ["xz -0 -k", "gzip -1 -k", "zstd -1 -q", "7zz a -mx1"])
def test_packed_images(image: Image, cache: Path, card: Path, tmp_path: Path, packer: str) -> None:
    packed = tmp_path / "board.packed"
    if packer.startswith("7zz"):  # as the original's: with a text beside the image
        sh(f"cd {tmp_path}; cp {image.path} x.img; echo Armbian >a.txt; {packer} x.7z x.img a.txt; mv x.7z {packed}")
    else:
        sh(f"{packer} -c {image.path} >{packed}")
    plain, used = boards.card(tmp_path / "plain"), flash(arguments(image, card, cache))
    done = flash(arguments(Image(packed, boards.sha256(packed)), plain, cache))
    assert done["changed"] and used["recipe"] != done["recipe"]
    names = ("etc/hostname", "etc/shadow", "root/.ssh/authorized_keys")
    assert [debugfs(plain, f"cat {name}") for name in names] == [debugfs(card, f"cat {name}") for name in names]
    assert plain.read_bytes()[:START] == image.path.read_bytes()[:START]
    run(["e2fsck", "-fn", f"{plain}?offset={START}"])


def test_the_same_bytes_from_an_empty_cache(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    """What a card holds is known also where the cache was lost: the copy is made of the same bytes again."""
    flash(arguments(image, card, cache))
    time.sleep(1.1)  # file systems count in seconds
    assert not flash(arguments(image, card, tmp_path / "other"))["changed"]


def test_a_url_is_fetched_once(image: Image, card: Path, tmp_path: Path) -> None:
    source = tmp_path / "published.img"
    source.write_bytes(image.path.read_bytes())
    url = Image(Path("x"), image.sha256)
    asked = {**arguments(url, card, tmp_path / "cache"), "src": f"file://{source}"}
    assert flash(asked)["changed"]
    source.unlink()
    assert not flash(asked)["changed"]


class Server(http.server.BaseHTTPRequestHandler):
    """Gives the image whole at /whole, and half of it at /half."""

    content = b""
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // (2 if self.path == "/half" else 1)])

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


def test_fetched_by_http(image: Image, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "content", image.path.read_bytes())
    monkeypatch.setattr(Server, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = arguments(image, card, tmp_path / "cache")
        place = f"http://127.0.0.1:{server.server_port}"
        refused(
            {**asked, "src": f"{place}/half"}, "src: .*/half broke off after 12582912 of 25165824 bytes; run this again"
        )
        refused({**asked, "src": f"{place}/none"}, "src: .*/none cannot be fetched: HTTP Error 404")
        assert boards.untouched(card)
        assert not list((tmp_path / "cache/published").iterdir())
        assert flash({**asked, "src": f"{place}/whole"})["changed"]
        assert not flash({**asked, "src": f"{place}/whole"})["changed"]
        assert Server.asked == ["/half", "/none", "/whole"]
        server.shutdown()


def test_a_gpt_grows_as_well(cache: Path, card: Path, tmp_path: Path) -> None:
    """The second table moves to the end of the card."""
    made = boards.make(tmp_path, kind="")
    run(["sfdisk", "-q", str(made.path)], "label: gpt\nfirst-lba: 2048\nstart=8192, size=38912\n")
    run(
        [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-E",
            f"offset={START}",
            "-d",
            f"{tmp_path}/tree",
            str(made.path),
            "19456k",
        ]
    )
    image = Image(made.path, boards.sha256(made.path))
    flash(arguments(image, card, cache, root_size="card"))
    verified = run(["sfdisk", "--verify", str(card)])
    assert "No errors detected." in verified.stdout and not verified.stderr
    assert card.read_bytes()[-512:][:8] == b"EFI PART"
    run(["e2fsck", "-fn", f"{card}?offset={START}"])
    blocks = re.search(r"Block count: +(\d+)\n(?:.*\n)*Block size: +(\d+)", debugfs(card, "stats -h"))
    assert blocks and CARD - START - 2 * MIB <= int(blocks[1]) * int(blocks[2]) < CARD - START


def booted(card: Path) -> None:
    """As a boot leaves it."""
    folder = card.parent / "booted"
    folder.mkdir()
    sh(f"mount -o loop,offset={START} {card} {folder}; echo log >{folder}/var/log; umount {folder}")


def test_a_card_that_has_booted_needs_force(image: Image, cache: Path, card: Path) -> None:
    asked = arguments(image, card, cache)
    flash(asked)
    booted(card)
    stood = boards.sha256(card)
    for other in ({}, {"hostname": "master"}):
        for check in (True, False):
            with pytest.raises(TestbedError, match=r"slave-\w+, which has booted since .*force: true"):
                flash({**asked, **other}, check)
    assert boards.sha256(card) == stood
    assert flash({**asked, "force": True})["changed"]
    assert not flash(asked)["changed"]


def test_a_card_that_never_booted_takes_another_image(image: Image, cache: Path, card: Path) -> None:
    flash(arguments(image, card, cache))
    done = flash(arguments(image, card, cache, hostname="master"))
    assert done["changed"] and "never booted" in done["before"][0]
    assert debugfs(card, "cat /etc/hostname") == "master\n"


# What goes wrong while the card is written


def slow(asked: dict[str, Any]) -> subprocess.Popen[str]:
    """Each of dd's writes waits for a third of a second; the copy is ready."""
    flash({**asked, "target": str(boards.card(Path(asked["target"]).parent / "other"))})
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", asked["target"], "-e", "inject=write:delay_enter=300000")
    return boards.started(asked, *strace)


def at(card: Path, offset: int) -> bytes:
    with open(card, "rb") as file:
        return os.pread(file.fileno(), 32, offset)


MARK = b"impair.testbed: this card is not"
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "marked": lambda card: at(card, 0) == MARK,
    "the first 4 MiB": lambda card: at(card, START) != b"\xff" * 32,
    "in the middle": lambda card: at(card, 12 * MIB) != b"\xff" * 32,
    "at the end of the bulk": lambda card: at(card, SIZE - 32) != b"\xff" * 32,
    "before the first block": lambda card: at(card, START - 32) != b"\xff" * 32,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_it_writes(image: Image, cache: Path, card: Path, moment: str) -> None:
    asked = arguments(image, card, cache)
    running = slow(asked)
    try:
        deadline = time.monotonic() + 60
        while not MOMENTS[moment](card):
            assert running.poll() is None and time.monotonic() < deadline, "it ended before that"
            time.sleep(0.01)
        killed = int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0])
        os.kill(killed, signal.SIGKILL)
    finally:
        running.wait(timeout=60)
    assert at(card, 0) == MARK
    assert run(["sfdisk", "--json", str(card)], check=False).returncode != 0
    content = card.read_bytes()
    time.sleep(0.3)
    assert card.read_bytes() == content, "nobody writes on"
    done = flash(asked)
    assert done["changed"] and "not whole: a write was interrupted" in done["before"][0]
    sh(f"cmp -n {SIZE} {done['image']} {card}")
    assert not flash(asked)["changed"]


def test_dd_dies(image: Image, cache: Path, card: Path) -> None:
    asked = arguments(image, card, cache)
    running = slow(asked)
    deadline = time.monotonic() + 60
    while not MOMENTS["in the middle"](card):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    python = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0]
    os.kill(int(Path(f"/proc/{python}/task/{python}/children").read_text().split()[0]), signal.SIGKILL)
    assert "is not whole, and says so" in running.communicate(timeout=60)[1]
    assert at(card, 0) == MARK


def test_a_write_error_in_the_middle(image: Image, cache: Path, tmp_path: Path) -> None:
    """A loop device on a file system that is full after 12 MiB gives an error, and so does a file there."""
    with boards.tmpfs(tmp_path / "full", 12 * MIB) as folder:
        path = folder / "card"
        with open(path, "wb") as file:
            file.truncate(CARD)
        with loop(path) as device:
            refused(arguments(image, device, cache), "dd if=.*error writing.* is not whole, and says so.*another card")
            assert at(path, 0) == MARK
        with open(path, "wb") as file:
            file.truncate(CARD)
        refused(arguments(image, path, cache), "No space left on device.* is not whole, and says so")
        assert at(path, 0) == MARK
        path.unlink()
        (folder / "rest").write_bytes(b"x" * 12 * MIB)
        with open(path, "wb") as file:
            file.truncate(CARD)
        refused(arguments(image, path, cache), "No space left on device; .* is not whole: try another card")


@pytest.mark.parametrize("offset", [8192, 5 * MIB, SIZE - 1])
def test_a_card_that_gives_back_other_bytes(
    image: Image, cache: Path, card: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """One byte of the card turns between writing and reading."""
    forget = cards._forget

    def turned(descriptor: int) -> None:
        forget(descriptor)
        if at(card, 0) == MARK and at(card, START - 32) != b"\xff" * 32:
            os.pwrite(descriptor, bytes([at(card, offset)[0] ^ 1]), offset)

    monkeypatch.setattr(cards, "_forget", turned)
    refused(arguments(image, card, cache), f"other bytes than were written, from byte {offset} on.*take another one")
    assert at(card, 0) == MARK


def test_a_broken_first_block(image: Image, cache: Path, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = cards._forget

    def turned(descriptor: int) -> None:
        forget(descriptor)
        if at(card, 510)[:2] == b"\x55\xaa":
            os.pwrite(descriptor, b"\0", 510)

    monkeypatch.setattr(cards, "_forget", turned)
    refused(arguments(image, card, cache), "other bytes than were written, from byte 510 on")
    assert at(card, 0) == MARK


def test_two_at_once(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    """The second is refused while the first writes."""
    asked = arguments(image, card, cache)
    running = slow(asked)
    deadline = time.monotonic() + 60
    while not MOMENTS["marked"](card):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    refused(arguments(image, card, tmp_path / "cache"), "in use")
    assert running.wait(timeout=60) == 0
    assert not flash(asked)["changed"]


# What is refused before anything is written


def test_mounted(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    with loop(card) as device:
        run(["mke2fs", "-q", device])
        stood = boards.sha256(card)
        sh(f"mount -o ro {device} {tmp_path}/mnt")
        try:
            refused(arguments(image, device, cache, force=True), f"{device}.* is mounted on {tmp_path}/mnt; end that")
        finally:
            sh(f"umount {tmp_path}/mnt")
        assert boards.sha256(card) == stood


def test_mounted_where_nobody_sees_it(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    """In another mount namespace: the kernel knows."""
    (tmp_path / "mnt").mkdir()
    with loop(card) as device:
        run(["mke2fs", "-q", device])
        stood = boards.sha256(card)
        script = f"mount -o ro {device} {tmp_path}/mnt; echo mounted; read -r end"
        with subprocess.Popen(
            ["unshare", "-m", "sh", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as hidden:
            assert hidden.stdout and hidden.stdout.readline() == "mounted\n"
            refused(arguments(image, device, cache), "the kernel says that it is in use")
            hidden.communicate("\n")
        assert boards.sha256(card) == stood


def test_stacked(image: Image, cache: Path, card: Path) -> None:
    with loop(card) as lower:
        with loop(lower) as upper:
            refused(arguments(image, lower, cache), f"{upper} stands on it")
            refused(arguments(image, upper, cache), f"stands on {lower}; name the card itself")
        refused(arguments(image, card, cache), f"{lower} stands on it")
    assert boards.untouched(card)


def test_read_only_and_empty_loop_devices(image: Image, cache: Path, card: Path) -> None:
    with loop(card, "-r") as device:
        refused(arguments(image, device, cache), "read-only; move the card's write-protection switch")
    refused(arguments(image, device, cache), "no file stands behind this loop device")
    assert boards.untouched(card)


def test_a_partition(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    with loop(card) as device:
        run(["addpart", device, "1", "8192", "2048"])
        try:
            numbers = Path(f"/sys/block/{device[5:]}/{device[5:]}p1/dev").read_text().split(":")
            node = tmp_path / "p1"
            os.mknod(node, 0o60600, os.makedev(int(numbers[0]), int(numbers[1])))
            refused(arguments(image, node, cache), "this is a partition; name the whole card")
        finally:
            run(["delpart", device, "1"])
    assert boards.untouched(card)


def system_disk() -> Path:
    """The disk with the root file system, or with another one that is mounted; only ever looked at."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        folder = Path("/sys/dev/block", line.split()[2])
        if folder.exists() and "/loop" not in str(folder.resolve()):
            return Path("/dev", folder.resolve().name)
    raise AssertionError("no disk is mounted here")


@pytest.mark.parametrize("by", ["name", "id"])
def test_the_disk_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Never opened for writing here: `look` alone has to refuse it."""
    disk = system_disk()
    assert disk.is_block_device()
    monkeypatch.setattr(target, "BY_ID", str(tmp_path))
    monkeypatch.setattr(target, "claim", None)
    (tmp_path / "ata-Disk").symlink_to(disk)
    with pytest.raises(TestbedError, match="is mounted on /"):
        target.look(str(tmp_path / "ata-Disk" if by == "id" else disk), target.Bounds(0, 2**62))


def test_a_disk_that_nobody_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not removable, or called by a name that changes; here it is a loop device that does not look like one."""
    with loop(boards.card(tmp_path / "card")) as device:
        monkeypatch.setattr(target, "LOOP_MAJOR", -1)
        monkeypatch.setattr(target, "BY_ID", str(tmp_path))
        (tmp_path / "usb-Reader-0:0").symlink_to(device)
        with pytest.raises(TestbedError, match=f"change from boot to boot; write {tmp_path}/usb-Reader-0:0"):
            target.look(device, target.Bounds(0, 2**62))
        with pytest.raises(TestbedError, match="not removable"):
            target.look(str(tmp_path / "usb-Reader-0:0"), target.Bounds(0, 2**62))


@pytest.fixture
def bad(tmp_path: Path) -> Callable[[bytes], Image]:
    """Another image, with the checksum that fits."""

    def made(content: bytes) -> Image:
        path = tmp_path / "bad"
        path.write_bytes(content)
        return Image(path, boards.sha256(path))

    return made


def packed(image: Image, packer: str) -> bytes:
    return subprocess.run(["sh", "-c", f"{packer} -c {image.path}"], capture_output=True, check=True).stdout


def superblock(image: Image, offset: int, value: bytes) -> bytes:
    content = bytearray(image.path.read_bytes())
    content[START + 1024 + offset : START + 1024 + offset + len(value)] = value
    return bytes(content)


def table(image: Image, size: int) -> bytes:
    """The image with another size of its partition, in sectors."""
    content = bytearray(image.path.read_bytes())
    content[446 + 12 : 446 + 16] = struct.pack("<I", size)
    return bytes(content)


IMAGES: dict[str, tuple[Callable[[Image], bytes], str]] = {
    "truncated": (lambda image: image.path.read_bytes()[: 20 * MIB], "the image is truncated: it has 20971520 bytes"),
    "half a sector": (lambda image: image.path.read_bytes() + b"x" * 100, "no whole number of sectors"),
    "empty": (lambda image: b"", "no partition table"),
    "no table": (lambda image: b"\0" * MIB, "no partition table"),
    "a page of the web": (lambda image: b"<html>" * 512, "no partition table"),
    "partition beyond its end": (lambda image: table(image, 1 << 20), "the image is truncated"),
    "no ext4": (lambda image: superblock(image, 0x38, b"\0\0"), "the image has no ext4 among its 1 partitions"),
    "a damaged file system": (
        lambda image: superblock(image, 0x00, b"\xff\xff\xff\x7f"),
        "the image's file system is damaged",
    ),
    "a truncated xz": (lambda image: packed(image, "xz -0")[:-5000], "xz.*Unexpected end of input; src is damaged"),
    "a truncated gzip": (
        lambda image: packed(image, "gzip -1")[:-5000],
        "gzip.*unexpected end of file; src is damaged",
    ),
    "a truncated zstd": (lambda image: packed(image, "zstd -1")[:-5000], "zstd.*; src is damaged"),
    "a damaged xz": (
        lambda image: (p := packed(image, "xz -0"))[:9000] + b"abc" + p[9003:],
        "xz.*corrupt; src is damaged",
    ),
    "a damaged 7z": (lambda image: b"7z\xbc\xaf\x27\x1c" + b"\0" * 500, "7z l .*src is damaged"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_bad_images(image: Image, bad: Callable[[bytes], Image], cache: Path, card: Path, case: str) -> None:
    content, message = IMAGES[case]
    refused(arguments(bad(content(image)), card, cache), message)
    assert boards.untouched(card)
    assert not (cache / "work").exists()


def lacking(*names: str, **more: Any) -> Callable[[Path], Image]:
    return lambda folder: boards.make(folder, names, **more)


OTHERS: dict[str, tuple[Callable[[Path], Image], dict[str, Any], str]] = {
    "no shadow": (lacking("etc/shadow"), {}, "the image has no /etc/shadow; choose an image of Armbian"),
    "no environment": (
        lacking("boot/armbianEnv.txt"),
        {"environment": {"a": 1}},
        "the image has no /boot/armbianEnv.txt",
    ),
    "no ifupdown": (
        lacking("usr/sbin/ifup"),
        {"interfaces": INTERFACES},
        "the image has no ifupdown; add its .deb to packages",
    ),
    "no bridge-utils": (
        lacking("usr/sbin/brctl"),
        {"interfaces": "iface br0 inet manual\n bridge_ports eth0\n"},
        "the image has no bridge-utils",
    ),
    "nobody resizes": (
        lacking(boards._LINKS),
        {},
        "armbian-resize-filesystem.service, so nothing would resize it; write `card`",
    ),
    "no kernel": (lacking("boot/vmlinuz-4.19.88-sunxi"), {"kernel": "4.19"}, "kernel: '4.19' .*boots no vmlinuz"),
    "no file system": (lacking(kind=""), {}, "the image has no ext4"),
    "full": (
        lacking(size=START + 700 * 1024),
        {"interfaces": "iface lo inet loopback\n" + "#" * 700_000},
        "is the image's file system full",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_images_that_lack_something(cache: Path, card: Path, tmp_path: Path, case: str) -> None:
    made, more, message = OTHERS[case]
    refused(arguments(made(tmp_path), card, cache, **more), message)
    assert boards.untouched(card)


VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "another sha256": ({"sha256": "0" * 64}, r"sha256: '0{64}' is refused; .*board.img has [0-9a-f]{64}"),
    "no sha256": ({"sha256": "abc"}, "sha256: 'abc' is refused; write the 64 hexadecimal digits"),
    "no such image": ({"src": "/nowhere/board.img"}, "src: '/nowhere/board.img' is refused; there is no such file"),
    "another scheme": ({"src": "ftp://host/board.img"}, "src: .*write a path, or a URL of http, https, file"),
    "no such URL": ({"src": "file:///nowhere/board.img"}, "src: file:///nowhere/board.img cannot be fetched"),
    "nobody answers": ({"src": "http://127.0.0.1:9/board.img"}, "cannot be fetched.*refused.*look at the address"),
    "a name with a dot": ({"hostname": "master.lab"}, "hostname: 'master.lab' is refused; write one label"),
    "no name": ({"hostname": ""}, "hostname: ''"),
    "nobody can log in": ({"authorized_keys": []}, "authorized_keys: .*nobody could log in"),
    "a private key": (
        {"authorized_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]},
        r"authorized_keys\[0\]: .*never a private one",
    ),
    "two keys in one": ({"authorized_keys": [KEY, f"{KEY}\n{KEY}"]}, r"authorized_keys\[1\]"),
    "a password": ({"root_password": "secret1234"}, r"root_password: '\(not shown\)' is refused; write a hash"),
    "no iface": ({"interfaces": "auto eth0\n"}, "interfaces: .*there is no `iface` in it"),
    "two lines": ({"environment": {"extraargs": "a\nb"}}, "environment.extraargs: .*write one line"),
    "no variable": ({"environment": {"a b": "c"}}, "environment.a b"),
    "a newer kernel": ({"kernel": "4.1"}, "kernel: '4.1' is refused; the image boots 4.19.88-sunxi"),
    "no kernel's version": ({"kernel": "legacy"}, "kernel: 'legacy' is refused; write a version"),
    "no unit": ({"root_size": "4"}, "root_size: '4' is refused; write one of image, first_boot, card"),
    "too small a root": ({"root_size": "8MB"}, "root_size: .*the image's own root has 20971520 bytes"),
    "too large a root": ({"root_size": "1GB"}, "root_size: .*the card ends at byte 33554432"),
    "a signature without keys": ({"signature": "/x.asc"}, "signature and keyring go together"),
    "no such signature": (
        {"signature": "/x.asc", "keyring": "/x.gpg"},
        "signature: '/x.asc' is refused; there is no such file",
    ),
    "no such package": (
        {"packages": [{"src": "/x.deb", "sha256": "0" * 64}]},
        r"packages\[0\].src: '/x.deb' is refused",
    ),
    "a small card": ({"card_min": "4GB"}, "it has 33.6 MB, and a card 4.0 GB to 137.0 GB; take the right one"),
    "a disk": ({"card_max": "16MiB"}, "it has 33.6 MB, and a card 0 B to 16.8 MB"),
    "no size": ({"card_max": "32"}, "card_max: '32' is refused; write a size with its unit"),
    "a question mark": ({"cache_dir": "/tmp/what?"}, "cache_dir: .*choose another folder"),
    "no place for the cache": ({"cache_dir": "/proc/cache"}, "No such file or directory .*/proc/cache"),
    "no target": ({"target": "/nowhere/card"}, "target: '/nowhere/card' is refused; No such file.*put the card in"),
    "a folder": ({"target": "/"}, "target: '/' is refused; write a whole card's name below /dev/disk/by-id"),
    "no disk at all": ({"target": "/dev/null"}, "target: '/dev/null' is refused; write a whole card's name"),
}


@pytest.mark.parametrize("case", VALUES)
def test_bad_values(image: Image, cache: Path, card: Path, case: str) -> None:
    more, message = VALUES[case]
    refused(arguments(image, card, cache, **more), message)
    assert boards.untouched(card)


def test_a_card_that_is_too_small(image: Image, cache: Path, tmp_path: Path) -> None:
    small = boards.card(tmp_path / "small", SIZE - 512)
    flash(arguments(image, boards.card(tmp_path / "card"), cache))
    refused(arguments(image, small, cache), "it has 25165312 bytes, and the image 25165824; take a larger card")
    refused(arguments(image, small, tmp_path / "other"), "the image is larger than the target, which has 25.2 MB")
    assert boards.untouched(small)


def test_without_root(image: Image, tmp_path: Path) -> None:
    """A file that is the user's own needs no root; one that is not is refused."""
    tmp_path.chmod(0o755)
    for folder in (*tmp_path.parents, image.path.parent):
        if folder.name.startswith(("pytest-", "popen-")) or folder == image.path.parent:
            folder.chmod(0o755)
    own, other = boards.card(tmp_path / "own"), boards.card(tmp_path / "other")
    (tmp_path / "cache").mkdir()
    for path in (own, tmp_path / "cache"):
        os.chown(path, 65534, 65534)
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    running = boards.started(arguments(image, own, tmp_path / "cache"), *nobody)
    assert running.communicate(timeout=60)[1] == ""
    assert not boards.untouched(own)
    running = boards.started(arguments(image, other, tmp_path / "cache"), *nobody)
    assert "Permission denied; run the task with become: true" in running.communicate(timeout=60)[1]
    assert boards.untouched(other)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """gpg with two keys, `armbian` and `mallory`."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)

    def gpg(*argv: str) -> str:
        return run(
            ["gpg", "--batch", "--homedir", str(home), "--pinentry-mode", "loopback", "--passphrase", "", *argv]
        ).stdout

    for name in ("armbian", "mallory"):
        gpg("--quick-gen-key", name, "ed25519", "sign")
        (home / f"{name}.asc").write_text(gpg("--armor", "--export", name))
    yield lambda *argv: gpg(*argv) if argv else str(home)
    run(["gpgconf", "--homedir", str(home), "--kill", "all"])


def test_a_signature(image: Image, cache: Path, card: Path, tmp_path: Path, signer: Callable[..., str]) -> None:
    keys = Path(signer())
    for name in ("armbian", "mallory"):
        signer("--armor", "-u", name, "--output", str(tmp_path / f"{name}.asc"), "--detach-sign", str(image.path))
    (tmp_path / "other").write_text("another file")
    signer(
        "--armor", "-u", "armbian", "--output", str(tmp_path / "other.asc"), "--detach-sign", str(tmp_path / "other")
    )
    asked = arguments(image, card, cache, keyring=str(keys / "armbian.asc"))
    refused(
        {**asked, "signature": str(tmp_path / "mallory.asc")},
        "no good signature of src by a key of .*do not use this image",
    )
    refused({**asked, "signature": str(tmp_path / "other.asc")}, "BAD signature.*do not use this image")
    refused({**asked, "signature": str(tmp_path / "other")}, "no good signature")
    refused(
        {**asked, "signature": str(tmp_path / "armbian.asc"), "keyring": str(tmp_path / "other")},
        "gpg finds no key in it",
    )
    assert boards.untouched(card)
    assert flash({**asked, "signature": str(tmp_path / "armbian.asc")})["changed"]


def deb(folder: Path, name: str, architecture: str) -> dict[str, str]:
    """A small Debian package."""
    tree, path = folder / name, folder / f"{name}.deb"
    (tree / "DEBIAN").mkdir(parents=True)
    control = (
        f"Package: {name}\nVersion: 1\nArchitecture: {architecture}\nMaintainer: n <n@example.org>\nDescription: x\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(path)])
    return {"src": str(path), "sha256": boards.sha256(path)}


def test_packages_wait_for_the_first_boot(cache: Path, card: Path, tmp_path: Path) -> None:
    image = boards.make(tmp_path, ("usr/sbin/ifup",))
    ours, foreign = deb(tmp_path, "ifupdown", "armhf"), deb(tmp_path, "bridge-utils", "arm64")
    refused(
        arguments(image, card, cache, packages=[ours, foreign]),
        r"packages\[1\].src: .*bridge-utils is for arm64, the image for armhf",
    )
    refused(
        arguments(image, card, cache, packages=[{**ours, "sha256": "0" * 64}]), r"packages\[0\].sha256: '0+' is refused"
    )
    assert boards.untouched(card)
    flash(arguments(image, card, cache, packages=[ours], interfaces=INTERFACES))
    found = tree(card, tmp_path / "mounted")
    unit = "/etc/systemd/system/impair.testbed-packages.service"
    assert found["etc/systemd/system/multi-user.target.wants/impair.testbed-packages.service"][1] == unit
    assert found["var/lib/impair.testbed/install-packages"][0] == "-rwxr-xr-x 0 0"
    run(
        [
            "debugfs",
            "-R",
            f"dump /var/lib/impair.testbed/packages/0-ifupdown.deb {tmp_path}/dumped",
            f"{card}?offset={START}",
        ]
    )
    assert boards.sha256(tmp_path / "dumped") == ours["sha256"]


def test_by_ansible(image: Image, cache: Path, card: Path, tmp_path: Path) -> None:
    """The module itself, by its name: check mode, diff, and that the hash is nowhere in what it says."""
    link = tmp_path / "ansible_collections/impair/testbed"
    link.parent.mkdir(parents=True)
    link.symlink_to(CHECKOUT)
    kept = {
        name: value for name, value in arguments(image, card, cache, root_password=HASH).items() if value is not None
    }

    def call(*options: str) -> tuple[dict[str, Any], str]:
        environment = [
            f"ANSIBLE_COLLECTIONS_PATH={tmp_path}",
            "ANSIBLE_NOCOLOR=1",
            "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3",
        ]
        ansible = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-o", "-vvv", *options]
        said = run(["env", *environment, *ansible, "-m", "impair.testbed.image_write", "-a", json.dumps(kept)]).stdout
        line = next(line for line in said.splitlines() if line.startswith("localhost | "))
        return json.loads(line[line.index("=> ") + 3 :]), said

    checked, _said = call("--check", "--diff")
    assert checked["changed"] and boards.untouched(card)
    done, said = call("--diff")
    assert done["changed"] and done["steps"] == checked["steps"]
    assert HASH not in said
    assert "byte for byte" in done["diff"]["after"] and "no image of a board" in done["diff"]["before"]
    assert not call("--check")[0]["changed"]
    assert HASH in debugfs(card, "cat /etc/shadow")


def test_the_playbook(image: Image, tmp_path: Path) -> None:
    """Two boards and a laptop; cards that are left alone by a second run, and never two boards on one card."""
    link = tmp_path / "ansible_collections/impair/testbed"
    link.parent.mkdir(parents=True)
    link.symlink_to(CHECKOUT)
    cards = {name: boards.card(tmp_path / name) for name in ("master", "slave")}
    hosts: dict[str, Any] = {name: {"board_image_target": str(path)} for name, path in cards.items()}
    shared = {"board_image_src": str(image.path), "board_image_sha256": image.sha256, "board_image_card_min": "1MB"}
    shared |= {"board_image_cache_dir": str(tmp_path / "cache"), "board_image_root_size": "image"}
    inventory = {
        "testbed": {"hosts": {**hosts, "laptop": {}}, "vars": {**shared, "board_image_authorized_keys": [KEY]}}
    }
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))

    def play(*options: str, check: bool = True) -> str:
        environment = [f"ANSIBLE_COLLECTIONS_PATH={tmp_path}", "ANSIBLE_NOCOLOR=1", "ANSIBLE_DEPRECATION_WARNINGS=0"]
        argv = ["ansible-playbook", "impair.testbed.flash", "-i", str(tmp_path / "hosts.json"), *options]
        return run(["env", *environment, *argv], check=check).stdout

    one = f"board_image_target={cards['master']}"
    assert "master and slave and laptop have the same board_image_target: one at a time, -l master" in play(
        "-e", one, check=False
    )
    assert all(boards.untouched(path) for path in cards.values())
    assert [re.findall(r"changed=(\d)", play()), re.findall(r"changed=(\d)", play())] == [
        ["0", "1", "1"],
        ["0", "0", "0"],
    ]
    assert {name: debugfs(path, "cat /etc/hostname") for name, path in cards.items()} == {
        "master": "master\n",
        "slave": "slave\n",
    }
