# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one process that a lab lives and dies with.

The keeper owns the lab's network namespace, the ends of its links and its processes. It is the first process of a PID
namespace of its own: when it ends, however it ends, the kernel ends every process of the lab and takes the network
namespace with it. Nothing has a name outside the run directory, so nothing can be left behind.

The file imports the standard library only: control.py copies it into the run directory and starts it from there, so a
running lab does not depend on the checkout or on a module's temporary files. It takes requests as lines of JSON on the
unix socket `control.sock`, one answer a line; it decides nothing itself.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
ETH_P_ALL, SOL_PACKET, PACKET_IGNORE_OUTGOING = 0x0003, 263, 23
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1F, 0x24
REMINDER = 1.0  # seconds


def tell(line: str) -> None:
    """A line into the keeper's log, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def enter_namespaces() -> None:
    """Own network and PID namespace; an ordinary user gets them inside a user namespace, without sudo."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        unshare(CLONE_NEWNET | CLONE_NEWPID)
        return
    unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:
            handle.write(text)


def host_pid() -> int:
    """This process's id as the host sees it: /proc is still the host's, so its `self` is translated."""
    return int(os.readlink("/proc/self"))


def start_time(pid: int) -> int:
    """Clock ticks from boot to the process's start; with the pid it names a process for ever (proc(5), field 22)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as handle:
        return int(handle.read().rpartition(")")[2].split()[19])


def kernel_of(pid: int) -> int:
    """The User-Mode-Linux kernel below a process, by its pid in our namespace; 0: none that takes SIGALRM by now."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as handle:
        children = handle.read().split()
    if len(children) != 1:
        return 0
    with open(f"/proc/{children[0]}/status", encoding="ascii", errors="replace") as handle:
        status = dict(line.split(":", 1) for line in handle.read().splitlines())
    caught = int(status["SigCgt"], 16) >> (signal.SIGALRM - 1) & 1
    return int(status["NSpid"].split()[-2]) if caught and status["Name"].strip().startswith("linux") else 0


def program_ip(pid: int) -> list[str]:
    """Ip in this namespace, or in that of a node with this pid as the host, whose /proc is here, sees it."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"] if pid else ["ip"]


def ip(command: str, pid: int = 0, may_fail: bool = False) -> None:
    """One command of ip; no name in it has a blank."""
    done = subprocess.run([*program_ip(pid), *command.split()], capture_output=True, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        raise RuntimeError(f"ip {command}: {done.stderr.strip()}")


def ip_batch(lines: list[str], pid: int = 0) -> None:
    """Many commands by one program, until the first that fails."""
    if not lines:
        return
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run([*program_ip(pid), "-batch", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        number = done.stderr.rpartition("-:")[2].strip()
        failed = lines[int(number) - 1] if number.isdigit() and int(number) <= len(lines) else "-batch"
        raise RuntimeError(f"ip {failed}: {done.stderr.strip()}")


def bridge_of(ends: list[str]) -> str:
    """The name of the bridge that a link's ends are on."""
    return "wire" + ends[0][-10:]


def move(ends: list[dict[str, Any]]) -> None:
    """Devices of the lab's namespace into nodes on the host's kernel, under the names that they have there."""
    batch = []
    for end in ends:
        offloads_off(end["id"])
        there = f"netns /proc/{end['pid']}/ns/net name {end['interface']}"
        batch += [f"link set dev {end['id']} address {end['mac']}", f"link set dev {end['id']} {there}"]
    ip_batch(batch)


