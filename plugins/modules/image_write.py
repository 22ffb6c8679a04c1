#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_write
short_description: Write a board's operating system to a card
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Runs where the card reader is, usually C(localhost), as root for a real card; for a file any user will do.
  - Takes an image as Armbian publishes it, prepares a copy for one board without mounting it, writes the copy to the card
    and reads all of it back.
  - A card that holds exactly this already is left alone. One that is not whole, because its writing was interrupted,
    says so itself and is written anew.
  - In check mode the image is fetched and the copy prepared as well; the card is only read.
  - The role P(impair.testbed.board_image#role) fills the options from the inventory.
options:
  src:
    description:
      - Path or URL of the image of a whole card, plain or packed by xz, gzip, zstd or 7z.
      - Its root file system has to be ext4.
    type: str
    required: true
  sha256:
    description: Checksum of O(src) as it was published, before any unpacking.
    type: str
    required: true
  signature:
    description: Path or URL of a detached OpenPGP signature of O(src). Needs O(keyring).
    type: str
  keyring:
    description: Path or URL of the public key, or keys, that may have signed it.
    type: str
  target:
    description:
      - The card, by its name below C(/dev/disk/by-id).
      - It has to be removable, or an SD card in a built-in reader. Nothing of it may be mounted, swap, or otherwise in use.
      - A loop device on a file, or a regular file as large as a card, does as well.
    type: str
    required: true
  card_min:
    description: A smaller target is refused.
    type: str
    default: 0B
  card_max:
    description: A larger target is refused, as it is more likely a disk.
    type: str
    default: 137GB
  force:
    description: Also write over a card from which a board has run since it was written here.
    type: bool
    default: false
  hostname:
    description: Name of the board.
    type: str
    required: true
  authorized_keys:
    description: Public keys that may log in as root by ssh, a line each.
    type: list
    elements: str
    default: []
  root_password:
    description: Hash of root's password, as C(openssl passwd -6) gives it. Without one no password opens the board.
    type: str
  interfaces:
    description:
      - The whole of C(/etc/network/interfaces). systemd-networkd and NetworkManager are told to leave its interfaces alone.
      - The image has to have ifupdown then, or O(packages) bring it.
    type: str
  environment:
    description: Settings in C(/boot/armbianEnv.txt); others stay.
    type: dict
    default: {}
  packages:
    description: Debian packages that the board installs at its first boot, before its network is up.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description: Path or URL of the C(.deb).
        type: str
        required: true
      sha256:
        description: Its checksum.
        type: str
        required: true
  kernel:
    description:
      - Version of the kernel, or its beginning, that the image has to have. apt is told to keep it.
    type: str
  root_size:
    description:
      - How large the root file system gets.
      - V(first_boot) leaves that to Armbian's own service, V(image) keeps the image's size.
      - V(card) fills the card now, and a size such as V(4GB) is made now as well. So much is then written and read back.
    type: str
    default: first_boot
  cache_dir:
    description:
      - Where fetched images and prepared copies stay. The copies are readable by their owner alone.
      - The default is C(impair.testbed/board) under C($XDG_CACHE_HOME) or C(~/.cache).
    type: path
  progress:
    description: File that says how far the work is, one line. The controller's part of this module shows it.
    type: path
attributes:
  check_mode:
    description: Whether the module can say what it would do without doing it.
    support: full
  diff_mode:
    description: Whether the module can show the card before and after.
    support: full
requirements:
  - python >= 3.10, sfdisk, e2fsprogs, coreutils and diffutils; xz, gzip, zstd, 7z, gpg or dpkg-deb where they are asked for
"""

EXAMPLES = r"""
- name: A card for the master
  impair.testbed.image_write:
    src: https://dl.armbian.com/nanopineo/archive/Armbian_nanopineo_bookworm.img.xz
    sha256: "{{ published_sha256 }}"
    target: /dev/disk/by-id/usb-Generic_STORAGE_DEVICE_000000000272-0:0
    hostname: master
    authorized_keys: ["{{ lookup('file', '~/.ssh/id_ed25519.pub') }}"]
    environment: {verbosity: 4}

- name: The same into a file, for an emulated board
  impair.testbed.image_write:
    src: /srv/images/Armbian_nanopineo_bookworm.img.xz
    sha256: "{{ published_sha256 }}"
    target: /srv/boards/master.img
    hostname: master
    authorized_keys: ["{{ lookup('file', '~/.ssh/id_ed25519.pub') }}"]
    root_size: card
"""

RETURN = r"""
before:
  description: What the card held.
  returned: always
  type: list
  elements: str
after:
  description: What it holds now, read back.
  returned: always
  type: list
  elements: str
steps:
  description: What was done to the card, or in check mode would be done.
  returned: always
  type: list
  elements: str
image:
  description: Path of the prepared copy.
  returned: always
  type: str
recipe:
  description: Hash of everything that decides the copy's bytes. The card has it in C(/etc/impair.testbed-image.json).
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.board import engine
from ..module_utils.errors import TestbedError

ARGUMENTS = {
    "src": {"type": "str", "required": True},
    "sha256": {"type": "str", "required": True},
    "signature": {"type": "str"},
    "keyring": {"type": "str", "no_log": False},
    "target": {"type": "str", "required": True},
    "card_min": {"type": "str", "default": "0B"},
    "card_max": {"type": "str", "default": "137GB"},
    "force": {"type": "bool", "default": False},
    "hostname": {"type": "str", "required": True},
    "authorized_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "root_password": {"type": "str", "no_log": True},
    "interfaces": {"type": "str"},
    "environment": {"type": "dict", "default": {}},
    "packages": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"src": {"type": "str", "required": True}, "sha256": {"type": "str", "required": True}},
    },
    "kernel": {"type": "str"},
    "root_size": {"type": "str", "default": "first_boot"},
    "cache_dir": {"type": "path"},
    "progress": {"type": "path"},
}


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = engine.manage(module.params, module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    if module._diff:
        result["diff"] = {"before": "\n".join([*result["before"], ""]), "after": "\n".join([*result["after"], ""])}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
