# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two emulated boards start at once from one boot server in a network namespace, by the project's own playbooks."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import netboots
from tests.integration.netboots import CMDLINE, SERVER, Board, Server, sha256, wait_for
from tests.integration.places import CHECKOUT, run

pytestmark = pytest.mark.minutes
UP_WITHIN = 600  # seconds; 95 to 210 were seen where each processor had four other things to do, once more than 300
SIDS = {"left": "02c00081-1111-2222-3333-000044556677", "right": "02c00081-1111-2222-3333-000044556678"}
ADDRESSES = {"left": "192.168.77.20", "right": "192.168.77.21"}


def configure(server: Server, published: tuple[Path, str], right: str = "one", **more: Any) -> None:
    path, digest = published
    common = {
        "board_netboot_interface": "boards0",
        "board_netboot_server_address": f"{SERVER}/24",
        "board_netboot_dir": str(server.store),
        "board_netboot_images": [{"name": "one", "src": str(path), "sha256": digest}],
        "board_netboot_services": False,
        "board_netboot_unit_dir": str(server.folder / "units"),
        "board_netboot_authorized_keys": [(server.folder / "key.pub").read_text().strip()],
        "board_netboot_cache_dir": str(server.folder / "cache"),
        "board_netboot_image": "one",
        "board_netboot_cmdline": CMDLINE,
        **more,
    }
    boards: dict[str, dict[str, Any]] = {
        name: {"board_netboot_mac": netboots.mac_of(sid), "board_netboot_address": ADDRESSES[name]}
        for name, sid in SIDS.items()
    }
    boards["left"] |= {"board_netboot_overlay": "server", "board_netboot_overlay_size": "64MiB"}
    boards["left"]["board_netboot_files"] = {"/etc/issue.net": "the left one\n"}
    boards["right"] |= {"board_netboot_image": right, "board_netboot_cmdline": f"{CMDLINE} panic=7"}
    netboots.write_inventory(server, common, boards)


@pytest.fixture(scope="module")
def published() -> tuple[Path, str]:
    return netboots.published()


@pytest.fixture
def server(published: tuple[Path, str]) -> Iterator[Server]:
    with netboots.boot_server() as made:
        configure(made, published)
        yield made