def offloads_off(interface: str) -> None:
    """No TSO, GSO or checksum offload, so that packets reach a packet socket as they would be on a wire."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for command in (ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP8x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(probe, SIOCETHTOOL, request)


def drain(end: socket.socket) -> None:
    """Throw away what was sent to a node while it was dead."""
    while True:
        try:
            if not end.recv(1 << 17, socket.MSG_DONTWAIT):
                return
        except (BlockingIOError, ConnectionError):
            return


class Keeper:
    """Holds links and processes; every public method is one request."""

    def __init__(self) -> None:
        self.ends: dict[str, socket.socket] = {}
        self.links: dict[str, str] = {}
        self.processes: dict[str, dict[str, Any]] = {}

    # links -----------------------------------------------------------------------------------------------------------
    def link_socket(self, name: str, ends: list[str]) -> None:
        """Two packet sockets in the run directory, joined by a process of wire.py."""
        for end in ends:
            if os.path.exists(end):
                os.unlink(end)
        self.spawn(f"wire {name}", [sys.executable, "-I", "wire.py", *ends], {}, [], "wires.log")
        deadline = time.monotonic() + 20
        while not all(os.path.exists(end) for end in ends):
            if time.monotonic() > deadline or self.processes[f"wire {name}"]["child"].poll() is not None:
                raise RuntimeError("wire.py did not start; see wires.log")
            time.sleep(0.01)

    def link_tap(self, name: str, ends: list[str], inside: list[dict[str, Any]], mtu: int, ports: list[str]) -> None:
        """Devices of the lab's namespace on a bridge that passes everything, also what bridges keep.

        A TAP for each node with a kernel of its own; for one on the host's kernel a pair, one end moved into the node;
        and ports of the host, which are here by now.
        Between two it does not learn who is where, as a cable does not.
        """
        bridge = bridge_of(ends)
        learning = "" if len(ends) + len(ports) > 2 else "ageing_time 0"
        devices = {end: end for end in ends} | {one["id"]: one["id"].replace("veth", "tap") for one in inside}
        size = f"mtu {mtu}" if mtu else ""
        batch = [f"link add name {bridge} type bridge {learning} mcast_snooping 0 group_fwd_mask 65528"]
        for end, device in devices.items():
            pair = f"link add name {device} {size} type veth peer name {end} {size}"
            batch.append(f"tuntap add dev {device} mode tap vnet_hdr" if device == end else pair)
            batch.append(f"link set dev {device} master {bridge} txqueuelen 10000 {size}")
        batch += [f"link set dev {port} master {bridge} {size}" for port in ports]
        ip_batch([*batch, *(f"link set dev {interface} up" for interface in (*devices.values(), *ports, bridge))])
        for one in inside:
            offloads_off(devices[one["id"]])
        move(inside)

    def link_bridge(self, name: str, ends: list[str], inside: list[dict[str, Any]], mtu: int) -> None:
        """TAPs in the namespace of a node on the host's kernel: ports of its bridge, made where it is missing."""
        (host,) = inside
        bridge, pid = host["interface"], host["pid"]
        size = f"mtu {mtu}" if mtu else ""
        shown = [*program_ip(pid), "link", "show", "dev", bridge]
        there = subprocess.run(shown, capture_output=True, check=False).returncode == 0
        batch = [] if there else [f"link add name {bridge} address {host['mac']} type bridge"]
        for tap in ends:
            if tap != host["id"]:
                batch.append(f"tuntap add dev {tap} mode tap vnet_hdr")
                # User-Mode Linux tells its TAP at every start that it takes packets of 64 KiB, and throws them away
                # (vector_kern.c: "Incoming GSO frames"). One segment a packet: they are split before.
                batch.append(f"link set dev {tap} master {bridge} txqueuelen 10000 gso_max_segs 1 {size} up")
        ip_batch(batch, pid)

    def link_veths(self, links: list[dict[str, Any]]) -> None:
        """Pairs of devices, each moved into its node. All at once: a program costs more than what it does."""
        batch = []
        for link in links:
            size = f"mtu {link['mtu']}" if link["mtu"] else ""
            batch.append("link add name {0} {2} type veth peer name {1} {2}".format(*link["ends"], size))
        ip_batch(batch)
        move([end for link in links for end in link["inside"]])

    def link_management(self, name: str, ends: list[str], host: str, address: str) -> None:
        """A veth pair: the host's stack on one side, a packet socket for the node on the other."""
        ip(f"link add {host} type veth peer name {name}")
        ip(f"address add {address} dev {host}")
        offloads_off(host)
        for interface in (host, name):
            ip(f"link set {interface} up")
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.bind((name, ETH_P_ALL))
        self.ends[ends[0]] = sock

    def link(self, links: list[dict[str, Any]]) -> dict[str, object]:
        """Make links, in order but for the pairs of devices, which come last."""
        for link in links:
            if link["name"] in self.links:  # parts of it went with a node that ended
                self.unlink(**link)
        for link in links:
            if link["kind"] != "veth":
                options = {key: value for key, value in link.items() if key != "kind"}
                getattr(self, f"link_{link['kind']}")(**options)
        self.link_veths([link for link in links if link["kind"] == "veth"])
        self.links |= {link["name"]: link["kind"] for link in links}
        return {}

    def unlink(self, name: str, kind: str, ends: list[str], **options: Any) -> dict[str, object]:
        """Take away whatever is there of it."""
        for end in ends:
            sock = self.ends.pop(end, None)
            if sock is not None:
                sock.close()
        if kind in ("tap", "veth"):
            for one in options["inside"]:
                ip(f"link delete dev {one['interface']}", one["pid"], may_fail=True)
            # What is moved away by now, and what went with its other end, is not here.
            for interface in (*(end.replace("veth", "tap") for end in ends), *ends, bridge_of(ends)):
                ip(f"link delete dev {interface}", may_fail=True)
        elif kind == "bridge":  # it stays itself, where it has a node to be in
            for end, one in ((end, one) for end in ends for one in options["inside"]):
                ip(f"link delete dev {end}", one["pid"], may_fail=True)
        elif kind == "management":
            ip(f"link delete dev {name}")
        elif kind == "socket":
            self.stop(f"wire {name}")
        self.links.pop(name, None)
        return {}

    def configure(self, pid: int, batch: list[str]) -> dict[str, object]:
        """Commands of ip inside a node on the host's kernel, by its pid as the host sees it."""
        ip_batch(batch, pid)
        return {}

    # processes -------------------------------------------------------------------------------------------------------
    def spawn(
        self, name: str, argv: list[str], env: dict[str, str], ends: list[str], log: str, tag: str = ""
    ) -> dict[str, object]:
        """Start a process; `{fd:END}` in an argument becomes the number of that end's descriptor."""
        self.stop(name)
        for end in ends:
            drain(self.ends[end])
        numbers = {end: self.ends[end].fileno() for end in ends}
        words = list(argv)
        for end, number in numbers.items():
            words = [word.replace(f"{{fd:{end}}}", str(number)) for word in words]
        child, pid = self.start(words, env, log, tuple(numbers.values()))
        self.processes[name] = {"child": child, "pid": pid, "start": start_time(pid), "tag": tag}
        tell(f"started {name}: pid {pid}: {' '.join(words)}")
        return {"pid": pid}

    @staticmethod
    def start(
        words: list[str], env: dict[str, str], log: str, descriptors: tuple[int, ...]
    ) -> tuple[subprocess.Popen[bytes], int]:
        """The child and its pid as the host sees it, which only the child can read."""
        reader, writer = os.pipe()

        def in_child() -> None:
            os.write(writer, str(host_pid()).encode())

        try:
            with open(log, "ab") as out:
                child = subprocess.Popen(
                    words,
                    env={**os.environ, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    pass_fds=descriptors,
                    start_new_session=True,
                    preexec_fn=in_child,
                )
            return child, int(os.read(reader, 32))
        finally:
            os.close(reader)
            os.close(writer)

    def stop(self, name: str) -> dict[str, object]:
        entry = self.processes.pop(name, None)
        if entry is not None:
            try:
                os.killpg(entry["child"].pid, signal.SIGKILL)  # with what it forked: connections of the ssh socket
            except ProcessLookupError:
                pass
            entry["child"].wait()
            tell(f"stopped {name}: pid {entry['pid']}")
        return {}

    def status(self) -> dict[str, object]:
        processes = {}
        for name, entry in self.processes.items():
            processes[name] = {key: entry[key] for key in ("pid", "start", "tag")} | {"exit": entry["child"].poll()}
        return {"links": self.links, "processes": processes}

    # requests --------------------------------------------------------------------------------------------------------
    def answer(self, line: str) -> dict[str, object]:
        methods: dict[str, Callable[..., dict[str, object]]] = {
            "link": self.link,
            "unlink": self.unlink,
            "configure": self.configure,
            "spawn": self.spawn,
            "stop": self.stop,
            "status": self.status,
        }
        try:
            request = json.loads(line)
            method = methods[request.pop("request")]
            return {"ok": True, **method(**request)}
        except Exception as error:  # whatever a request did wrong, the lab goes on
            traceback.print_exc()
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def converse(self, connection: socket.socket) -> None:
        """Answer one client's requests until it closes; there is one client at a time, the holder of the lab's lock."""
        connection.settimeout(60)
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            for line in stream:
                stream.write(json.dumps(self.answer(line)) + "\n")
                stream.flush()

    def reap(self) -> None:
        """Collect ended children: ours, and what ended nodes leave to a namespace's first process."""
        known = {entry["child"].pid: name for name, entry in self.processes.items()}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            name = known.get(ended.si_pid)
            if name is None:
                os.waitpid(ended.si_pid, 0)
            else:
                tell(f"ended {name}: exit {self.processes[name]['child'].wait()}")

    def remind(self) -> None:
        """Send every node's kernel its timer's signal: on a busy host User-Mode-Linux 6.1 loses one now and then.

        Without it the kernel waits for a timer that is not armed any more, for ever. One too many does no harm.
        """
        for entry in self.processes.values():
            try:
                kernel = kernel_of(entry["pid"])
                if kernel:
                    os.kill(kernel, signal.SIGALRM)
            except (OSError, ValueError, IndexError, KeyError):  # it has just ended
                continue

    def serve(self) -> NoReturn:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("control.sock")
        listener.listen(8)
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_signal: None)
        while True:
            ready = select.select([listener.fileno(), woken], [], [], REMINDER)[0]
            if not ready:
                self.remind()
            if woken in ready:
                os.read(woken, 4096)
                self.reap()
            if listener.fileno() in ready:
                try:
                    self.converse(listener.accept()[0])
                except OSError as error:
                    tell(f"a client went away: {error}")


def main() -> None:
    """Usage: keeper.py DIRECTORY. Returns once the keeper proper runs and its identity stands in keeper.pid."""
    os.chdir(sys.argv[1])
    os.setsid()
    enter_namespaces()
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(reader)
        with open("keeper.pid.new", "w", encoding="ascii") as handle:
            json.dump({"pid": child, "start": start_time(child)}, handle)
        os.rename("keeper.pid.new", "keeper.pid")
        os.write(writer, b"go")
        return
    os.close(writer)
    if os.read(reader, 2) != b"go":  # the parent was killed before it could write our identity down
        raise SystemExit(1)
    os.close(reader)
    signal.signal(signal.SIGTERM, lambda *_signal: os._exit(0))
    ip("link set lo up")
    Keeper().serve()


if __name__ == "__main__":
    main()
