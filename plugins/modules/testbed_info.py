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
  description:
    - By name, true or what is missing (the kernel option or program, and what the kernel said).
    - Those of USB, such as V(usb.usbmon), tell whether the kernel has the driver or a module of it; none is loaded by asking.
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
rules:
  description: What the rules of BPF programs of the module M(impair.testbed.impairment) have counted, since each of them stands.
  returned: always
  type: list
  elements: dict
  contains:
    rule:
      description: Its key in the maps, as C(bpftool map dump) shows it.
      type: int
    interface:
      description: The interface; several, with commas between them, where they count as one.
      type: str
    direction:
      description: V(egress) or V(ingress).
      type: str
    class:
      description: The traffic class.
      type: str
    asked:
      description: What its packets suffer.
      type: str
    seen:
      description: Packets. A superpacket is one.
      type: int
    bytes:
      description: Their bytes.
      type: int
    dropped:
      description: Packets that were dropped.
      type: int
    corrupted:
      description: Packets that were changed.
      type: int
    duplicated:
      description: Packets of which there was a copy.
      type: int
    marked:
      description: Packets whose mark was set.
      type: int
    superpackets:
      description: Packets that TSO or GRO had gathered; each of them suffered as one. Above 0 the module warns.
      type: int
    segments:
      description: Packets of the wire in the superpackets.
      type: int
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
    if any(row["superpackets"] for row in found["rules"]):
        from ..module_utils.bpf.counters import warning

        for text in filter(None, map(warning, found["rules"])):
            module.warn(text)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
