#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual functions of network interfaces."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sriov
short_description: Hold virtual functions (SR-IOV), their settings, and who has them
version_added: 0.1.0
description:
  - Brings network interfaces to a number of virtual functions (VFs), sets what the function holds for each of them, and gives them
    to a driver for virtual machines or to a namespace.
  - One call holds all VFs of this module on the node. An interface that an earlier call had, and this one leaves out, gets what it had before.
  - A setting that is left out stays as the driver has it. What stands as wanted is not written again.
  - The number of VFs changes from one to another by way of 0 only. All VFs of the interface are lost meanwhile; the steps say so.
  - The address of a VF is set before a driver takes it. Where it changes later, the VF's interface goes and comes again; the steps say so.
options:
  interfaces:
    description: The interfaces whose devices have VFs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The interface.
        type: str
        required: true
      count:
        description: How many VFs; those that O(interfaces[].vfs) describes, if not said otherwise.
        type: int
      vfs:
        description: Settings of the VFs, from the first one on.
        type: list
        elements: dict
        default: []
        suboptions:
          mac:
            description: Its MAC address.
            type: str
          vlan:
            description: The VLAN that its packets are put into, which it does not see; 0 is none.
            type: int
          qos:
            description: Priority in the VLAN's tag, 0 to 7.
            type: int
          rate:
            description: The most that it sends, in whole Mbit/s, such as V(20mbit); 0 is without limit. Some devices take it and do nothing.
            type: str
          min_rate:
            description: What it may send at least.
            type: str
          spoofchk:
            description: Drop what it sends from other addresses than its own.
            type: bool
          trust:
            description: Let it change its address, or hear everything.
            type: bool
          state:
            description: Link that it sees; that of the device, always up, or always down.
            type: str
            choices: [auto, enable, disable]
          driver:
            description: Its driver. V(vfio-pci) is the one for virtual machines. Left out, the kernel chooses.
            type: str
          netns:
            description: The named namespace that its interface is given to, see ip-netns(8); it is made where it is missing.
            type: str
          name:
            description: Name of its interface in O(interfaces[].vfs[].netns).
            type: str
  persistent:
    description: Bring all of it back at boot, by a unit of systemd, or where there is none by a hook of ifupdown.
    type: bool
    default: true
  state:
    description: V(absent) gives all interfaces what they had before; O(interfaces) is then ignored.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing.
    support: full
  diff_mode:
    description: Shows the VFs before and after in the words of ip-link(8), and the files that bring them back at boot.
    support: full
requirements:
  - python >= 3.10 and iproute2 on the node, and a device with SR-IOV
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: One VF for a virtual machine, one for a namespace
  impair.testbed.sriov:
    interfaces:
      - name: enp1s0f0
        vfs:
          - {mac: 52:54:00:aa:01:00, vlan: 100, rate: 200mbit, trust: false, driver: vfio-pci}
          - {mac: 52:54:00:aa:01:01, spoofchk: true, netns: guest1, name: eth0}

- name: No VF of ours any more
  impair.testbed.sriov:
    state: absent
"""

RETURN = r"""
before:
  description: The VFs that were found, a line each, and the files that bring them back at boot.
  returned: always
  type: list
  elements: str
after:
  description: The same as it is now, read back.
  returned: always
  type: list
  elements: str
  sample: ["enp1s0f0: 1 VFs", "enp1s0f0 vf 0 mac 52:54:00:aa:01:00 vlan 100 qos 0 spoofchk on trust off state auto driver igbvf"]
steps:
  description: The changes that were made, or in check mode would be made.
  returned: always
  type: list
  elements: str
  sample: ["ip link set dev enp1s0f0 vf 0 mac 52:54:00:aa:01:00"]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.report import result
from ..module_utils.sriov.service import hold

VF = {
    "mac": {"type": "str"},
    "vlan": {"type": "int"},
    "qos": {"type": "int"},
    "rate": {"type": "str"},
    "min_rate": {"type": "str"},
    "spoofchk": {"type": "bool"},
    "trust": {"type": "bool"},
    "state": {"type": "str", "choices": ["auto", "enable", "disable"]},
    "driver": {"type": "str"},
    "netns": {"type": "str"},
    "name": {"type": "str"},
}
INTERFACE = {
    "name": {"type": "str", "required": True},
    "count": {"type": "int"},
    "vfs": {"type": "list", "elements": "dict", "default": [], "options": VF},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "dict", "default": [], "options": INTERFACE},
            "persistent": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    try:
        interfaces = asked["interfaces"] if asked["state"] == "present" else []
        report = hold(interfaces, asked["persistent"], module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(report))


if __name__ == "__main__":
    main()
