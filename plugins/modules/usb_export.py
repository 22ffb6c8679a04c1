#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that this node exports over USB/IP."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_export
short_description: Export USB devices of a node over the network
version_added: 0.1.0
description:
  - Binds USB devices to usbip-host, and runs C(usbipd) on a TCP port that only chosen clients reach.
  - A service of ours stays on the node. It exports a device again when that is plugged in again, and everything after a
    reboot. When something else is plugged into the same socket, that is given back to the node.
  - A client that is gone without a word (power, cable) frees its device after O(timeout).
options:
  devices:
    description:
      - The devices. All keys of an entry have to fit; an entry may mean several devices.
      - Hubs, and devices that are themselves attached from another node, are never exported. Neither is a device in use,
        such as a disk that is mounted or a network interface that is up.
    type: list
    elements: dict
    default: []
    suboptions:
      busid:
        description: The place where it is plugged in, as C(usbip list -l) shows it.
        type: str
      product:
        description: Vendor and product in hexadecimal, as C(lsusb) shows them.
        type: str
      serial:
        description: Its serial number.
        type: str
  port:
    description: TCP port of C(usbipd). Clients have to name it too.
    type: int
    default: 3240
  clients:
    description:
      - Addresses and networks that reach the port, IPv4 or IPv6. Packets of others are dropped in C(INPUT) by a chain of ours.
      - The node itself always reaches it. An empty list closes it to everybody else.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds without an answer after which a client counts as gone.
    type: int
    default: 15
  missing:
    description: V(fail) refuses devices that are not plugged in; V(allow) exports them when they come, and warns.
    type: str
    choices: [fail, allow]
    default: fail
  state:
    description: V(absent) takes back all that this module made; the other options are then ignored.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing.
    support: full
  diff_mode:
    description: Shows the chain, the service's files and the exported devices.
    support: full
notes:
  - Whether the node can record USB packets (usbmon) is told by M(impair.testbed.testbed_info) as C(usb.usbmon).
requirements:
  - python >= 3.10, usbip and iptables on the node, and a kernel with usbip-host
seealso:
  - module: impair.testbed.usb_attach
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: The debug probe, for the laptop alone
  impair.testbed.usb_export:
    port: 7575
    devices:
      - {product: "0d28:0204"}
    clients: [192.168.1.147]

- name: Nothing any more
  impair.testbed.usb_export:
    state: absent
"""

RETURN = r"""
before:
  description: Our chain, the service and the exported devices as they were found.
  returned: always
  type: list
  elements: str
after:
  description: The same as they are now, read back.
  returned: always
  type: list
  elements: str
  sample: ["exported: 1-1 0d28:0204 SER123 Probe"]
steps:
  description: The changes that were made, or in check mode would be made.
  returned: always
  type: list
  elements: str
  sample: ["usbip bind -b 1-1"]
devices:
  description: The USB devices that are plugged into the node.
  returned: always
  type: list
  elements: dict
  contains:
    busid:
      description: Where it is plugged in.
      type: str
    product:
      description: Vendor and product.
      type: str
    serial:
      description: Its serial number; empty where it has none.
      type: str
    name:
      description: What it calls itself.
      type: str
    exported:
      description: Whether clients can have it.
      type: bool
    status:
      description: V(local), V(available), V(used) by a client, or V(error).
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.report import result
from ..module_utils.usb import exports

DEVICE = {"busid": {"type": "str"}, "product": {"type": "str"}, "serial": {"type": "str"}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "dict", "default": [], "options": DEVICE},
            "port": {"type": "int", "default": 3240},
            "clients": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 15},
            "missing": {"type": "str", "choices": ["fail", "allow"], "default": "fail"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    said: list[str] = []
    try:
        if module.params["state"] == "present":
            report, said = exports.present(module.params, module.check_mode)
        else:
            report = exports.absent(module.check_mode)
        devices = exports.state()
    except TestbedError as error:
        module.fail_json(msg=str(error))
    for text in said:
        module.warn(text)
    module.exit_json(**result(report, devices=devices))


if __name__ == "__main__":
    main()
