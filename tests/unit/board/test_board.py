# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a card and its image, and what may be a card; nothing is written."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.action import image_write
from plugins.module_utils.board import card, contents, prepare, target
from plugins.module_utils.board.progress import Progress, size_text
from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.units import parse_capacity

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1Yq1nq3y9mQm3m1nq3y9mQm3m1nq3y9mQm3m1nq3y9"
ASKED: dict[str, Any] = {
    **dict.fromkeys(("root_password", "interfaces", "kernel")),
    "hostname": "master",
    "authorized_keys": [KEY],
    "environment": {},
    "packages": [],
    "root_size": "image",
}


@given(st.integers(min_value=1, max_value=1 << 26).map(lambda sectors: sectors * 512))
def test_every_byte_is_written_once_and_the_first_block_last(size: int) -> None:
    parts = card.ranges(size)
    assert parts[-1].start == 0
    ordered = sorted(parts)
    assert [part.start for part in ordered] == [0, *(part.end for part in ordered[:-1])]
    assert ordered[-1].end == max(size, card.FIRST)
    assert all(part.start % card.CHUNK == 0 for part in parts if part.start > card.FIRST)


def test_hosts() -> None:
    before = "127.0.0.1\tlocalhost\n127.0.1.1 nanopineo nanopineo.lan\n# a remark\n10.0.0.1 router"
    after = "127.0.0.1\tlocalhost\n# a remark\n10.0.0.1 router\n127.0.1.1 master\n"
    assert contents.hosts(before, "master") == after
    assert contents.hosts(after, "master") == after
    assert contents.hosts("", "master") == "127.0.0.1 localhost\n127.0.1.1 master\n"


@pytest.mark.parametrize("password", ["*", "$6$abc$def"])
def test_shadow_keeps_everybody_else(password: str) -> None:
    before = "daemon:*:19000:0:99999:7:::\nroot:$y$j9T$x:0:0:99999:7:::\nrooty:!:0:0::::\n"
    after = f"daemon:*:19000:0:99999:7:::\nroot:{password}::0:99999:7:::\nrooty:!:0:0::::\n"
    assert contents.shadow(before, password) == after
    assert contents.shadow(after, password) == after


def test_environment_changes_lines_in_place() -> None:
    before = "verbosity=1\n# bootlogo=x\nbootlogo=false\nverbosity=2\nextraargs=a=b"
    asked = (("extraargs", "c=d e"), ("overlays", "usbhost1"), ("verbosity", "7"))
    after = "verbosity=7\n# bootlogo=x\nbootlogo=false\nextraargs=c=d e\noverlays=usbhost1\n"
    assert contents.environment(before, asked) == after
    assert contents.environment(after, asked) == after


def test_the_marker_reads_back() -> None:
    text = contents.marker("abc", "0" * 64, "master", [3, 1700000000])
    found = contents.parse_marker(text.encode())
    assert found and (found["recipe"], found["hostname"], found["uses"]) == ("abc", "master", [3, 1700000000])


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"[]", b"{}", b'{"recipe": 1, "uses": []}', b'{"recipe": "a"}']
)
def test_other_markers_are_none_of_ours(content: bytes | None) -> None:
    assert contents.parse_marker(content) is None


def test_names_are_those_that_ifupdown_has() -> None:
    bridge = "iface br0 inet static\n\tbridge_ports eth0 enx8cae4cf5b7ae\n\tbridge_stp off\n"
    text = f"auto lo\niface lo inet loopback\n{bridge}iface br0 inet6 auto\niface br1 inet manual\n bridge-ports none\n"
    names = contents.parse({**ASKED, "interfaces": text}).names
    assert sorted(names) == ["br0", "br1", "enx8cae4cf5b7ae", "eth0"]


def test_interfaces_end_with_a_newline() -> None:
    assert contents.parse({**ASKED, "interfaces": "iface eth0 inet manual"}).interfaces == "iface eth0 inet manual\n"


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        f"{KEY} me@here",
        f'from="10.0.0.0/8",no-pty {KEY} me',
        KEY.replace("ssh-ed25519", "ecdsa-sha2-nistp256"),
        KEY.replace("ssh-ed25519", "sk-ssh-ed25519@openssh.com"),
    ],
)
def test_public_keys(key: str) -> None:
    assert contents.parse({**ASKED, "authorized_keys": [key]}).authorized_keys == (key,)


