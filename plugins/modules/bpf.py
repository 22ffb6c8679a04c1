#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BPF programs of one's own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf
short_description: Hold a BPF program of your own on an interface
version_added: 0.1.0
description:
  - Puts a BPF program for the traffic control classifier on an interface, sets entries of its maps, and pins these.
  - A program that stands as wanted is not loaded again. Another one takes its place in one message, and the maps that both have (same name,
    type and sizes) stay, with what they hold; global variables begin anew. Changed entries are map updates only.
  - The program is loaded before anything is changed, so what the verifier refuses leaves the node untouched, in check mode too.
  - Filters of others stay. For every nth packet, patterns and chance, use M(impair.testbed.impairment), which needs no program of your own.
options:
  name:
    description:
      - What this program is called on its interface. It stands in the filter's name, before a hash of the program.
      - Letters, digits, dots, dashes and underscores; 64 at most.
    type: str
    required: true
  interface:
    description: Name of the interface on the node.
    type: str
    required: true
  attach:
    description:
      - Where packets leave the interface (V(egress)) or arrive there (V(ingress)), before any queue. There the filter stands in a C(clsact) qdisc,
        which is made where there is none, and shared with others.
      - The kernel's TCX links are not used.
    type: str
    choices: [egress, ingress]
  parent:
    description: In the place of O(attach), the handle of a qdisc or class whose packets the program classifies, in quotes.
    type: str
  flowid:
    description:
      - With O(parent), the class of the packets that the program matches.
      - Without O(direct_action), the program returns 0 for no match, -1 for a match, or the class itself, such as 0x10001 for C(1:1).
    type: str
  direct_action:
    description:
      - Whether what the program returns is the verdict (C(TC_ACT_UNSPEC), -1, leaves it to the next filter; C(TC_ACT_SHOT), 2, drops).
      - By default true with O(attach), false with O(parent).
    type: bool
  priority:
    description: The filter's priority, lowest first; 1 to 65110. A place that holds a filter of somebody else is refused.
    type: int
    default: 100
  protocol:
    description: The packets that the program sees.
    type: str
    choices: [all, ip, ipv6, arp, 802.1Q]
    default: all
  source:
    description:
      - A C file on the controller, compiled there by clang (C(-O2 -g -target bpf -mcpu=v3)). What was compiled once is kept.
      - Looked for below C(files) as ansible.builtin.copy does.
    type: path
  flags:
    description: More flags for clang, such as C(-DEVERY=3).
    type: list
    elements: str
    default: []
  object:
    description: An object file of clang's target bpf, on the controller; on the node with O(remote_src=true).
    type: path
  remote_src:
    description: Whether O(object) is on the node.
    type: bool
    default: false
  section:
    description: The section of the program. By default the only one that the object has, else V(classifier).
    type: str
  program:
    description: The program's function, where its section has several.
    type: str
  maps:
    description:
      - Entries as a mapping of maps to mappings of keys to values. Others are left alone.
      - A number fits keys and values of 1, 2, 4 and 8 bytes, in the node's byte order. All others are written as bytes, as bpftool has them,
        such as C(hex 0a 00 00 01).
    type: dict
    default: {}
  pin:
    description:
      - A folder in the BPF file system, such as C(/sys/fs/bpf/mine), where the program's maps get their names. Names with dots are the kernel's.
      - A map that is pinned there already is used, where it has the same type and sizes. What this module has pinned is removed by O(state=absent).
    type: path
  state:
    description: V(absent) takes the filter of this name away, its pins, and a C(clsact) that was made for it and holds nothing more.
    type: str
    choices: [present, absent]
    default: present
  code:
    description: The object file in base64, which the controller's part of this module fills in.
    type: str
attributes:
  check_mode:
    description: Says what would be done, once the verifier has seen the program, and changes nothing.
    support: full
  diff_mode:
    description: Shows filter, entries and pins before and after.
    support: full
requirements:
  - python >= 3.10 on the node; neither clang nor libbpf nor bpftool
  - clang on the controller, for O(source)
seealso:
  - module: impair.testbed.impairment
  - module: impair.testbed.tc
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Every 20th packet into a class of its own, by a program that is compiled here
  impair.testbed.bpf:
    name: nth
    interface: eth0
    parent: "1:"
    flowid: "1:1"
    source: every_nth.c
    maps: {every: {0: 20}}

- name: A verdict of one's own on what leaves eth0; its maps keep their names and contents
  impair.testbed.bpf:
    name: mine
    interface: eth0
    attach: egress
    object: mine.o
    maps: {addresses: {hex 0a 00 00 07: 1}}
    pin: /sys/fs/bpf/mine

- name: As it was without it
  impair.testbed.bpf:
    name: mine
    interface: eth0
    state: absent
"""

RETURN = r"""
before:
  description: The filter, entries and pins that were found, a line each.
  returned: always
  type: list
  elements: str
after:
  description: Those that stand now, read back from the kernel.
  returned: always
  type: list
  elements: str
steps:
  description: The changes that were made, or in check mode would be made, as lines for tc(8) and bpftool(8).
  returned: always
  type: list
  elements: str
  sample: ["bpftool map update id 17 key hex 00 00 00 00 value hex 07 00 00 00  # every"]
maps:
  description: The kernel's number of each of the program's maps, as for C(bpftool map dump id).
  returned: O(state=present)
  type: dict
  sample: {every: 17, seen: 18}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.bpf import attach
from ..module_utils.errors import TestbedError
from ..module_utils.report import result


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "interface": {"type": "str", "required": True},
            "attach": {"type": "str", "choices": ["egress", "ingress"]},
            "parent": {"type": "str"},
            "flowid": {"type": "str"},
            "direct_action": {"type": "bool"},
            "priority": {"type": "int", "default": 100},
            "protocol": {"type": "str", "choices": ["all", "ip", "ipv6", "arp", "802.1Q"], "default": "all"},
            "source": {"type": "path"},
            "flags": {"type": "list", "elements": "str", "default": []},
            "object": {"type": "path"},
            "remote_src": {"type": "bool", "default": False},
            "section": {"type": "str"},
            "program": {"type": "str"},
            "maps": {"type": "dict", "default": {}},
            "pin": {"type": "path"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "code": {"type": "str"},
        },
        mutually_exclusive=[("attach", "parent"), ("source", "object")],
        required_if=[
            ("state", "present", ("attach", "parent"), True),
            ("state", "present", ("source", "object"), True),
        ],
        supports_check_mode=True,
    )
    try:
        report, maps = attach.run(module.params, module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(report, **({} if maps is None else {"maps": maps})))


if __name__ == "__main__":
    main()
