# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card boots: Debian without ifupdown is flashed to a file, and a User-Mode-Linux kernel starts from it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.board import engine
from plugins.module_utils.errors import TestbedError
from tests.integration import boards
from tests.integration.boards import MIB, START, Image, arguments, debugfs, sh
from tests.integration.places import run

SIZE = 900 * MIB
BRIDGE = "auto br0\niface br0 inet static\n\tbridge_ports none\n\taddress 192.168.1.107/24\n"
# What the board finds when it is up; then it goes down.
UNIT = """\
[Unit]
After=impair.testbed-packages.service

[Service]
Type=oneshot
ExecStart=/bin/sh /root/look
ExecStopPost=/bin/systemctl --no-block poweroff

[Install]
WantedBy=multi-user.target
"""
LOOK = """\
exec >/root/report 2>&1
n=0
until systemctl -q is-active networking.service || [ $n -ge 60 ]; do sleep 0.5; n=$((n + 1)); done
hostname
ip -br addr
ls -d /var/lib/impair.testbed/* /usr/sbin/policy-rc.d
brctl show
dpkg -l ifupdown bridge-utils
systemctl --no-pager status networking.service impair.testbed-packages.service
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Debian with systemd, and without ifupdown, as recent images of Armbian are."""
    folder = tmp_path_factory.mktemp("debian")
    tree, path = folder / "tree", folder / "board.img"
    include = "--include=systemd-sysv,udev,dbus,iproute2,kmod,adduser"
    run(["mmdebstrap", "--mode=root", "--variant=essential", include, "bookworm", str(tree)], timeout=280)
    for name, text in boards.FILES.items():
        if name.startswith(("boot/", "root/", "etc/systemd/", "etc/hosts")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
    (tree / "etc/systemd/system/report.service").write_text(UNIT)
    (tree / "root/look").write_text(LOOK)
    (tree / "etc/systemd/system/multi-user.target.wants/report.service").symlink_to(
        "/etc/systemd/system/report.service"
    )
    sh(f"cp -r /usr/lib/uml/modules {tree}/usr/lib/; depmod -b {tree} $(ls /usr/lib/uml/modules)")
    with open(path, "wb") as file:
        file.truncate(SIZE)
    run(["sfdisk", "-q", str(path)], "label: dos\nstart=8192, type=83\n")
    extended = f"offset={START}"
    run(
        [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-L",
            "armbi_root",
            "-E",
            extended,
            "-d",
            str(tree),
            str(path),
            f"{(SIZE - START) // 1024}k",
        ]
    )
    return Image(path, boards.sha256(path))


def boot(card: Path) -> str:
    """Start from the card until it goes down by itself; what was said on the console."""
    alone = ["unshare", "--pid", "--fork", "--kill-child"]
    kernel = [
        "linux.uml",
        "mem=512M",
        f"ubd0={card}",
        "root=/dev/ubda1",
        "rw",
        "con=null",
        "con0=null,fd:1",
        "ssl=null",
    ]
    done = subprocess.run(
        [*alone, *kernel, "systemd.show_status=true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.long
def test_the_first_boot_installs_what_the_network_needs(debian: Image, tmp_path: Path) -> None:
    sh(f"cd {tmp_path}; apt-get -qq download ifupdown bridge-utils")
    packages = [{"src": str(path), "sha256": boards.sha256(path)} for path in sorted(tmp_path.glob("*.deb"))]
    card = boards.card(tmp_path / "card", 1000 * MIB)
    asked: dict[str, Any] = arguments(debian, card, tmp_path / "cache", hostname="master", interfaces=BRIDGE)
    asked |= {"packages": packages, "root_size": "card"}
    assert engine.manage(asked, False)["changed"]
    run(["e2fsck", "-fn", f"{card}?offset={START}"])
    said = boot(card)
    report = debugfs(card, "cat /root/report")
    assert re.match(r"master\n", report), said
    assert re.search(r"^br0 .*192\.168\.1\.107/24", report, re.MULTILINE), report
    assert re.findall(r"^ii +(\S+)", report, re.MULTILINE) == ["bridge-utils", "ifupdown"], report
    assert not {"/var/lib/impair.testbed/packages", "/usr/sbin/policy-rc.d"} & set(report.splitlines())
    with pytest.raises(TestbedError, match=r"master-\w+, which has booted since"):
        engine.manage(asked, False)
    assert engine.manage({**asked, "force": True}, False)["changed"]
