# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in every virtual node's root file system. Any change here gives another hash, so another build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Recipe(NamedTuple):
    """What the root file system of one kind of node is made from.

    `finish` is a shell script that makes the image, and a file of the same name with each suffix of `beside`.
    `options` and `sources` are mmdebstrap's; `hook` is when `finish` runs (--variant=extract has no customize).
    """

    kind: str
    packages: tuple[str, ...]
    without: tuple[str, ...]
    files: Mapping[str, tuple[int, str]]
    finish: str
    modules: tuple[str, ...] = ()  # folders of the modules of a kernel that the host has
    beside: tuple[str, ...] = ()
    suffix: str = ".ext4"
    options: tuple[str, ...] = ()
    hook: str = "customize"
    sources: tuple[str, ...] = ()  # as in sources.list; none: those of the suite


SUITE = "bookworm"
PACKAGES = (
    "python3",
    "iproute2",
    "iptables",
    "ebtables",
    "ifupdown",
    "bridge-utils",
    "openssh-server",
    "tcpdump",
    "ethtool",
    "iputils-ping",
    "kmod",
    "mount",
    "procps",
    "iperf3",
    "socat",
    "strace",
    "netbase",
)
WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
SIZE = "2G"  # of the file system; the file is sparse

# The kernel modules a testbed may ask for; the package's other half is disk drivers and file systems.
MODULE_FOLDERS = (
    "net",
    "lib",
    "crypto",
    "drivers/net",
    "fs/overlayfs",
    "fs/nfs",
    "fs/nfs_common",
    "fs/nfsd",
    "fs/lockd",
    "fs/fuse",
)

# DISK stands for the names of the node's disks; CONSOLE for a line of its own, where the kind has a serial port.
INIT = r"""#!/bin/sh
# The first process of a virtual node: mounts, names, addresses, ssh. No service manager, so that it starts in a second;
# and few programs, as starting one costs some 30 ms in User-Mode Linux.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/pts /dev/shm
mount -a
mkdir -p /run/sshd /run/network /run/lock

# The lab writes the node's own files once, from the second disk; what the node changes later stays.
if [ ! -e /etc/impair.testbed-lab/seeded ]; then
    tar -x -f /dev/DISKb -C / && : > /etc/impair.testbed-lab/seeded
fi
read -r name < /etc/hostname
echo "$name" > /proc/sys/kernel/hostname

# vecN gets the name that was asked, and the management link its address.
ip -batch /etc/impair.testbed-lab/network
# A lab whose packets are counted must not see them merged or split. And UML's driver takes packets that are a list of
# parts, as IP-TFS makes them, but sends the first part only (arch/um/drivers/vector_kern.c, prep_msg).
while read -r name; do
    ethtool -K "$name" gro off gso off tso off tx-scatter-gather-fraglist off >/dev/null 2>&1
done < /etc/impair.testbed-lab/interfaces
ifup -a

read -r up rest < /proc/uptime
echo "up after $up s"
CONSOLE# The shell stays to collect orphans, and brings sshd back should it ever end.
while :; do
    /usr/sbin/sshd -D -e
    sleep 1
done
"""

FSTAB = """/dev/DISKa / ext4 defaults 0 0
proc /proc proc defaults 0 0
sysfs /sys sysfs defaults 0 0
run /run tmpfs mode=0755,nosuid,nodev 0 0
tmp /tmp tmpfs nosuid,nodev 0 0
devpts /dev/pts devpts gid=5,mode=0620,ptmxmode=0666 0 0
shm /dev/shm tmpfs nosuid,nodev 0 0
"""

SSHD = """# Keys only, over the lab's management link.
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
PrintMotd no
PrintLastLog no
X11Forwarding no
MaxStartups 100
MaxSessions 100
"""


def files(disk: str, console: str = "") -> dict[str, tuple[int, str]]:
    """Path inside the node → mode and content; `disk` as in /dev/<disk>a, `console` a line of shell."""
    return {
        "sbin/lab-init": (0o755, INIT.replace("DISK", disk).replace("CONSOLE", console)),
        "etc/ssh/sshd_config.d/lab.conf": (0o644, SSHD),
        "etc/fstab": (0o644, FSTAB.replace("DISK", disk)),
    }


# Runs as root of the build's own mount namespace; $1 is the new root, RELEASE and IMAGE come from the environment.
# The bind mount leaves /proc and /dev of the build out of the image. It stands beside the image, as mmdebstrap unsets
# TMPDIR for its hooks. /tmp holds apt's configuration for the build: it stays, as apt without it would turn to the
# host's own files.
FINISH = r"""set -e
chroot "$1" depmod "$RELEASE"
rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf "$1"/etc/hostname
chroot "$1" python3 -m compileall -q -x 'test/|lib2to3' /usr/lib/python3 /usr/lib/python3.11 >/dev/null
plain="$IMAGE.root"
mkdir "$plain"
mount --bind "$1" "$plain"
rm -rf "$plain"/var/lib/apt/lists/* "$plain"/var/cache/apt/* "$plain"/var/log/*
mke2fs -q -t ext4 -m 0 -O ^metadata_csum,^resize_inode -E lazy_itable_init=1,root_owner=0:0 -L testbed \
    -d "$plain" "$IMAGE" "$SIZE"
umount "$plain"
"""

UML = Recipe("uml", PACKAGES, WITHOUT, files("ubd"), FINISH, MODULE_FOLDERS)
