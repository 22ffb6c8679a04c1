#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VirtualHere's USB server on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_virtualhere
short_description: Run VirtualHere's USB server on a node
version_added: 0.1.0
description:
  - Holds VirtualHere's server with the asked TCP port and devices, reachable by the asked clients only.
  - The binary is not part of this collection. It is its vendor's, under its vendor's licence, and has to be on the node already; the role
    P(impair.testbed.usb_server#role) with C(usb_backend=virtualhere) brings it.
  - The server writes to its C(config.ini) itself; lines that are not asked for here stay.
  - Another binary or configuration restarts the server, which ends what clients do with the devices.
  - Messages name values as the variables of the role.
options:
  binary:
    description: Path of the binary on the node.
    type: path
  sha256:
    description: Its checksum.
    type: str
  devices:
    description: The devices to share, each with C(product), vendor and product in hexadecimal. The server knows them by nothing else.
    type: list
    elements: dict
    default: []
  port:
    description: TCP port of the server.
    type: int
    default: 7575
  clients:
    description: Addresses and networks that reach the port. An empty list closes it to all but the node itself.
    type: list
    elements: str
    default: []
  name:
    description: What clients call the server; by default the node's name.
    type: str
    default: ""
  license:
    description: The licence, as the vendor has sent it.
    type: str
    default: ""
  missing:
    description: V(fail) refuses devices that are not plugged in; V(allow) shares them when they come.
    type: str
    choices: [fail, allow]
    default: fail
  state:
    description: V(absent) ends the server, and removes binary, service and chain. C(config.ini) stays, as a licence may stand there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and changes nothing.
    support: full
  diff_mode:
    description: Shows chain, configuration and server before and after.
    support: full
requirements:
  - python >= 3.10 on the node
seealso:
  - module: impair.testbed.usb_export
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: The debug probe, by VirtualHere
  impair.testbed.usb_virtualhere:
    binary: /usr/local/lib/impair.testbed/virtualhere/vhusbd-0123456789ab
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    devices: [{product: "0d28:0204"}]
    clients: [192.168.1.147]
"""

RETURN = r"""
before:
  description: Chain, configuration and server as they were found.
  returned: always
  type: list
  elements: str
after:
  description: The same as they are now, read back.
  returned: always
  type: list
  elements: str
steps:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.report import result
from ..module_utils.usb import virtualhere


def main():
    module = AnsibleModule(
        argument_spec={
            "binary": {"type": "path"},
            "sha256": {"type": "str"},
            "devices": {"type": "list", "elements": "dict", "default": []},
            "port": {"type": "int", "default": 7575},
            "clients": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str", "default": ""},
            "license": {"type": "str", "default": "", "no_log": True},
            "missing": {"type": "str", "choices": ["fail", "allow"], "default": "fail"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("binary", "sha256"))],
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "present":
            report = virtualhere.present(module.params, module.check_mode)
        else:
            report = virtualhere.absent(module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(report))


if __name__ == "__main__":
    main()
