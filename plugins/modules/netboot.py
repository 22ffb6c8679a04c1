#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: netboot
short_description: Keep what boards fetch to start over the network
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Runs on the boot server, as root.
  - Keeps one folder with root file systems (versions side by side), what u-boot fetches of them by TFTP, each board's own
    files, and the configuration of dnsmasq and of the NFS server. It starts no server.
  - A root file system is made once from an image as Armbian publishes it, and belongs to you from then on.
  - In check mode images are fetched and judged; nothing else is changed.
  - The role P(impair.testbed.board_netboot#role) fills the options from the inventory, and runs the servers.
options:
  dir:
    description: The folder. Every user has to be able to enter it, as dnsmasq reads as one of its own.
    type: str
    required: true
  interface:
    description: Interface of the server towards the boards.
    type: str
    required: true
  address:
    description: The server's address on it, with the network's length, such as V(192.168.1.2/24).
    type: str
    required: true
  gateway:
    description: Router that the boards use. Without one they reach their own network alone.
    type: str
  dhcp:
    description:
      - V(server) answers the listed boards and nobody else.
      - V(proxy) leaves addresses to the network's own DHCP server; boards have to start from the card in RV(cards) then.
    type: str
    choices: [server, proxy]
    default: server
  nfs:
    description: Server that gives the root file systems, V(ganesha) (user space) or V(kernel) (nfsd).
    type: str
    choices: [ganesha, kernel]
    default: ganesha
  images:
    description: Versions of the root file system that the store is to have.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the version, and of its folder below C(images).
        type: str
        required: true
      src:
        description: Path or URL of the published image. Not needed where the tree is there.
        type: str
      sha256:
        description: Its checksum as it was published.
        type: str
      signature:
        description: Path or URL of a detached OpenPGP signature of O(images[].src).
        type: str
      keyring:
        description: Path or URL of the public keys that may have made it.
        type: str
      kernel:
        description: Version of the kernel to start, or its beginning, where the tree has several. The highest by default.
        type: str
  boards:
    description: Boards that start from here.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the board.
        type: str
        required: true
      mac:
        description: Its MAC, as u-boot has it.
        type: str
        required: true
      address:
        description: Its address in the server's network.
        type: str
        required: true
      image:
        description: Version that it starts. The former one is the way back.
        type: str
        required: true
      dtb:
        description: Its device tree, as the image's C(boot/dtb) has it.
        type: str
        default: sun8i-h3-nanopi-neo.dtb
      overlay:
        description:
          - Where it keeps what it changes, for each image apart.
          - V(tmpfs) forgets at each start, V(server) keeps it in a file here, V(card) on the board's own card.
        type: str
        choices: [tmpfs, server, card]
        default: tmpfs
      overlay_size:
        description: Size of the file of V(server).
        type: str
        default: 1GiB
      cmdline:
        description: What its kernel is told besides.
        type: str
        default: console=ttyS0,115200
      files:
        description: Its own files, path on the board to text. They lie above those of the image.
        type: dict
        default: {}
  modules:
    description: Kernel modules of the boards' network interface.
    type: list
    elements: str
    default: [dwmac_sun8i]
  card_modules:
    description: Kernel modules of their card, for O(boards[].overlay=card).
    type: list
    elements: str
    default: [sunxi_mmc, mmc_block]
  authorized_keys:
    description: Public keys that may log in as root by ssh, a line each.
    type: list
    elements: str
    default: []
  cache_dir:
    description:
      - Where fetched images and prepared copies stay.
      - The default is C(impair.testbed/board) under C($XDG_CACHE_HOME) or C(~/.cache).
    type: path
attributes:
  check_mode:
    description: Whether the module can say what it would do without doing it.
    support: full
  diff_mode:
    description: Whether the module can show the folder before and after.
    support: full
requirements:
  - python >= 3.10, iproute2, e2fsprogs, fdisk, ssh-keygen; xz, gzip, zstd or gpg where they are asked for
"""

EXAMPLES = r"""
- name: Two boards from one root file system
  impair.testbed.netboot:
    dir: /srv/netboot
    interface: enp3s0
    address: 192.168.1.147/24
    images:
      - {name: bookworm-1, src: /srv/images/Armbian_nanopineo_bookworm.img.xz, sha256: "{{ published_sha256 }}"}
    boards:
      - {name: master, mac: "02:81:4a:58:bd:80", address: 192.168.1.107, image: bookworm-1, overlay: server}
      - {name: slave, mac: "02:81:75:b1:e5:e1", address: 192.168.1.148, image: bookworm-1}
    authorized_keys: ["{{ lookup('file', '~/.ssh/id_ed25519.pub') }}"]
"""

RETURN = r"""
before:
  description: Images in the store, and what each board's kernel was told.
  returned: always
  type: list
  elements: str
after:
  description: The same now.
  returned: always
  type: list
  elements: str
steps:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
restart:
  description: Which of C(dnsmasq) and C(nfs) have to read their configuration again.
  returned: always
  type: list
  elements: str
cards:
  description: For each image the small image of a card that starts its boards, with its checksum, for role board_image.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.netboot import engine

IMAGE = {
    "name": {"type": "str", "required": True},
    "src": {"type": "str"},
    "sha256": {"type": "str"},
    "signature": {"type": "str"},
    "keyring": {"type": "str", "no_log": False},
    "kernel": {"type": "str"},
}
BOARD = {
    "name": {"type": "str", "required": True},
    "mac": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "image": {"type": "str", "required": True},
    "dtb": {"type": "str", "default": "sun8i-h3-nanopi-neo.dtb"},
    "overlay": {"type": "str", "choices": ["tmpfs", "server", "card"], "default": "tmpfs"},
    "overlay_size": {"type": "str", "default": "1GiB"},
    "cmdline": {"type": "str", "default": "console=ttyS0,115200"},
    "files": {"type": "dict", "default": {}},
}
ARGUMENTS = {
    "dir": {"type": "str", "required": True},
    "interface": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "gateway": {"type": "str"},
    "dhcp": {"type": "str", "choices": ["server", "proxy"], "default": "server"},
    "nfs": {"type": "str", "choices": ["ganesha", "kernel"], "default": "ganesha"},
    "images": {"type": "list", "elements": "dict", "default": [], "options": IMAGE},
    "boards": {"type": "list", "elements": "dict", "default": [], "options": BOARD},
    "modules": {"type": "list", "elements": "str", "default": ["dwmac_sun8i"]},
    "card_modules": {"type": "list", "elements": "str", "default": ["sunxi_mmc", "mmc_block"]},
    "authorized_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "cache_dir": {"type": "path"},
}


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = engine.manage(module.params, module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    if module._diff:
        result["diff"] = {"prepared": "".join(f"+ {step}\n" for step in result["steps"])}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
