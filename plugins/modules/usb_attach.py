#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices of other nodes that this node has over USB/IP."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_attach
short_description: Attach USB devices of other nodes over the network
version_added: 0.1.0
description:
  - Attaches devices that servers export to ports of vhci_hcd. The node then has them as if they were plugged in.
  - A service of ours stays on the node. It attaches a device again after a lost link, a replug or a reboot of either side.
  - What C(usbip port) shows is true of these devices as well.
options:
  devices:
    description: The devices, each of one server.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Address or name of the server.
        type: str
        required: true
      port:
        description: Its TCP port.
        type: int
        default: 3240
      busid:
        description: The bus id of the device at the server.
        type: str
      product:
        description: Vendor and product in hexadecimal; for a server that exports only one of the kind.
        type: str
  timeout:
    description:
      - Seconds without an answer after which a link counts as lost. The device then disappears, and comes back with the link.
      - A shorter loss only delays what the device does.
    type: int
    default: 15
  wait:
    description: Seconds that a server may take to give a device.
    type: int
    default: 20
  missing:
    description: V(fail) refuses devices that cannot be had now; V(allow) attaches them when they come, and warns.
    type: str
    choices: [fail, allow]
    default: fail
  state:
    description: V(absent) detaches all that this module attached, and ends the service; the other options are then ignored.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing. With O(missing=allow) the servers are asked what they export.
    support: full
  diff_mode:
    description: Shows the service's files and the attached devices.
    support: full
notes:
  - Whether the node can record USB packets (usbmon) is told by M(impair.testbed.testbed_info) as C(usb.usbmon).
requirements:
  - python >= 3.10 on the node, and a kernel with vhci_hcd
seealso:
  - module: impair.testbed.usb_export
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: The debug probe that the bridge node exports
  impair.testbed.usb_attach:
    devices:
      - {server: 192.168.1.107, port: 7575, product: "0d28:0204"}
  register: usb

- name: Where it is
  ansible.builtin.debug:
    msg: "{{ usb.ports[0].nodes }}"

- name: Nothing any more
  impair.testbed.usb_attach:
    state: absent
"""

RETURN = r"""
before:
  description: The service and the taken ports as they were found.
  returned: always
  type: list
  elements: str
after:
  description: The same as they are now, read back.
  returned: always
  type: list
  elements: str
  sample: ["port 0: 1-1 of 192.168.1.107 port 7575, here 2-1 0d28:0204"]
steps:
  description: The changes that were made, or in check mode would be made.
  returned: always
  type: list
  elements: str
  sample: ["usbip --tcp-port 7575 attach -r 192.168.1.107 -b 1-1"]
ports:
  description: The ports of vhci_hcd that are taken, by us or by others.
  returned: always
  type: list
  elements: dict
  contains:
    port:
      description: Its number, as in C(usbip port).
      type: int
    status:
      description: V(connecting), V(attached) or V(error).
      type: str
    server:
      description: The server; empty where nobody has written it down.
      type: str
    server_port:
      description: The server's TCP port.
      type: int
    busid:
      description: The bus id at the server.
      type: str
    local_busid:
      description: The bus id here.
      type: str
    product:
      description: Vendor and product.
      type: str
    nodes:
      description: What the device is here, by kind.
      type: dict
      sample: {block: [sda], hidraw: [hidraw0], tty: [ttyACM0]}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.report import result
from ..module_utils.usb import attached

DEVICE = {
    "server": {"type": "str", "required": True},
    "port": {"type": "int", "default": 3240},
    "busid": {"type": "str"},
    "product": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "dict", "default": [], "options": DEVICE},
            "timeout": {"type": "int", "default": 15},
            "wait": {"type": "int", "default": 20},
            "missing": {"type": "str", "choices": ["fail", "allow"], "default": "fail"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    said: list[str] = []
    try:
        if module.params["state"] == "present":
            report, said = attached.present(module.params, module.check_mode)
        else:
            report = attached.absent(module.check_mode)
        ports = attached.state()
    except TestbedError as error:
        module.fail_json(msg=str(error))
    for text in said:
        module.warn(text)
    module.exit_json(**result(report, ports=ports))


if __name__ == "__main__":
    main()
