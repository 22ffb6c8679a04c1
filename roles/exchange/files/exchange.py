# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two nodes can exchange, and how fast: messages to and fro, copies of blocks, files. Standard library only.

usage: python3 - serve|measure|end ASKED    ASKED is a JSON object; what was found is printed as JSON. The program is
read from the standard input, so that there is no file of it.

`serve` answers in the background until `end`, or for `within` seconds. Each request is a connection of its own: a line
of JSON, then what the operation says. Whatever was carried is compared by its SHA-256, outside of the time taken.
Files go through the page cache at both ends: the network is measured, not disks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

PIECE = 1 << 20  # bytes that are made or hashed at once
COPIED = 4 << 20  # bytes of each size of block, within
COUNTS = (4, 1000)  # so many blocks
PATIENCE = 120  # seconds that the other side may be silent
PINGS = 20
OURS = "impair.testbed exchange"  # the comment of a key that may log in meanwhile
SSH = ("-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes")


class Wire:
    """A connection that carries lines of JSON and plain bytes."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected

    def tell(self, value: object) -> None:
        self.socket.sendall(json.dumps(value).encode() + b"\n")

    def hear(self) -> dict:
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self.take(1)
        return json.loads(line)

    def fill(self, view: memoryview) -> None:
        """Bytes until it is full. Raises ConnectionError where the other side has closed before."""
        done = 0
        while done < len(view):
            came = self.socket.recv_into(view[done:])
            if came == 0:
                raise ConnectionError(f"the other side closed {len(view) - done} bytes too early")
            done += came

    def take(self, count: int) -> bytearray:
        space = bytearray(count)
        self.fill(memoryview(space))
        return space

    def send_file(self, path: Path, buffer: int) -> None:
        view = memoryview(bytearray(buffer))
        with open(path, "rb", buffering=0) as source:
            while count := source.readinto(view):
                self.socket.sendall(view[:count])

    def take_file(self, path: Path, size: int, buffer: int) -> None:
        view = memoryview(bytearray(buffer))
        with open(path, "wb", buffering=0) as target:
            for start in range(0, size, buffer):
                part = view[: min(buffer, size - start)]
                self.fill(part)
                target.write(part)


def hashed(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while piece := source.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def source(directory: Path, size: int) -> Path:
    """A file of so many bytes by chance, made once."""
    path = directory / f"{size}.bin"
    if not path.exists():
        with open(path, "wb") as target:
            for start in range(0, size, PIECE):
                target.write(os.urandom(min(PIECE, size - start)))
    return path


# The side that answers -------------------------------------------------------------------------------------
def answer_echo(wire: Wire, directory: Path, size: int, count: int) -> None:
    view = memoryview(bytearray(size))
    for _number in range(count):
        wire.fill(view)
        wire.socket.sendall(view)


def answer_copy(wire: Wire, directory: Path, block: int, count: int) -> None:
    """A block counts as copied once this side has all of it and says so."""
    space = memoryview(bytearray(block * count))
    for start in range(0, block * count, block):
        wire.fill(space[start : start + block])
        wire.socket.sendall(b"k")
    wire.tell({"sha256": hashlib.sha256(space).hexdigest()})


def answer_get(wire: Wire, directory: Path, size: int, buffer: int) -> None:
    path = source(directory, size)
    wire.tell({"sha256": hashed(path)})
    wire.take(1)
    wire.send_file(path, buffer)


def answer_put(wire: Wire, directory: Path, size: int, buffer: int) -> None:
    path = directory / "put"
    wire.take_file(path, size, buffer)
    wire.socket.sendall(b"k")
    wire.tell({"sha256": hashed(path)})
    path.unlink()


OPERATIONS = {"echo": answer_echo, "copy": answer_copy, "get": answer_get, "put": answer_put}


def answer(connected: socket.socket, directory: Path) -> None:
    with connected:
        wire = Wire(connected)
        request = wire.hear()
        OPERATIONS[request.pop("do")](wire, directory, **request)


def serve(directory: str, address: str, port: int, within: int, key: bool) -> dict:
    """Answer in the background; what the other node needs to know. What an earlier run left is removed before."""
    end(directory)
    place = Path(directory)
    place.mkdir(mode=0o700)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)
    told = {"port": listener.getsockname()[1], "public_key": make_key(place) if key else "", "host_key": host_key()}
    pid = os.fork()
    if pid:
        (place / "pid").write_text(f"{pid}\n", encoding="ascii")
        return told
    os.setsid()
    with open(place / "log", "ab", buffering=0) as log, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.alarm(within)
    while True:
        try:
            answer(listener.accept()[0], place)
        except Exception as error:  # whatever one client does, the next one is served
            print(f"{type(error).__name__}: {error}", flush=True)


def make_key(place: Path) -> str:
    path = place / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", OURS, "-f", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path.with_suffix(".pub").read_text(encoding="ascii").strip()


def host_key() -> str:
    """This node's own, by which ssh knows it; empty where it has none."""
    with contextlib.suppress(OSError):
        return " ".join(Path("/etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="ascii").split()[:2])
    return ""


def end(directory: str, keys: str = "") -> dict:
    """No server, and no file of ours. `keys` is the file of keys that may log in, where one of ours may be in it."""
    place = Path(directory)
    with contextlib.suppress(FileNotFoundError):
        pid = int((place / "pid").read_text(encoding="ascii"))
        with contextlib.suppress(OSError):
            # The pid may be another's by now.
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"\0serve\0" in command and os.fsencode(directory) in command:
                os.kill(pid, signal.SIGTERM)
    shutil.rmtree(place, ignore_errors=True)
    if keys:
        with contextlib.suppress(FileNotFoundError):
            shut_out(Path(keys))
    return {}


def shut_out(keys: Path) -> None:
    lines = keys.read_text(encoding="utf-8").splitlines(keepends=True)
    others = [line for line in lines if not line.rstrip().endswith(f" {OURS}")]
    if others != lines:
        keys.write_text("".join(others), encoding="utf-8")


# The side that asks -------------------------------------------------------------------------------------
class Client:
    """All that is asked of one server. Every method gives rows: `rate` in bytes/s or round trips/s, `median` in µs."""

    def __init__(self, directory: str, address: str, port: int) -> None:
        self.directory = Path(directory)
        self.address, self.port = address, port

    @contextlib.contextmanager
    def asking(self, **request: object):
        with socket.create_connection((self.address, self.port), timeout=PATIENCE) as connected:
            wire = Wire(connected)
            wire.tell(request)
            yield wire

    def ping(self) -> dict:
        # With a deadline (-w) the count is of answers: on a busy machine the last one may be late (ping(8)).
        argv = ["ping", "-c", str(PINGS), "-i", "0.05", "-w", str(PATIENCE), self.address]
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        times = [float(late) * 1000 for late in re.findall(r"time=([\d.]+) ms", said)]
        return {"what": "ping", "median": statistics.median(times) if times else None, "good": len(times) >= PINGS}

    def message(self, size: int, count: int) -> dict:
        message, times, good = os.urandom(size), [], True
        with self.asking(do="echo", size=size, count=count) as wire:
            began = time.perf_counter()
            for _number in range(count):
                sent = time.perf_counter()
                wire.socket.sendall(message)
                good &= wire.take(size) == message
                times.append(time.perf_counter() - sent)
            rate = count / (time.perf_counter() - began)
        return {"what": "message", "bytes": size, "rate": rate, "median": statistics.median(times) * 1e6, "good": good}

    def block(self, block: int) -> dict:
        count = min(max(COPIED // block, COUNTS[0]), COUNTS[1])
        content = memoryview(os.urandom(block * count))
        with self.asking(do="copy", block=block, count=count) as wire:
            began = time.perf_counter()
            for start in range(0, block * count, block):
                wire.socket.sendall(content[start : start + block])
                wire.take(1)
            seconds = time.perf_counter() - began
            good = wire.hear()["sha256"] == hashlib.sha256(content).hexdigest()
        return {"what": "block", "bytes": block, "rate": block * count / seconds, "good": good}

    def get(self, size: int, buffer: int) -> dict:
        path = self.directory / "got"
        with self.asking(do="get", size=size, buffer=buffer) as wire:
            wanted = wire.hear()["sha256"]
            began = time.perf_counter()
            wire.socket.sendall(b"g")
            wire.take_file(path, size, buffer)
            seconds = time.perf_counter() - began
        good = hashed(path) == wanted
        path.unlink()
        return {"what": "get", "bytes": size, "buffer": buffer, "rate": size / seconds, "good": good}

    def put(self, size: int, buffer: int) -> dict:
        path = source(self.directory, size)
        with self.asking(do="put", size=size, buffer=buffer) as wire:
            began = time.perf_counter()
            wire.send_file(path, buffer)
            wire.take(1)
            seconds = time.perf_counter() - began
            good = wire.hear()["sha256"] == hashed(path)
        return {"what": "put", "bytes": size, "buffer": buffer, "rate": size / seconds, "good": good}

    def scp(self, size: int, user: str, host_key: str) -> list:
        """GET and PUT, from the program's start to its end. The server's file is there since get()."""
        known = self.directory / "known_hosts"
        known.write_text(f"{self.address} {host_key}\n", encoding="ascii")
        options = [*SSH, "-i", str(self.directory / "key"), "-o", f"UserKnownHostsFile={known}"]
        host = f"[{self.address}]" if ":" in self.address else self.address
        own, theirs, got = source(self.directory, size), self.directory / f"{size}.bin", self.directory / "got"
        put = f"{self.directory}/put-scp"
        remote = ["ssh", *options, f"{user}@{self.address}"]
        get_seconds = timed(["scp", "-q", *options, f"{user}@{host}:{theirs}", str(got)])
        put_seconds = timed(["scp", "-q", *options, str(own), f"{user}@{host}:{put}"])
        sums = subprocess.run(
            [*remote, f"sha256sum {theirs} {put} && rm {put}"], capture_output=True, check=True, text=True
        )
        wanted, arrived = (line.split()[0] for line in sums.stdout.splitlines())
        rows = [
            {"what": "scp get", "bytes": size, "rate": size / get_seconds, "good": hashed(got) == wanted},
            {"what": "scp put", "bytes": size, "rate": size / put_seconds, "good": hashed(own) == arrived},
        ]
        got.unlink()
        return rows


def timed(argv: list) -> float:
    began = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return time.perf_counter() - began


def measure(directory: str, address: str, port: int, names: dict, asked: dict, scp: dict) -> list:
    """`names` are those of server and client, for the rows; `asked` the sizes; `scp` is empty where it cannot be."""
    client = Client(directory, address, port)
    rows = [client.ping(), client.message(asked["message"], asked["messages"])]
    rows += [client.block(block) for block in asked["blocks"]]
    for size in asked["files"]:
        for buffer in asked["buffers"]:
            rows += [client.get(size, buffer), client.put(size, buffer)]
        rows += client.scp(size, **scp) if scp else []
    return [{**names, **row} for row in rows]


def main() -> None:
    job, asked = sys.argv[1:3]
    print(json.dumps({"serve": serve, "measure": measure, "end": end}[job](**json.loads(asked))))


if __name__ == "__main__":
    main()
