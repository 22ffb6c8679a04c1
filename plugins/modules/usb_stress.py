#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A debug probe's disk, serial port and HID in a loop."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_stress
short_description: Ask a USB device in a loop, and time it
version_added: 0.1.0
description:
  - Runs three tests on a device with the functions of a DAPLink debug probe, on the node that it is plugged into, or over the network.
  - C(remount) writes a file C(REFRSH.ACT) to the device's disk and takes the time until the disk went away, came back and is mounted with
    the same files. C(cdc) opens the serial port, sends 64 bytes, gets them back and closes it. C(hid) does so with a report of 64 bytes.
  - The device has to answer as that of P(impair.testbed.usb_gadget#role) does.
  - With O(server), the device is attached for the tests and detached afterwards.
  - Failed loops do not fail the task; they are told in what is returned.
options:
  server:
    description: The server that exports the device over USB/IP. Empty for a device that is plugged into this node.
    type: str
    default: ""
  port:
    description: The server's TCP port.
    type: int
    default: 3240
  busid:
    description: The device's bus id, at the server where there is one.
    type: str
  product:
    description: Vendor and product in hexadecimal.
    type: str
  loops:
    description: How often each test runs; 0 leaves it out.
    type: dict
    suboptions:
      remount:
        description: Remounts of the disk.
        type: int
        default: 6
      cdc:
        description: Messages over the serial port.
        type: int
        default: 121
      hid:
        description: Reports.
        type: int
        default: 121
  timeout:
    description: Seconds that a loop may take before it counts as failed, and the device to get ready.
    type: float
    default: 60
attributes:
  check_mode:
    description: Nothing is measured in check mode.
    support: none
requirements:
  - python >= 3.10 on the node; with O(server), a kernel with vhci_hcd
seealso:
  - module: impair.testbed.usb_gadget
  - module: impair.testbed.usb_attach
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: The probe that the bridge node exports
  impair.testbed.usb_stress:
    server: 192.168.1.107
    port: 7575
    product: "0d28:0204"
    loops: {remount: 3, cdc: 20, hid: 20}
"""

RETURN = r"""
first_connect:
  description: Seconds from the first packet until disk, serial port and HID could be used; none for a device of this node.
  returned: success
  type: float
tests:
  description: By test, each loop with C(at), when it began, C(seconds) that it took, and what C(failed), empty where nothing did.
  returned: success
  type: dict
  sample: {hid: [{at: 0.0, seconds: 0.002, failed: ""}]}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.usb import stress
from ..module_utils.usb.sysfs import Selector

LOOPS = {
    "remount": {"type": "int", "default": 6},
    "cdc": {"type": "int", "default": 121},
    "hid": {"type": "int", "default": 121},
}


def main():
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 3240},
            "busid": {"type": "str"},
            "product": {"type": "str"},
            "loops": {"type": "dict", "options": LOOPS, "apply_defaults": True},
            "timeout": {"type": "float", "default": 60},
        },
        required_one_of=[("busid", "product")],
        supports_check_mode=False,
    )
    values = module.params
    device = Selector(values["busid"] or "", (values["product"] or "").lower())
    try:
        found = stress.run(stress.Asked(values["server"], values["port"], device, values["loops"], values["timeout"]))
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
