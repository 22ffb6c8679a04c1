# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an image to an impaired bridge: a used card is flashed, an emulated board boots from it by its own u-boot, ssh
takes the key that was asked for, site.yml runs on it, its serial console serves while the kernel prints, and the card
needs no second flash.

laptop and slave are User-Mode-Linux nodes on both sides of the board; what it does to packets is judged by them.
`make test-long` does the same with all of Debian on the card.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from plugins.module_utils.lab.kinds.base import Place
from plugins.module_utils.lab.kinds.board import STANZA
from plugins.module_utils.lab.kinds.table import DRIVERS
from plugins.module_utils.lab.model import Interface, Node
from tests.integration import boards, full_debian
from tests.integration.boards import MIB, START, debugfs, loop
from tests.integration.labs import host, processes, wait_for
from tests.integration.places import CHECKOUT, Done, Lab, run
from tests.integration.uml import CACHE

pytestmark = [pytest.mark.lab, pytest.mark.minutes, pytest.mark.timeout(3600)]
DEVICE = "enx40ae4cf5b7ae"
INTERFACES = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n    address 192.168.1.107/24\n"
LINKS = [
    {"name": "network", "ends": [{"node": "laptop", "interface": "enp3s0"}, {"node": "master", "interface": "eth0"}]},
    {"name": "device", "ends": [{"node": "master", "interface": DEVICE}, {"node": "slave", "interface": "eth0"}]},
]
READY = ("-e", "lab_ready_within=800")
PASSWORD = "s3 cret"
DELAY = 400  # ms
# Longer than usual, as a module takes a minute on a board that has a third of a processor.
SITE = {
    "bridge_name": "br0",
    "bridge_ports": ["eth0", DEVICE],
    "bridge_address": "192.168.1.107/24",
    "bridge_confirm_within": 300,
    "impairment_interfaces": [
        {
            "name": DEVICE,
            "classes": [
                {"name": "echo", "match": {"protocol": "icmp"}, "delay": f"{DELAY}ms", "drop": {"every": 20}},
                {"name": "slow", "match": {"protocol": "tcp", "port": 7575}, "rate": "128kbit"},
            ],
        }
    ],
    "impairment_confirm_within": 300,
}
PING = ("ping", "-c", "40", "-i", "0.2", "-W", "20", "192.168.1.148")


class Flashed(NamedTuple):
    """A card that flash.yml has written, and what was asked for it."""

    lab: Lab
    card: Path
    image: Path
    key: Path
    asked: Path
    flashed: str

    def playbook(self, name: str, *arguments: str) -> Done:
        return self.lab.playbook(name, "-e", f"@{self.asked}", *arguments, timeout=1700)

    def board(self, argv: str, stdin: str = "") -> str:
        """What a command on the board says, by ssh with the key that was asked for."""
        options = ["StrictHostKeyChecking=accept-new", f"IdentityFile={self.key}", "ConnectTimeout=200"]
        # A connection costs the board seconds: one is kept.
        options += ["ControlMaster=auto", "ControlPersist=600", self._kept()]
        words = [word for option in options for word in ("-o", option)]
        return run(["ssh", "-F", str(self.lab.run_dir / "ssh_config"), *words, "master", argv], stdin).stdout

    def leave(self) -> None:
        """End the kept connection, which is ours and not the lab's."""
        run(["ssh", "-F", str(self.lab.run_dir / "ssh_config"), "-o", self._kept(), "-O", "exit", "master"])

    def _kept(self) -> str:
        return f"ControlPath={self.lab.run_dir}/own-%n"


def flash(lab: Lab, device: str, asked: Path) -> str:
    more = ("-e", f"@{asked}", "-e", f"board_image_target={device}", "-l", "master")
    return lab.playbook("flash", *more, timeout=600).stdout


@pytest.fixture(scope="module", params=["small", pytest.param("debian", marks=pytest.mark.long)])
def image(request: pytest.FixtureRequest) -> Path:
    return full_debian.build() if request.param == "debian" else DRIVERS["board"].image(CACHE / "lab")[0]


