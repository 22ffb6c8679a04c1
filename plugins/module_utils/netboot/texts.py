# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts that a boot server hands out or reads: for dnsmasq, the NFS server, u-boot, and each board's own files."""

from __future__ import annotations

from collections.abc import Mapping

from ..board import contents
from .model import Asked, Board, cmdline

HEAD = "# impair.testbed: written by role board_netboot\n"
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
DISKS = ("/dev/", "UUID=", "PARTUUID=", "LABEL=", "PARTLABEL=")
INTERFACES = "auto lo\niface lo inet loopback\n"
PRIVATE = ("root", "root/.ssh")  # folders that only root may enter; a folder of the upper layer decides for all


def dnsmasq(asked: Asked) -> str:
    """DHCP for the listed boards alone, or beside the network's own DHCP server; TFTP for all."""
    network = asked.address.network
    lines = [
        "port=0",  # no DNS
        f"interface={asked.interface}",
        "bind-dynamic",  # other interfaces' servers are left alone, and a late interface is waited for
        "enable-tftp",
        f"tftp-root={asked.folder}/tftp",
        "log-facility=-",
        f"dhcp-leasefile={asked.folder}/state/leases",
        f"pid-file={asked.folder}/state/dnsmasq.pid",
    ]
    if asked.dhcp == "proxy":
        # Without a pxe-service, dnsmasq's proxy answers nobody; 21 is u-boot on 32-bit ARM (IANA, RFC 4578's types).
        lines += [f"dhcp-range={network.network_address},proxy", "pxe-service=21,u-boot,pxelinux"]
    else:
        lines += [
            f"dhcp-range={network.network_address},static,{network.netmask},1h",
            f"dhcp-option=option:router{',' if asked.gateway else ''}{asked.gateway}",
            "dhcp-option=option:dns-server",
            *(f"dhcp-host={board.mac},{board.address},{board.name}" for board in asked.boards),
        ]
    return HEAD + "".join(f"{line}\n" for line in lines)


def ganesha(asked: Asked) -> str:
    """NFS 4.1 by a program of its own: one port, no rpcbind, no kernel module."""
    exports = [_export(1, f"{asked.folder}/images", str(asked.address.network), "RO")]
    for number, board in enumerate(asked.boards, 2):
        exports.append(
            _export(number, f"{asked.folder}/boards/{board.name}", str(board.address), _access(board).upper())
        )
    return f"""{HEAD}NFS_CORE_PARAM {{
    Protocols = 4;
    Bind_addr = {asked.address.ip};
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = false;
}}
NFSV4 {{
    Minor_Versions = 1, 2;
    Only_Numeric_Owners = true;
    Lease_Lifetime = 10;
    Grace_Period = 10;
    RecoveryBackend = fs;
    RecoveryRoot = {asked.folder}/state/clients;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT_DEFAULTS {{ Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; Access_Type = None; }}
LOG {{ Default_Log_Level = EVENT; }}
{"".join(exports)}"""


def _export(number: int, path: str, clients: str, access: str) -> str:
    return f"""EXPORT {{
    Export_Id = {number};
    Path = {path};
    Pseudo = {path};
    CLIENT {{ Clients = {clients}; Access_Type = {access}; Protocols = 4; }}
    FSAL {{ Name = VFS; }}
}}
"""


def exports(asked: Asked) -> str:
    """The same for the kernel's own server (exports(5))."""
    lines = [f"{asked.folder}/images {asked.address.network}(ro,no_root_squash,no_subtree_check)"]
    for board in asked.boards:
        lines.append(
            f"{asked.folder}/boards/{board.name} {board.address}({_access(board)},no_root_squash,no_subtree_check)"
        )
    return HEAD + "".join(f"{line}\n" for line in lines)


def _access(board: Board) -> str:
    return "rw" if board.overlay == "server" else "ro"


def pxelinux(asked: Asked, board: Board) -> str:
    """What u-boot's `pxe boot` reads (doc/README.pxe)."""
    place = f"/images/{board.image}"
    return f"""{HEAD}default {board.image}
prompt 0
timeout 1
label {board.image}
  kernel {place}/kernel
  initrd {place}/ramdisk
  fdt {place}/{dtb_name(board.dtb)}
  append {cmdline(asked, board)}
"""


def pxelinux_name(board: Board) -> str:
    return f"tftp/pxelinux.cfg/01-{board.mac.replace(':', '-')}"


def dtb_name(dtb: str) -> str:
    return dtb.rsplit("/", 1)[-1]


def fstab(text: str) -> str:
    """The image's, without disks: where the image has them, the board has none."""
    kept = [line for line in text.splitlines() if not line.split()[:1] or not line.split()[0].startswith(DISKS)]
    return HEAD + "".join(f"{line}\n" for line in kept)


def board_files(asked: Asked, board: Board, image: Mapping[str, str]) -> dict[str, str]:
    """The board's own files, which lie above the image's: path below the root → text. `image`: the image's."""
    files = {
        "etc/hostname": f"{board.name}\n",
        "etc/hosts": contents.hosts(image.get("etc/hosts", ""), board.name),
        "etc/fstab": fstab(image.get("etc/fstab", "")),
        "etc/network/interfaces": INTERFACES,
        # The interface that the root file system comes by keeps the address that the ramdisk gave it.
        contents.NETWORKD.lstrip("/"): f"{HEAD}[Match]\nMACAddress={board.mac}\n\n[Link]\nUnmanaged=yes\n",
        contents.NETWORKMANAGER.lstrip("/"): f"{HEAD}[keyfile]\nunmanaged-devices+=mac:{board.mac}\n",
    }
    if asked.authorized_keys:
        files["root/.ssh/authorized_keys"] = "".join(f"{key}\n" for key in asked.authorized_keys)
    return files | {path.lstrip("/"): text for path, text in board.files}
