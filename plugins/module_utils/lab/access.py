# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run directory, and the way into the nodes: a key, the nodes' host keys, one unix socket a node."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import select
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .. import programs
from ..errors import InvalidInput, StepFailed, TestbedError
from .model import End, Link, Topology

KEY = "id_ed25519"
# In the folder of a node that is namespaces: its pid; with its start time; whether it has its addresses.
PID, SPACE, SETTLED = "nspid", "space.json", "settled"
MOST_VANISHED = 1000  # times in a row that a folder may go with another lab before a lock is in it
SOCKET_LIMIT = 107  # bytes of a unix socket's path, unix(7)
# ssh's own socket for ControlPersist is `<directory>/cp/<10 characters>.<16 random ones>`
LONGEST_FIXED = len("/cp/0123456789.0123456789abcdef")


def check_directory(directory: Path, names: Sequence[str]) -> None:
    """Refuse a run directory whose sockets would have too long a path."""
    longest = max([LONGEST_FIXED, *(len(f"/{name}/ssh") for name in names)])
    if not directory.is_absolute():
        raise InvalidInput("lab_run_dir", str(directory), "an absolute path is expected")
    if len(os.fsencode(directory)) + longest > SOCKET_LIMIT:
        raise InvalidInput(
            "lab_run_dir", str(directory), f"{SOCKET_LIMIT - longest} bytes at most, as sockets lie in it"
        )


def make_directory(directory: Path) -> None:
    """Make the run directory for this user only. Raises TestbedError where somebody else's stands in the way."""
    for path in (directory.parent, directory):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            raise TestbedError(f"{path} is not a folder of this user; choose another lab_run_dir")
    (directory / "cp").mkdir(mode=0o700, exist_ok=True)


def _remove_folders(directory: Path) -> None:
    """Remove the folders of ours that the run directory was the last one in."""
    for folder in (directory.parent, directory.parent.parent):
        if not folder.name.startswith("impair.testbed"):
            return
        try:
            folder.rmdir()
        except OSError:  # another lab
            return


def remove_directory(directory: Path) -> None:
    """Ssh clients whose nodes just went may be removing their own sockets in it at this moment."""
    for attempt in range(20):
        try:
            shutil.rmtree(directory)
            return
        except FileNotFoundError:
            if not directory.exists():
                return
        except OSError:
            if attempt == 19:
                raise


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One lab_up or lab_down of this lab at a time: others may take minutes. The lock lies beside the run directory.

    It goes with that, and with it the folders of ours that nothing is left in.
    """
    path = directory.with_name(f".{directory.name}.lock")
    handle = _lock(path)
    try:
        yield
    finally:
        if not directory.exists():
            path.unlink()
            _remove_folders(directory)
        os.close(handle)


def _lock(path: Path) -> int:
    """The file's descriptor, locked. Whoever had it before may have removed it meanwhile: then it is made anew."""
    vanished = 0
    while True:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except (FileExistsError, FileNotFoundError):  # the folder has just gone with another lab
            vanished += 1
            if vanished == MOST_VANISHED:  # or something else is in its place
                raise
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.path.samestat(path.lstat(), os.fstat(handle)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)


def make_key(directory: Path) -> None:
    """The key that logs in to every node of this lab, made for it and gone with it."""
    key = directory / KEY
    key.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "impair.testbed lab", "-f", str(key)]
    made = programs.run(argv)
    if made.returncode != 0:
        raise StepFailed(" ".join(argv), made.stderr.strip())


def make_host_key(directory: Path, name: str) -> Path:
    """The key by which a node is known, in its own folder of the run directory."""
    key = directory / "host_key"
    made = programs.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)])
    if made.returncode != 0:
        raise StepFailed("ssh-keygen", made.stderr.strip())
    return key


def has_key(directory: Path) -> bool:
    return (directory / f"{KEY}.pub").exists()


def public_key(directory: Path) -> str:
    return (directory / f"{KEY}.pub").read_text(encoding="ascii")


def write_known_hosts(directory: Path) -> None:
    """The nodes' host keys were made here, so ssh can insist on them."""
    lines = []
    for path in sorted(directory.glob("*/host_key.pub")):
        kind, key = path.read_text(encoding="ascii").split()[:2]
        lines.append(f"{path.parent.name} {kind} {key}\n")
    (directory / "known_hosts").write_text("".join(lines), encoding="ascii")
    (directory / "ssh_config").write_text(ssh_config(directory), encoding="utf-8")


