#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node that is a USB device."""

from __future__ import annotations

DOCUMENTATION = r"""
module: usb_gadget
short_description: Make a node a USB device
version_added: 0.1.0
description:
  - Makes a composite device by configfs on a USB device controller, which is a board's OTG port or C(dummy_hcd),
    where the node is its own host.
  - By default the device has what a DAPLink debug probe has, which is a disk, a serial port (CDC ACM) and a HID.
  - A device that stands as wanted is not touched. One that differs is unplugged, made anew and plugged in; the steps say so.
  - Gadgets of others stay. Ours is named C(impair-NAME) below C(/sys/kernel/config/usb_gadget).
  - The kernel forgets gadgets at a reboot.
  - Messages name values as the variables of the role P(impair.testbed.usb_gadget#role), such as C(usb_gadget_functions[1].kind).
options:
  name:
    description: Name of the gadget on this node; 16 characters of a-z, 0-9, _ and - at most.
    type: str
    default: probe
  id:
    description: Vendor and product as lsusb shows them. The default is the Linux Foundation's number for devices with several functions.
    type: str
    default: "1d6b:0104"
  serial:
    description: Serial number; by default C(impair-NAME).
    type: str
    default: ""
  manufacturer:
    description: Text that the host sees.
    type: str
    default: impair.testbed
  product:
    description: Text that the host sees.
    type: str
    default: Testbed probe
  functions:
    description:
      - What the device does, in the order of its interfaces, each with C(kind).
      - C(mass_storage) is a disk of C(size) (8 MiB), a FAT volume with a C(label) and C(contents), which are file names with texts. What the
        host writes stays. In their place, C(file) is a file or block device of the node. Also C(read_only) (false), C(removable) (true).
      - C(acm) is a serial port; C(/dev/ttyACM0) on the host, C(/dev/ttyGS0) on the node.
      - C(hid) has reports of C(report_length) (64) bytes each way; C(/dev/hidraw0) on the host, C(/dev/hidg0) on the node. Also
        C(report_descriptor) in hexadecimal, C(protocol) (0), C(subclass) (0).
    type: list
    elements: dict
    default: [{kind: mass_storage}, {kind: acm}, {kind: hid}]
  udc:
    description:
      - The device controller, as in C(/sys/class/udc). By default the first free one, real ones first.
      - C(dummy_udc.0) loads C(dummy_hcd) where that is not loaded.
    type: str
    default: ""
  inside:
    description:
      - Whether a small program runs on the node that is the inside of the device. It echoes serial port and HID, and remounts the disk.
      - It is started by start-stop-daemon. V(false) leaves the node's ends of the functions to others.
    type: bool
    default: true
  eject:
    description: Seconds from the host's file C(REFRSH.ACT) until the disk goes. DAPLink takes these.
    type: float
    default: 0.5
  insert:
    description: Seconds until the disk comes back. DAPLink takes these.
    type: float
    default: 2.5
  state:
    description: V(absent) unplugs the gadget of this name and removes it with the volumes that were made for it. Kernel modules stay.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and changes nothing.
    support: full
  diff_mode:
    description: Shows the device before and after.
    support: full
requirements:
  - python >= 3.10 on the node
  - libcomposite and a USB device controller in the node's kernel
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: As a debug probe, on the node itself
  impair.testbed.usb_gadget:
    udc: dummy_udc.0

- name: A stick with one file, on the board's OTG port
  impair.testbed.usb_gadget:
    name: stick
    functions:
      - {kind: mass_storage, size: 1MiB, label: STICK, contents: {README.TXT: "Hello\n"}}

- name: Unplugged and gone
  impair.testbed.usb_gadget:
    name: stick
    state: absent
"""

RETURN = r"""
before:
  description: The device as it was found.
  returned: always
  type: list
  elements: str
after:
  description: The device as it is now, read back.
  returned: always
  type: list
  elements: str
  sample: ["gadget probe: 1d6b:0104 serial impair-probe, plugged into dummy_udc.0", "acm.1"]
steps:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
  sample: ["echo dummy_udc.0 > /sys/kernel/config/usb_gadget/impair-probe/UDC"]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.converge import Target, converge
from ..module_utils.errors import TestbedError
from ..module_utils.report import result
from ..module_utils.usb import device
from ..module_utils.usb.gadget import PREFIX, GadgetDomain, State
from ..module_utils.usb.inside import InsideDomain
from ..module_utils.usb.inside import State as Nothing
from ..module_utils.usb.volumes import VolumesDomain

DEFAULT = [{"kind": "mass_storage"}, {"kind": "acm"}, {"kind": "hid"}]


def run(params, check):
    """Bring gadget and volumes to what is asked; returns converge's report."""
    name = device.name(params["name"])
    asked = device.parse(params) if params["state"] == "present" else None
    volumes, gadget = (asked.volumes, asked.gadget) if asked else ({}, None)
    inside = InsideDomain(f"{PREFIX}{name}")
    process = inside.wanted(params["eject"], params["insert"]) if asked and params["inside"] else Nothing()
    targets = [
        Target(VolumesDomain(name), volumes),
        Target(GadgetDomain(name), State(gadget)),
        Target(inside, process),
    ]
    return converge(targets, check)


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "probe"},
            "id": {"type": "str", "default": "1d6b:0104"},
            "serial": {"type": "str", "default": ""},
            "manufacturer": {"type": "str", "default": "impair.testbed"},
            "product": {"type": "str", "default": "Testbed probe"},
            "functions": {"type": "list", "elements": "dict", "default": DEFAULT},
            "udc": {"type": "str", "default": ""},
            "inside": {"type": "bool", "default": True},
            "eject": {"type": "float", "default": 0.5},
            "insert": {"type": "float", "default": 2.5},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        report = run(module.params, module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(report))


if __name__ == "__main__":
    main()
