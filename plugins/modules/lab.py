#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab
short_description: Start and end a virtual lab
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Runs on the machine that carries the lab, usually C(localhost), as an ordinary user or as root.
  - Each node is a kernel of its own with its own disk, or namespaces of this machine's kernel; links join their interfaces.
  - The ssh of a node with a kernel of its own is a unix socket in O(run_dir). Namespaces are entered by the connection
    plugin P(impair.testbed.netns#connection).
  - The lab has its own network and process namespace. Nothing of the host's network is touched.
  - The role P(impair.testbed.lab#role) fills the options from the inventory.
options:
  state:
    description:
      - V(checked) refuses a bad topology and reports what the host lacks; it changes nothing.
      - V(image) also builds the root file system that the nodes start from, once per recipe.
      - V(present) also brings every node up and waits for its ssh; a node that died is started again with its own disk.
      - V(absent) ends the lab and removes O(run_dir).
    type: str
    choices: [checked, image, present, absent]
    default: present
  name:
    description: Name of the lab; labs with different names and directories live side by side.
    type: str
    required: true
  run_dir:
    description: Folder of this lab's sockets, disks, consoles and logs. It is made, and removed by O(state=absent).
    type: path
    required: true
  cache_dir:
    description:
      - Where built root file systems stay.
      - The default is C(impair.testbed/lab) under C($XDG_CACHE_HOME) or C(~/.cache).
    type: path
  nodes:
    description:
      - The nodes, each with C(name) and C(kind), which is V(uml) (User-Mode Linux), V(qemu) (a virtual machine), V(netns)
        (namespaces of this machine), V(board) (an emulated board with Allwinner's H3), or V(real), for which nothing is started.
      - Optional are C(memory) in MiB, C(interfaces) as in C(node_interfaces), C(routes) as in C(node_routes), and C(router),
        which says whether the node forwards packets.
      - Nodes of kind V(uml) may have C(kernel), which is V(built) (of C(make kernel)) or a path; nodes of kind V(qemu) C(cpus);
        nodes of kind V(board) C(card), the path of an image of a card.
    type: list
    elements: dict
    default: []
  links:
    description:
      - The links as in C(lab_links), each with C(name), and C(ends) of C(node) and C(interface). That of a node of kind V(real)
        has C(port), the interface of this machine that a cable joins to it.
      - Optional are C(mtu) in bytes and C(kind), which is V(socket), V(veth), V(tap) or V(bridge). Those of kind V(tap) and V(bridge)
        may have more than two ends.
      - The first end of kind V(bridge) is a bridge in a node of kind V(netns), of which the TAPs of nodes of kind V(uml) are ports. Its
        C(bridge) may have C(multicast_snooping), C(promiscuous) and C(neighbours), each V(true) or V(false).
    type: list
    elements: dict
    default: []
  ready_within:
    description: Seconds within which every started node's ssh has to answer.
    type: int
    default: 180
attributes:
  check_mode:
    description: Whether the module can say what it would do without doing it.
    support: full
  diff_mode:
    description: Whether the module can show the lab before and after.
    support: full
"""

EXAMPLES = r"""
- name: Two nodes and a cable
  impair.testbed.lab:
    name: small
    run_dir: /tmp/small
    nodes:
      - {name: left, kind: uml, interfaces: [{name: eth0, address: 10.0.0.1/24}]}
      - {name: right, kind: uml, interfaces: [{name: eth0, address: 10.0.0.2/24}]}
    links:
      - {name: cable, ends: [{node: left, interface: eth0}, {node: right, interface: eth0}]}

- name: No trace of it
  impair.testbed.lab:
    name: small
    run_dir: /tmp/small
    state: absent
"""

RETURN = r"""
before:
  description: The lab as it was found.
  returned: always
  type: list
  elements: str
after:
  description: The lab as it stands now, observed.
  returned: always
  type: list
  elements: str
steps:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
warnings:
  description: What the caller should know although the task succeeded.
  returned: when there are any
  type: list
  elements: str
missing_packages:
  description: Debian packages that bring programs the host lacks.
  returned: O(state=checked)
  type: list
  elements: str
image_missing:
  description: Whether O(state=image) would have something to build.
  returned: O(state=checked)
  type: bool
pids:
  description: Process id of each running node.
  returned: O(state=present) and O(state=absent)
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.lab import manage

ARGUMENTS = {
    "state": {"type": "str", "choices": list(manage.STATES), "default": "present"},
    "name": {"type": "str", "required": True},
    "run_dir": {"type": "path", "required": True},
    "cache_dir": {"type": "path"},
    "nodes": {"type": "list", "elements": "dict", "default": []},
    "links": {"type": "list", "elements": "dict", "default": []},
    "ready_within": {"type": "int", "default": 180},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    values: dict[str, Any] = module.params
    request = manage.Request(
        values["state"],
        values["name"],
        Path(values["run_dir"]),
        Path(values["cache_dir"]) if values["cache_dir"] else None,
        values["nodes"],
        values["links"],
        values["ready_within"],
    )
    try:
        result = manage.manage(request, check=module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    if module._diff:
        result["diff"] = {"before": "\n".join([*result["before"], ""]), "after": "\n".join([*result["after"], ""])}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