@pytest.fixture(scope="module")
def flashed(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Flashed:
    folder = tmp_path_factory.mktemp("board")
    key = folder / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    asked = {
        "board_image_src": str(image),
        "board_image_sha256": run(["sha256sum", str(image)]).stdout.split()[0],
        "board_image_authorized_keys": [key.with_suffix(".pub").read_text()],
        "board_image_root_password": run(["openssl", "passwd", "-6", PASSWORD]).stdout.strip(),
        "board_image_interfaces": INTERFACES + STANZA,
        "board_image_root_size": "image",
        "board_image_card_min": "0B",
        "board_image_cache_dir": str(folder / "cache"),
        "lab_links": LINKS,
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    size = 1 << image.stat().st_size.bit_length()  # as QEMU takes it
    card = boards.card(folder / "card.img", size)
    way = f"-o ProxyCommand='socat - UNIX-CONNECT:{{{{ lab_run_dir }}}}/%h/ssh' -o UserKnownHostsFile={folder}/known"
    master = {
        "lab_node_kind": "board",
        "lab_board_card": str(card),
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"{way} -o StrictHostKeyChecking=accept-new",
        "ansible_ssh_timeout": 200,
    }
    inventory = folder / "boards.yml"
    inventory.write_text(json.dumps({"testbed": {"hosts": {"master": master}}}))
    lab = Lab(f"boardtest-{os.getpid()}", inventory)
    with loop(card) as device:
        said = flash(lab, device, folder / "asked.json")
    return Flashed(lab, card, image, key, folder / "asked.json", said)


def test_a_card_made_for_a_node_has_its_name_keys_and_addresses(tmp_path: Path) -> None:
    cache = CACHE / "lab"
    DRIVERS["board"].image(cache)
    node = Node("slave", "board", 256, 1, (Interface("eth0", "52:54:00:00:00:01", "device", "192.168.1.148/24", ""),))
    DRIVERS["board"].prepare(node, Place(tmp_path, cache, "ssh-ed25519 AAAA lab\n"))
    card = tmp_path / "card.img"
    run(["e2fsck", "-fn", f"{card}?offset={START}"])
    assert debugfs(card, "cat /etc/hostname") == "slave\n"
    assert debugfs(card, "cat /root/.ssh/authorized_keys") == "ssh-ed25519 AAAA lab\n"
    assert "address 192.168.1.148/24\n" in debugfs(card, "cat /etc/network/interfaces")
    assert debugfs(card, "cat /etc/network/interfaces").endswith(STANZA)
    assert debugfs(card, "cat /etc/ssh/ssh_host_ed25519_key.pub") == (tmp_path / "host_key.pub").read_text()
    assert "Mode:  0600" in debugfs(card, "stat /etc/ssh/ssh_host_ed25519_key")
    shown = json.loads(run(["qemu-img", "info", "--output=json", str(tmp_path / "disk.qcow2")]).stdout)
    assert (shown["virtual-size"], shown["backing-filename"]) == (512 * MIB, str(card))


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    return host()


@pytest.fixture(scope="module")
def booted(before: dict[str, Any], flashed: Flashed) -> Iterator[Flashed]:
    try:
        flashed.playbook("lab_up", *READY)
        yield flashed
    finally:
        flashed.lab.playbook("lab_down")


def test_the_card_is_written_and_reads_back(flashed: Flashed) -> None:
    assert re.search(r"^master .*changed=1 .*failed=0", flashed.flashed, re.MULTILINE), flashed.flashed
    size = flashed.image.stat().st_size
    run(["cmp", "-n", str(START), str(flashed.image), str(flashed.card)])  # partition table, boot loader
    with open(flashed.card, "rb") as card:
        card.seek(size)
        behind = card.read()
        assert behind.count(0xFF) == len(behind) > 0
    run(["e2fsck", "-fn", f"{flashed.card}?offset={START}"])
    assert debugfs(flashed.card, "cat /etc/hostname") == "master\n"
    # All that has to be zero is: the same file, from the image and from the card that was all ones.
    for name in ("/usr/bin/python3.11", "/boot/zImage"):
        sums = {
            run(["sh", "-c", f"debugfs -R 'cat {name}' '{path}?offset={START}' | sha256sum"]).stdout
            for path in flashed[1:3]
        }
        assert len(sums) == 1


def test_the_board_boots_and_is_as_asked(booted: Flashed) -> None:
    assert booted.board("hostname; uname -m; id -un").split() == ["master", "armv7l", "root"]
    assert "NanoPi NEO" in booted.board("cat /proc/device-tree/model")
    shown = {i["ifname"]: [a["local"] for a in i["addr_info"]] for i in json.loads(booted.board("ip -j -4 addr"))}
    assert shown["eth0"] == ["192.168.1.107"]
    assert DEVICE in json.dumps(json.loads(booted.board("ip -j link")))
    console = booted.lab.run_dir / "master" / "console.log"
    wait_for(lambda: b"master login:" in console.read_bytes(), 200)  # systemd is ready for ssh before
    said = console.read_text(errors="replace")
    assert "U-Boot SPL" in said and "FriendlyARM NanoPi NEO" in said and "Found U-Boot script /boot/boot.scr" in said
    refused = run(["ssh", "-F", str(booted.lab.run_dir / "ssh_config"), "master", "true"], check=False)
    assert refused.returncode == 255  # the lab's own key does not open a card of the user's


def replies(said: str) -> dict[int, float]:
    """Number of each echo that came back → milliseconds."""
    return {int(number): float(late) for number, late in re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", said)}


def test_packets_reach_the_node_at_the_other_end_of_the_link(booted: Flashed) -> None:
    said = booted.lab.run("laptop", ["ping", "-c", "5", "-i", "0.5", "-w", "60", "192.168.1.107"]).stdout
    assert " 0% packet loss" in said
    assert min(replies(said).values()) < DELAY / 2
    assert "lladdr 02:" in booted.lab.run("laptop", ["ip", "neigh", "show", "192.168.1.107"]).stdout


def site(booted: Flashed, folder: Path) -> str:
    (folder / "site.json").write_text(json.dumps(SITE))
    return booted.playbook("site", "-l", "master", "-e", f"@{folder}/site.json").stdout


def test_site_makes_a_bridge_of_it_that_delays_and_drops(booted: Flashed, tmp_path: Path) -> None:
    site(booted, tmp_path)
    shown = booted.board("brctl show br0")
    assert {"eth0", DEVICE} <= set(shown.split()), shown
    (br0,) = json.loads(booted.board("ip -j -4 addr show dev br0"))
    assert [address["local"] for address in br0["addr_info"]] == ["192.168.1.107"]
    tree = booted.board(f"tc qdisc show dev {DEVICE}; tc class show dev {DEVICE}")
    assert f"delay {DELAY}ms" in tree and "rate 128Kbit" in tree, tree

    booted.lab.run("laptop", ["ping", "-q", "-c", "1", "-w", "90", "192.168.1.148"])  # until the bridge forwards
    came = replies(booted.lab.run("laptop", PING, check=False).stdout)
    missing = sorted(set(range(1, 41)) - came.keys())
    assert len(missing) == 2 and [b - a for a, b in pairwise(missing)] == [20], missing
    assert min(came.values()) >= 0.95 * DELAY, came  # 397 ms were seen: two emulated clocks


@pytest.mark.board
def test_site_changes_nothing_the_second_time(booted: Flashed, tmp_path: Path) -> None:
    again = site(booted, tmp_path)
    assert re.search(r"^master .*changed=0 .*failed=0", again, re.MULTILINE), again


NOISE = """\
dmesg -n 7
i=0
while [ $i -lt 6000 ]; do echo "br0: port 1(eth0) entered forwarding state" >/dev/kmsg; sleep 0.3; i=$((i + 1)); done
"""
PLAY = """
- hosts: master
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
    - ansible.builtin.setup: {{gather_subset: ["!all", "min"]}}
      register: facts
    - ansible.builtin.copy: {{src: "{folder}/here", dest: /root/there, mode: "0640"}}
    - ansible.builtin.debug:
        msg: "{{{{ facts.ansible_facts.ansible_hostname }}}} {{{{ facts.ansible_facts.ansible_machine }}}}"
"""


@pytest.fixture(scope="module")
def serial(booted: Flashed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Variables by which playbooks go over the board's console, while its kernel prints three lines a second."""
    asked = {
        "ansible_connection": "impair.testbed.serial",
        "ansible_serial_port": f"unix:{booted.lab.run_dir}/master/tty",
        "ansible_password": PASSWORD,
        "ansible_serial_timeout": 300,
    }
    path = tmp_path_factory.mktemp("serial") / "serial.json"
    path.write_text(json.dumps(asked))
    booted.board("cat >/run/noise; setsid sh /run/noise >/dev/null 2>&1 &", NOISE)
    return path


def printed(booted: Flashed) -> int:
    """How many of the kernel's lines the console has carried."""
    return (booted.lab.run_dir / "master" / "console.log").read_bytes().count(b"entered forwarding")


@pytest.mark.board
def test_modules_over_the_serial_console_while_the_kernel_prints(booted: Flashed, serial: Path, tmp_path: Path) -> None:
    before = printed(booted)
    (tmp_path / "here").write_bytes(os.urandom(20_000))
    (tmp_path / "play.yml").write_text(PLAY.format(folder=tmp_path))
    argv = ["ansible-playbook", str(tmp_path / "play.yml"), *booted.lab._inventory(), "-e", f"@{serial}"]
    said = run(["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", *argv], timeout=3000).stdout
    assert "msg: master armv7l" in said, said
    want = run(["sha256sum", str(tmp_path / "here")]).stdout.split()[0]
    assert booted.board("sha256sum /root/there; stat -c %a /root/there").split() == [want, "/root/there", "640"]
    assert printed(booted) > before + 20


@pytest.mark.board
def test_site_over_the_serial_console_while_the_kernel_prints(booted: Flashed, serial: Path, tmp_path: Path) -> None:
    """One value is another: that alone changes."""
    before = printed(booted)
    (tmp_path / "site.json").write_text(json.dumps(SITE).replace(f"{DELAY}ms", "250ms"))
    said = booted.playbook("site", "-l", "master", "-e", f"@{tmp_path}/site.json", "-e", f"@{serial}").stdout
    assert re.search(r"^master .*changed=1 .*failed=0", said, re.MULTILINE), said
    tree = booted.board(f"tc qdisc show dev {DEVICE}; tc class show dev {DEVICE}")
    assert "delay 250ms" in tree and "rate 128Kbit" in tree, tree
    assert "br0" in booted.board("brctl show br0")
    assert printed(booted) > before + 20


def test_a_second_flash_writes_nothing(booted: Flashed) -> None:
    """The card is as it was written: what the board has changed since is in a file of the lab's."""
    stood = booted.card.stat().st_mtime_ns
    with loop(booted.card) as device:
        said = flash(booted.lab, device, booted.asked)
    assert re.search(r"^master .*changed=0 .*failed=0", said, re.MULTILINE), said
    assert booted.card.stat().st_mtime_ns == stood


def test_nothing_is_left(booted: Flashed, before: dict[str, Any]) -> None:
    assert any("qemu-system-arm" in said for said in processes(booted.lab).values())
    booted.leave()
    booted.lab.playbook("lab_down")
    wait_for(lambda: processes(booted.lab) == {}, 60)  # ansible's connections end by themselves, when they find nobody
    assert not booted.lab.run_dir.exists()
    assert host() == before