@pytest.mark.parametrize(
    "key", ["", "me", "ssh-ed25519", "ssh-rsa AAAA", f"{KEY}\n{KEY}", "-----BEGIN PRIVATE KEY-----", "# " + KEY[:30]]
)
def test_no_public_keys(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"authorized_keys\[0\]"):
        contents.parse({**ASKED, "authorized_keys": [key]})


@pytest.mark.parametrize(
    "password", ["secret", "$1$md5$abcdefghijklmnopqrstuv", "!", "$6$", "$6$a:b$" + "c" * 30, "x" * 80]
)
def test_no_hash_is_repeated_in_a_message(password: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        contents.parse({**ASKED, "root_password": password})
    assert password not in str(raised.value) or password == "!"


@pytest.mark.parametrize(
    ("asked", "version", "fits"),
    [
        ("4.19", "4.19.88-sunxi", True),
        ("4.19.88-sunxi", "4.19.88-sunxi", True),
        ("4.1", "4.19.88-sunxi", False),
        ("4.19.8", "4.19.88-sunxi", False),
        ("4.20", "4.19.88-sunxi", False),
        ("4", "4.19.88-sunxi", True),
    ],
)
def test_versions(asked: str, version: str, fits: bool) -> None:
    assert prepare.fits(asked, version) is fits


def test_the_recipe_is_of_everything_that_decides_the_bytes() -> None:
    package = {"src": "/a.deb", "sha256": "1" * 64}
    others: list[dict[str, Any]] = [
        {"hostname": "slave"},
        {"authorized_keys": [KEY + " x"]},
        {"root_password": "$6$salt$" + "a" * 40},
        {"interfaces": "iface eth0 inet manual"},
        {"environment": {"verbosity": "1"}},
        {"packages": [package]},
        {"packages": [{**package, "sha256": "2" * 64}]},
        {"kernel": "4.19"},
        {"root_size": "4GB"},
    ]
    asked = [contents.parse({**ASKED, **other}) for other in [{}, *others]]
    hashes = {prepare.recipe_hash("0" * 64, one, 0) for one in asked}
    hashes |= {prepare.recipe_hash("1" * 64, asked[0], 0), prepare.recipe_hash("0" * 64, asked[0], 8_000_000_000)}
    assert len(hashes) == len(asked) + 2
    moved = contents.parse({**ASKED, "packages": [{**package, "src": "/elsewhere.deb"}]})
    assert prepare.recipe_hash("0" * 64, moved, 0) == prepare.recipe_hash("0" * 64, asked[6], 0)


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("2GiB", 2**31), ("1.5GB", 1_500_000_000), ("137GB", 137 * 10**9)]
)
def test_capacities(text: str, size: int) -> None:
    assert parse_capacity(text) == size


@pytest.mark.parametrize("text", ["8", "", "8 TB", "-1GB", "9999999999GB", None, True, "8gb"])
def test_no_capacities(text: Any) -> None:
    with pytest.raises(ValueError, match="write a size with its unit"):
        parse_capacity(text)