def ssh_config(directory: Path) -> str:
    """For `ssh -F <run directory>/ssh_config <node>`."""
    return f"""Host *
    User root
    ProxyCommand socat - UNIX-CONNECT:{directory}/%h/ssh
    IdentityFile {directory}/{KEY}
    IdentitiesOnly yes
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""


def read_links(directory: Path) -> tuple[Link, ...]:
    """The links that were plugged, as written by write_links, perhaps of an earlier version, which knew less of a link.

    The keeper knows their names only.
    """
    try:
        raw = json.loads((directory / "links.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    return tuple(_link(*known) for known in raw)


def _link(name: str, kind: str, ends: Sequence[Sequence[str]], mtu: int = 0, bridge: Sequence[bool] = ()) -> Link:
    return Link(name, kind, tuple(End(*end) for end in ends), mtu, tuple(bridge))


def write_links(directory: Path, links: Sequence[Link]) -> None:
    """One entry a name: the last one wins."""
    latest = {link.name: link for link in links}
    (directory / "links.json").write_text(json.dumps(list(latest.values())), encoding="utf-8")


def interfaces(pid: int) -> list[str]:
    """The interfaces of a process's network namespace; none where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[0].strip() for line in lines[2:]]


def write_config(directory: Path, topology: Topology) -> None:
    """Names and kinds for people and programs that look here; munet's `mucmd -d <run directory> <node> …` needs it."""
    nodes = [{"name": node.name, "kind": node.kind, "id": node.number} for node in topology.nodes]
    by_name = {node["name"]: node for node in nodes}
    networks = [{"name": link.name, "kind": link.kind, "ends": link.ends} for link in topology.links]
    text = json.dumps({"topology": {"nodes": by_name, "networks": networks}}, indent=1)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def relay_request(name: str, directory: Path, sshd: str) -> dict[str, object]:
    """The process that carries a node's unix socket to its sshd, address and port inside the lab's namespace."""
    return {
        "name": f"ssh {name}",
        "argv": [
            programs.find("socat") or "socat",
            f"UNIX-LISTEN:{directory}/ssh,fork,mode=600,unlink-early,backlog=32",
            f"TCP:{sshd},nodelay,connect-timeout=10",
        ],
        "env": {},
        "ends": [],
        "log": str(directory / "relay.log"),
    }


def wait_for_ssh(directory: Path, names: Sequence[str], within: float, dead: Callable[[str], bool]) -> None:
    """Wait until every node's sshd greets. Raises StepFailed with the console's end where one does not. Seconds."""
    deadline = time.monotonic() + within
    with contextlib.ExitStack() as stack:
        waiting = {name: stack.enter_context(Greeting(directory / name / "ssh", patience=2)) for name in names}
        while waiting:
            waiting = {name: greeting for name, greeting in waiting.items() if not greeting.heard()}
            for name in waiting:
                if dead(name):
                    raise StepFailed(f"start {name}", f"its process ended; console: {console(directory, name)}")
                if time.monotonic() > deadline:
                    raise StepFailed(
                        f"start {name}", f"no ssh within {within:g} s; console: {console(directory, name)}"
                    )
            if waiting:
                select.select([g.sock for g in waiting.values() if g.sock], [], [], 0.1)


def answering(directory: Path, names: Sequence[str], within: float) -> set[str]:
    """Those nodes whose ssh server says hello within so many seconds; a kernel that panicked may still be a process."""
    deadline = time.monotonic() + within
    with contextlib.ExitStack() as stack:
        waiting = {name: stack.enter_context(Greeting(directory / name / "ssh")) for name in names}
        while waiting and time.monotonic() < deadline:
            waiting = {name: greeting for name, greeting in waiting.items() if not greeting.heard()}
            if waiting:
                select.select([g.sock for g in waiting.values() if g.sock], [], [], 0.1)
        return set(names) - set(waiting)


class Greeting:
    """One node's ssh server about to say hello; asked again whenever the relay closes for want of a server.

    Also after `patience` seconds of silence, then after one more each time: what was sent before the node was there
    is sent again after many seconds only.
    """

    def __init__(self, path: Path, patience: float = math.inf) -> None:
        self.path = path
        self.patience = patience
        self.asked = 0.0
        self.sock: socket.socket | None = None

    def __enter__(self) -> Greeting:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None

    def heard(self) -> bool:
        """Whether it did. Never blocks."""
        try:
            if self.sock is None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.setblocking(False)
                self.sock.connect(os.fspath(self.path))
                self.asked = time.monotonic()
            if self.sock.recv(4) == b"SSH-":
                return True
            self._close()  # no server yet
        except BlockingIOError:  # connected, and nothing said yet
            if time.monotonic() - self.asked > self.patience:
                self._close()
                self.patience += 1
        except OSError:
            self._close()  # no relay yet
        return False


def console(directory: Path, name: str, lines: int = 12) -> str:
    """The end of a node's console."""
    path = directory / name / "console.log"
    if not path.exists():
        return "(empty)"
    return " | ".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
