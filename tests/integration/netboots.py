# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A boot server in a network namespace, and emulated boards on wires of their own to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from plugins.module_utils.lab import image, recipe_board
from tests.integration.places import CHECKOUT, Done, Netns, run

SERVER = "192.168.77.1"
CARD = 64 << 20  # bytes; QEMU takes powers of two
ENDED_WITHIN = 20
CMDLINE = f"console=ttyS0,115200 {recipe_board.EXTRA} loglevel=4"


def published() -> tuple[Path, str]:
    """The image of a board's card, as somebody would publish it, and its checksum."""
    path, _built = image.build(image.cache_directory(), recipe_board.BOARD_IMAGE)
    return path, sha256(path)


def sha256(path: Path) -> str:
    return run(["sha256sum", str(path)]).stdout.split()[0]


def mac_of(sid: str) -> str:
    """What u-boot makes of the H3's identifier (arch/arm/mach-sunxi, setup_environment)."""
    words = struct.unpack(">4I", uuid.UUID(sid).bytes)
    made = zlib.crc32(struct.pack("<3I", *words[1:]))
    return ":".join(f"{byte:02x}" for byte in (2, words[0] & 0xFF, *made.to_bytes(4, "big")))


class Server:
    """The boot server: a namespace with one interface, on which boards' wires end, and a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.place = Netns(name)
        self.inventory = folder / "inventory"
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def playbook(self, name: str, *arguments: str, check: bool = True) -> Done:
        """Run one of the project's playbooks in the namespace."""
        argv = ["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", "ansible-playbook", f"playbooks/{name}.yml"]
        inside = ["ip", "netns", "exec", self.place.name, *argv, "-i", str(self.inventory), *arguments]
        return run(inside, None, check, timeout=560)

    def start(self, unit: str) -> None:
        """Run what the unit names, as systemd would."""
        text = (self.folder / "units" / f"impair.testbed-{unit}.service").read_text()
        command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
        assert command, text
        self.spawn(shlex.split(command[1]), self.folder / f"{unit}.log")

    def listens(self, *options: str) -> bool:
        """Whether somebody does, as ss shows it."""
        return bool(self.place.run(["ss", "-Hn", *options]).stdout.strip())

    def spawn(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        with open(log, "ab") as file:
            inside = ["ip", "netns", "exec", self.place.name, *argv]
            process = subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self._processes.append(process)
        return process

    def end(self) -> None:
        for path in self.folder.glob("*.ssh"):  # connections that are kept
            run(["ssh", "-F", "/dev/null", "-o", f"ControlPath={path}", "-O", "exit", "board"], None, check=False)
        for process in self._processes:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDED_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Board:
    """An emulated board with a card, on a wire of its own."""

    def __init__(self, server: Server, name: str, sid: str, address: str) -> None:
        self.server, self.name, self.sid, self.address = server, name, sid, address
        self.card = server.folder / f"{name}.card"
        self.console = server.folder / f"{name}.console"
        self._running: subprocess.Popen[bytes] | None = None
        with open(self.card, "wb") as file:
            file.truncate(CARD)
        place = server.place
        place.run(["ip", "tuntap", "add", "dev", f"to-{name}", "mode", "tap"])
        place.run(["ip", "link", "set", f"to-{name}", "master", place.device, "up"])

    def power_on(self) -> None:
        self.console.unlink(missing_ok=True)
        argv = [
            *("qemu-system-arm", "-M", "orangepi-pc", "-m", "1G", "-display", "none", "-monitor", "none"),
            *("-global", "cortex-a7-arm-cpu.cntfrq=24000000", "-global", f"allwinner-sid.identifier={self.sid}"),
            *("-drive", f"file={self.card},if=sd,format=raw", "-serial", f"file:{self.console}"),
            # QEMU's tap stops reading when the card cannot take a frame, and this card never says that it can again
            # (net/tap.c, hw/net/allwinner-sun8i-emac.c). A hub whose third port leads nowhere takes every frame.
            *("-netdev", f"tap,id=wire,ifname=to-{self.name},script=no,downscript=no"),
            *("-netdev", "hubport,id=port0,hubid=0,netdev=wire", "-netdev", "hubport,id=port1,hubid=0"),
            *("-netdev", "hubport,id=port2,hubid=0", "-net", "nic,netdev=port1"),
        ]
        self._running = self.server.spawn(["nice", "-n", "5", *argv], self.server.folder / f"{self.name}.qemu")

    def power_off(self) -> None:
        self._ssh("-O", "exit", check=False)
        if self._running:
            stop(self._running)

    def said(self) -> str:
        """The end of what is on its console, for messages."""
        text = self.console.read_text(errors="replace") if self.console.exists() else "nothing"
        return f"{self.name}: {text[-3000:]}"

    def ssh(self, command: str, check: bool = True) -> Done:
        """Run a command on the board, over a connection that is kept: a new one costs it seconds.

        Its host key has to be the one that the server made for it.
        """
        key = (self.server.store / "boards" / self.name / "files/etc/ssh/ssh_host_ed25519_key.pub").read_text()
        (self.server.folder / f"{self.name}.known").write_text(f"{self.address} {' '.join(key.split()[:2])}\n")
        return self._ssh(command, check=check)

    def _ssh(self, *words: str, check: bool) -> Done:
        folder = self.server.folder
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ControlMaster": "auto",
            "ControlPersist": "60",
            "ControlPath": folder / f"{self.name}.ssh",
            "HostKeyAlgorithms": "ssh-ed25519",
            "IdentityFile": folder / "key",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": folder / f"{self.name}.known",
        }
        argv = ["ssh", "-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]
        control, rest = (list(words), []) if words[0] == "-O" else ([], list(words))
        return self.server.place.run([*argv, *control, f"root@{self.address}", *rest], None, check)

    def up(self) -> bool:
        return self.ssh("true", check=False).returncode == 0


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Wait until it holds; where it does not in time, fail with what is told."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.5)


def write_inventory(server: Server, common: dict[str, Any], boards: dict[str, dict[str, Any]]) -> None:
    """One server and some boards, as inventories/lab has them."""
    here = {"ansible_connection": "local", "ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3"}
    hosts = {
        "all": {"vars": common},
        "netboot": {"hosts": {"server": here}},
        "testbed": {"hosts": boards},
    }
    server.inventory.mkdir(exist_ok=True)
    (server.inventory / "hosts.yml").write_text(json.dumps(hosts))


@contextlib.contextmanager
def boot_server() -> Iterator[Server]:
    """A server without any configuration; all of it goes afterwards."""
    folder = Path(
        tempfile.mkdtemp(prefix="impair-netboot-", dir="/tmp")
    )  # not below pytest's, which dnsmasq may not enter
    folder.chmod(0o755)
    (folder / "units").mkdir()
    server = Server(folder, f"netboot-{os.getpid()}")
    server.place = Netns(server.place.name, "boards0")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")])
    run(["ip", "netns", "add", server.place.name])
    try:
        for words in ("link set lo up", "link add boards0 type bridge", "link set boards0 up"):
            server.place.run(["ip", *words.split()])
        server.place.run(["ip", "address", "add", f"{SERVER}/24", "dev", "boards0"])
        yield server
    finally:
        server.end()
        run(["ip", "netns", "delete", server.place.name])
        shutil.rmtree(folder)
