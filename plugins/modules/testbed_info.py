#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node can do and holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: testbed_info
short_description: Tell what a node can do, and what of ours it holds
version_added: 0.1.0
description:
  - Finds out what the node's kernel and programs can do by trying each thing in a throwaway network namespace.
  - What was found is remembered below C(/run) until the kernel, its modules or the programs change.
  - Interfaces, versions and our chains are read at every call.
options: {}
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
requirements:
  - python >= 3.10 on the node
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Look at the node
  impair.testbed.testbed_info:
  register: node

- name: Refuse a node that cannot delay
  ansible.builtin.assert:
    that: node.capabilities['qdisc.netem'] is true
    fail_msg: "delay needs {{ node.capabilities['qdisc.netem'] }}"
"""

RETURN = r"""
capabilities:
  description: By name, true or what is missing (the kernel option or program, and what the kernel said).
  returned: always
  type: dict
  sample:
    qdisc.netem: true
    filter.fw: "CONFIG_NET_CLS_FW (the kernel says: No such file or directory: TC classifier not found)"
interfaces:
  description: The interfaces in the kernel's order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    address:
      description: Its hardware address.
      type: str
    kind:
      description: Kind of a virtual interface, such as V(bridge) or V(veth); null for others.
      type: str
    master:
      description: The bridge (or bond) that it is a port of; null without one.
      type: str
    mtu:
      description: Its MTU in bytes.
      type: int
    up:
      description: Whether it is set up.
      type: bool
    offloads:
      description: State of V(gro), V(gso) and V(tso), as far as the driver knows them.
      type: dict
    qdiscs:
      description: Kind and handle of the qdiscs at the root and at ingress.
      type: list
      elements: str
owned:
  description: Our chains in iptables, ip6tables and ebtables, as lines that would make them.
  returned: always
  type: list
  elements: str
variants:
  description: The variant (V(nft) or V(legacy)) that our modules use for each family; null where none works.
  returned: always
  type: dict
  sample: {iptables: nft, ip6tables: nft, ebtables: nft}
versions:
  description: Versions of the kernel, Python, and the programs.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.capabilities import load
from ..module_utils.errors import TestbedError
from ..module_utils.info import node


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        found = node(load())
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
