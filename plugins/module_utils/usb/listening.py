# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on a TCP port, by /proc/net/tcp and the files of processes (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN
PROC = Path("/proc")


def sockets(port: int) -> set[str]:
    """The inodes of the sockets that listen on the port, on any address."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = PROC.joinpath("net", name).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:  # no IPv6
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def descriptors(pid: int, port: int) -> list[int]:
    """The process's own descriptors of sockets that listen on the port."""
    names = {f"socket:[{inode}]" for inode in sockets(port)}
    found = []
    try:
        entries = list(PROC.joinpath(str(pid), "fd").iterdir())
    except OSError:  # it ended
        return []
    for entry in entries:
        try:
            if os.readlink(entry) in names:
                found.append(int(entry.name))
        except OSError:  # closed meanwhile
            continue
    return found


def listener(port: int) -> tuple[int, str] | None:
    """Process and name of who listens on the port; (0, "") where nobody's process can be seen; None: it is free."""
    if not sockets(port):
        return None
    for entry in PROC.iterdir():
        if entry.name.isdigit() and descriptors(int(entry.name), port):
            return int(entry.name), PROC.joinpath(entry.name, "comm").read_text(encoding="utf-8").strip()
    return 0, ""


def parent(pid: int) -> int:
    """The parent of a process; 0 where there is none any more."""
    try:
        return int(PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0
