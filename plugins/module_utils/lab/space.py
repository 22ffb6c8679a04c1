# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a node that is namespaces of the host (kinds/netns.py).

Started by the keeper under unshare(1), in namespaces of its own for network, mounts, processes and host name. It gives
the node a /run, /etc and /var of its own, so that what is done to the node is not done to the host, makes the host's
programs read-only, says where it is, and waits. When it ends, the kernel ends every process of the node.

Root gets /etc and /var as they are on the host, as an overlay: what is written there is the node's alone. An ordinary
user could not write there in any case, and gets an empty /var/lib only.

Standard library only, as keeper.py: it runs from the run directory. Usage: space.py NODE router|host
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys

# linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
KEPT = "/run/.node"  # where the overlays write
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = [None if not word else word.encode() for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None) != 0:
        error = ctypes.get_errno()
        needs = f" (the host's kernel needs the file system {kind})" if kind else ""
        raise OSError(error, f"mount {target}: {os.strerror(error)}{needs}")


def overlay(folder: str) -> None:
    """The host's folder, where whatever is written stays with the node."""
    own = KEPT + folder
    for part in ("upper", "work"):
        os.makedirs(f"{own}/{part}")
    mount("overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={own}/upper,workdir={own}/work")


def read_only(folder: str) -> None:
    mount(folder, folder, "", MS_BIND | MS_REC)
    mount("", folder, "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def privileged() -> bool:
    """Whether we are the host's root: in a user's own namespace its files are nobody's."""
    return os.stat("/etc").st_uid == 0


def own_files(name: str) -> None:
    mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for folder in ("lock", "network", "netns"):
        os.makedirs(f"/run/{folder}")
    if privileged():
        os.mkdir(KEPT, 0o700)
        overlay("/etc")
        overlay("/var")
        read_only("/usr")
        for path, text in (("/etc/hostname", f"{name}\n"), ("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n")):
            with open(path, "w", encoding="ascii") as handle:
                handle.write(text)
    else:
        mount("var", "/var/lib", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")


def own_kernel_views() -> None:
    """What shows this network namespace and these processes; /sys/fs/bpf would be hidden by a bare /sys."""
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if privileged() and os.path.isdir("/sys/fs/bpf"):  # EPERM in a user's own namespace (kernel/bpf/inode.c)
        mount("bpf", "/sys/fs/bpf", "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def sysctl(name: str, value: int) -> None:
    path = f"/proc/sys/{name}"
    if os.path.exists(path):  # a kernel without IPv6
        with open(path, "w", encoding="ascii") as handle:
            handle.write(f"{value}\n")


def forwarding(on: bool) -> None:
    """A new namespace has taken over what the host has set, so both answers are written down."""
    sysctl("net/ipv6/conf/all/disable_ipv6", 0)
    sysctl("net/ipv6/conf/default/disable_ipv6", 0)
    sysctl("net/ipv4/ip_forward", int(on))
    sysctl("net/ipv6/conf/all/forwarding", int(on))


def identity() -> dict[str, int]:
    """This process as the host sees it, while /proc is still the host's; proc(5), field 22."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as handle:
        start = int(handle.read().rpartition(")")[2].split()[19])
    return {"pid": int(os.readlink("/proc/self")), "start": start}


def write(path: str, text: str) -> None:
    """At once and whole: whoever sees the file can read it. The working folder is older than the new /run."""
    with open(f"{path}.new", "w", encoding="ascii") as handle:
        handle.write(text)
    os.rename(f"{path}.new", path)


def main() -> None:
    name, role = sys.argv[1:3]
    me = identity()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ended processes leave to the first one is not kept
    socket.sethostname(name)
    own_kernel_views()
    own_files(name)
    forwarding(role == "router")
    write(f"{name}/nspid", f"{me['pid']}\n")
    write(f"{name}/space.json", json.dumps(me))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
