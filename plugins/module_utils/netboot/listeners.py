# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else answers where the boot server is to answer: found by trying to listen there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from .. import programs
from ..errors import InvalidInput, TestbedError
from .model import Asked

DHCP, TFTP, NFS = 67, 69, 2049


def check(asked: Asked) -> None:
    """The interface has the address, and nobody else listens at the ports. Raises TestbedError with who does."""
    done = programs.run(["ip", "-json", "address", "show", "dev", asked.interface])
    if done.returncode != 0:
        raise InvalidInput("interface", asked.interface, "the server has no such interface; `ip link` lists them")
    own = [f"{entry['local']}/{entry['prefixlen']}" for link in json.loads(done.stdout) for entry in link["addr_info"]]
    if str(asked.address) not in own:
        raise InvalidInput(
            "address", str(asked.address), f"{asked.interface} has {', '.join(own) or 'none'}; write the server's own"
        )
    wanted = []
    if not _ours(asked.folder / "state/dnsmasq.pid", f"{asked.folder}/dnsmasq.conf"):
        wanted += [(socket.SOCK_DGRAM, "", DHCP), (socket.SOCK_DGRAM, str(asked.address.ip), TFTP)]
    if asked.nfs == "ganesha" and not _ours(asked.folder / "state/ganesha.pid", f"{asked.folder}/ganesha.conf"):
        wanted.append((socket.SOCK_STREAM, str(asked.address.ip), NFS))
    for kind, address, port in wanted:
        if not _free(kind, address, port, asked.interface):
            name = f"{'TCP' if kind == socket.SOCK_STREAM else 'UDP'} port {port}"
            raise TestbedError(
                f"{name} on {asked.interface} is taken by {_holder(kind, port)}; end that, or take another server"
            )


def _ours(pid_file: Path, argument: str) -> bool:
    """Whether the process that noted itself there still runs with our configuration."""
    try:
        command = Path(f"/proc/{int(pid_file.read_text(encoding='ascii'))}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    return argument.encode() in command


def _free(kind: int, address: str, port: int, interface: str) -> bool:
    with socket.socket(socket.AF_INET, kind) as trial:
        if kind == socket.SOCK_STREAM:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended are nobody's
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())  # as DHCP servers do it
        try:
            trial.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _holder(kind: int, port: int) -> str:
    """Name and number of a process that listens at the port, for the message (proc(5), net/udp)."""
    name = "tcp" if kind == socket.SOCK_STREAM else "udp"
    sockets = {f"socket:[{inode}]" for inode in _inodes(name, port)}
    for folder in sorted(Path("/proc").glob("[0-9]*/fd")):
        with contextlib.suppress(OSError):  # ended meanwhile
            if any(os.readlink(file) in sockets for file in folder.iterdir()):
                return f"{(folder.parent / 'comm').read_text(encoding='utf-8').strip()} (process {folder.parent.name})"
    return "a process that cannot be seen from here"


def _inodes(name: str, port: int) -> Iterator[str]:
    for table in (name, f"{name}6"):
        for line in Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if re.search(f":{port:04X}$", fields[1]):
                yield fields[9]