def changed(done: subprocess.CompletedProcess[str]) -> int:
    found = re.search(r"^server\s.*changed=(\d+)", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return int(found[1])


def second_version(server: Server, published: tuple[Path, str]) -> None:
    """Beside the first, for the right one alone."""
    run(["cp", "-a", str(server.store / "images/one"), str(server.store / "images/two")])
    (server.store / "images/two/etc/motd").write_text("version two\n")
    configure(server, published, right="two")
    assert changed(server.playbook("netboot")) == 1


def with_cards(server: Server) -> list[Board]:
    """The boards, and in each a card that only starts u-boot, flashed as any other."""
    boards = [Board(server, name, SIDS[name], ADDRESSES[name]) for name in SIDS]
    card = server.store / "cards/one.img"
    words = {"src": card, "sha256": sha256(card), "card_min": "0B", "root_size": "card"}
    more = [f"-eboard_image_{name}={value}" for name, value in words.items()]
    target = f"-eboard_image_target={server.folder}/{{{{ inventory_hostname }}}}.card"
    keys = "-e{'board_image_authorized_keys': ['{{ board_netboot_authorized_keys[0] }}']}"
    server.playbook("flash", *more, target, keys, f"-eboard_image_cache_dir={server.folder}/cache")
    return boards


def serve(server: Server) -> None:
    server.start("dnsmasq")
    server.start("ganesha")
    wait_for(lambda: server.listens("-lu", "sport = :67"), 30, (server.folder / "dnsmasq.log").read_text)
    wait_for(lambda: server.listens("-lt", "sport = :2049"), 60, (server.folder / "ganesha.log").read_text)


def start(boards: list[Board]) -> None:
    for board in boards:
        board.power_on()
    for board in boards:
        wait_for(board.up, UP_WITHIN, board.said)


@pytest.mark.timeout(1500)
def test_two_boards_start_from_one_server(server: Server, published: tuple[Path, str]) -> None:
    tried = server.playbook("netboot", "--check", "--diff")
    assert changed(tried) > 0 and "+ make images/one from" in tried.stdout
    assert not server.store.exists()
    assert changed(server.playbook("netboot")) > 0
    run(["systemd-analyze", "verify", *map(str, sorted((server.folder / "units").iterdir()))])

    second_version(server, published)
    serve(server)
    assert changed(server.playbook("netboot")) == 0  # what listens there is its own

    left, right = boards = with_cards(server)
    start(boards)
    for board in boards:
        assert board.ssh("cat /proc/sys/kernel/hostname").stdout == f"{board.name}\n"
        root = board.ssh("grep ' / ' /proc/mounts").stdout
        assert root.startswith("root / overlay rw"), root
        assert f"inet {board.address}/24" in board.ssh("ip -o -4 address show dev eth0").stdout
        assert board.ssh("touch /run/netboot/image/etc/x", check=False).returncode != 0
        board.ssh("echo mine > /root/kept; echo changed >> /etc/services; sync")
    assert left.ssh("cat /etc/issue.net").stdout == "the left one\n"
    assert "panic=7" in right.ssh("cat /proc/cmdline").stdout
    assert "panic=7" not in left.ssh("cat /proc/cmdline").stdout
    assert right.ssh("cat /etc/motd").stdout == "version two\n"
    assert left.ssh("cat /etc/motd", check=False).stdout != "version two\n"
    kernel = server.store / "tftp/images/one/kernel"
    assert sha256(kernel) in left.ssh("sha256sum $(readlink -f /boot/zImage)").stdout

    # One edit in the middle.
    (server.store / "images/one/etc/motd").write_text("edited in the middle\n")
    left.power_off()
    start([left])
    assert left.ssh("cat /etc/motd").stdout == "edited in the middle\n"
    assert left.ssh("cat /root/kept; tail -n 1 /etc/services").stdout == "mine\nchanged\n"


@pytest.mark.board
@pytest.mark.timeout(1500)
def test_a_board_goes_back_to_the_first_version_by_one_variable(server: Server, published: tuple[Path, str]) -> None:
    """What it wrote is gone, as it has no place at the server; what was edited in the middle meanwhile is there."""
    server.playbook("netboot")
    second_version(server, published)
    serve(server)
    _left, right = with_cards(server)
    start([right])
    assert right.ssh("cat /etc/motd").stdout == "version two\n"
    right.ssh("echo mine > /root/kept; echo changed >> /etc/services; sync")
    (server.store / "images/one/etc/motd").write_text("edited in the middle\n")
    configure(server, published, right="one")
    assert changed(server.playbook("netboot")) == 1
    right.power_off()
    start([right])
    assert right.ssh("cat /etc/motd").stdout == "edited in the middle\n"
    assert right.ssh("cat /root/kept", check=False).returncode != 0
    assert right.ssh("tail -n 1 /etc/services").stdout != "changed\n"


def refused(server: Server, published: tuple[Path, str], **more: Any) -> str:
    """What the module's engine says in the server's namespace."""
    asked = {
        "dir": str(server.store),
        "interface": "boards0",
        "address": f"{SERVER}/24",
        "gateway": None,
        "dhcp": "server",
        "nfs": "ganesha",
        "images": [{"name": "one", "src": str(published[0]), "sha256": published[1]}],
        "boards": [
            {"name": "left", "mac": "02:81:4a:58:bd:80", "address": "192.168.77.20", "image": "one", "dtb": "x.dtb"}
        ],
        "modules": [],
        "card_modules": [],
        "authorized_keys": [],
        "cache_dir": str(server.folder / "cache"),
        **more,
    }
    code = (
        "import json, sys; from plugins.module_utils.errors import TestbedError\n"
        "from plugins.module_utils.netboot import engine\n"
        "try: engine.manage(json.loads(sys.argv[1]), True)\n"
        "except TestbedError as error: print(error)\n"
    )
    inside = ["env", "-C", str(CHECKOUT), "/usr/bin/python3", "-c", code, json.dumps(asked)]
    said = server.place.run(inside).stdout
    assert not server.store.exists()
    return said


def test_what_cannot_be_is_refused(server: Server, published: tuple[Path, str]) -> None:
    board = {"name": "left", "mac": "02:81:4a:58:bd:80", "address": "192.168.77.20", "image": "three", "dtb": "x.dtb"}
    said = refused(server, published, boards=[board])
    assert "boards[0].image: 'three' is refused; there is no such image; the store has: one" in said
    assert "the store has no tree one" in refused(server, published, images=[{"name": "one"}])
    assert "the server has no such interface" in refused(server, published, interface="boards1")
    assert f"boards0 has {SERVER}/24" in refused(server, published, address="192.168.77.2/24")
    other = {"name": "one", "src": str(published[0]), "sha256": "0" * 64}
    assert f"has {published[1]}: it is damaged or another version" in refused(server, published, images=[other])
    assert "there is no such file" in refused(server, published, images=[{**other, "src": "/nowhere.img"}])
    closed = server.folder / "closed"
    closed.mkdir(mode=0o700)
    assert f"{closed} is closed to other users" in refused(server, published, dir=f"{closed}/store")
    assert refused(server, published) == ""


@pytest.mark.parametrize(("kind", "address", "port"), [("udp", "", 67), ("udp", SERVER, 69), ("tcp", SERVER, 2049)])
def test_a_port_that_somebody_has_is_refused_with_the_name(
    server: Server, published: tuple[Path, str], kind: str, address: str, port: int
) -> None:
    code = (
        "import socket, sys, time\n"
        "kind, address, port = sys.argv[1:]\n"
        "made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)\n"
        "made.bind((address, int(port)))\n"
        "if kind == 'tcp': made.listen()\n"
        "time.sleep(600)\n"
    )
    argv = ["/usr/bin/python3", "-c", code, kind, address, str(port)]
    holder = server.spawn(argv, server.folder / "holder.log")
    flag = "-lu" if kind == "udp" else "-lt"
    wait_for(lambda: server.listens(flag, f"sport = :{port}"), 60, (server.folder / "holder.log").read_text)
    said = refused(server, published)
    assert f"{kind.upper()} port {port} on boards0 is taken by python3 (process {holder.pid})" in said