def test_progress(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    say = Progress(str(path))
    say("writing", 450, 1000)
    assert path.read_text() == "writing: 45 % of 1.0 kB\n"
    say("writing", 460, 1000)  # too soon
    assert path.read_text() == "writing: 45 % of 1.0 kB\n"
    say("unpacking", 2_500_000)
    assert path.read_text() == "unpacking: 2.5 MB\n"
    Progress(str(tmp_path / "nowhere/progress"))("writing", 1, 2)
    assert [size_text(size) for size in (0, 999, 33_554_432, 31_914_983_424)] == ["0 B", "999 B", "33.6 MB", "31.9 GB"]


def test_progress_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the controller's part: each line once."""
    said: list[str] = []
    path, second = tmp_path / "progress", threading.Event()

    def display(line: str) -> None:
        said.append(line)
        second.set()

    monkeypatch.setattr(image_write, "EVERY", 0.01)
    monkeypatch.setattr(image_write.display, "display", display)
    with image_write._shown(path, "master"):
        for stage in ("writing", "reading back"):
            second.clear()
            Progress(str(path))(stage, 1, 4)
            assert second.wait(10)
    assert said == ["  master: writing: 25 % of 4 B", "  master: reading back: 25 % of 4 B"]


class Sysfs:
    """A block device that the kernel would tell of, and its name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.by_id = folder / "sysfs", folder / "by-id"
        self.by_id.mkdir()
        (self.folder / "device").mkdir(parents=True)
        self.set(size=str(62_333_952), ro="0", removable="1")
        monkeypatch.setattr(target, "_sysfs", lambda _number: self.folder)
        monkeypatch.setattr(target, "BY_ID", str(self.by_id))

    def set(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name.replace("_", "/")).write_text(text + "\n")

    def look(self, path: str = "") -> target.Target:
        return target._device(path or str(self.by_id / "card"), "/dev/sdz", 0x810)


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    return Sysfs(tmp_path, monkeypatch)


def test_a_card_in_a_usb_reader(sysfs: Sysfs) -> None:
    found = sysfs.look()
    assert (found.kind, found.size) == ("card", 31_914_983_424)


def test_a_card_in_a_built_in_reader(sysfs: Sysfs) -> None:
    sysfs.set(removable="0", device_type="SD")
    assert sysfs.look().kind == "card"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"removable": "0"}, "it is not removable, so it is no card"),
        ({"removable": "0", "device_type": "MMC"}, "it is not removable"),  # soldered
        ({"partition": "1"}, "this is a partition; name the whole card"),
        ({"size": "0"}, "there is no card in this reader"),
        ({"ro": "1"}, "it is read-only; move the card's write-protection switch"),
    ],
)
def test_no_cards(sysfs: Sysfs, files: dict[str, str], message: str) -> None:
    sysfs.set(**files)
    with pytest.raises(InvalidInput, match=message):
        sysfs.look()


def test_a_name_that_changes(sysfs: Sysfs) -> None:
    (sysfs.by_id / "usb-Reader-0:0").symlink_to("/dev/sdz")
    with pytest.raises(InvalidInput, match=f"write {sysfs.by_id}/usb-Reader-0:0"):
        sysfs.look("/dev/sdz")


def test_who_uses_a_card(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounts, swap and holders of the card and of each of its partitions; not those of other disks."""
    name = sysfs.folder.name
    for number in (1, 2, 3):
        part = sysfs.folder / f"{name}{number}"
        (part / "holders").mkdir(parents=True)
        (part / "dev").write_text(f"8:{16 + number}\n")
    (sysfs.folder / f"{name}3/holders/dm-0").mkdir()
    texts = {
        "/proc/self/mountinfo": "22 1 8:17 / /media/card rw - ext4 /dev/sdz1 rw\n23 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "24 1 0:40 / /data rw shared:1 - btrfs /dev/sdz2 rw\n25 1 0:41 / /run rw - tmpfs tmpfs rw",
        "/proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 9 0 -2\n/dev/sdz2 partition 9 0 -3",
    }
    numbers = {"/dev/sdz1": "8:17", "/dev/sdz2": "8:18", "/dev/sda1": "8:1", "/dev/sda2": "8:2"}
    read = target._read
    monkeypatch.setattr(target, "_read", lambda path: texts.get(str(path)) or read(path))
    monkeypatch.setattr(target, "_number", lambda path: numbers.get(path, ""))
    monkeypatch.setattr(target, "_loops", lambda _real, _found: iter(["/dev/loop9 stands on it"]))
    found: Any = SimpleNamespace(st_mode=0o60660, st_rdev=0x810)
    assert list(target._users("/dev/sdz", found)) == [
        "/dev/loop9 stands on it",
        "dm-0 stands on it",
        "/dev/sdz1 is mounted on /media/card",
        "/dev/sdz2 is mounted on /data",
        "/dev/sdz2 is swap",
    ]
