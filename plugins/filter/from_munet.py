# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: from_munet
short_description: An inventory of what a munet.yaml describes
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Nodes become hosts, networks and direct connections C(lab_links), addresses C(node_interfaces), delays, losses and rates
    the impairments of links.
  - Nodes are of kind C(netns), those with C(qemu) of kind C(qemu), and all of them forward packets.
options:
  _input:
    description: The content of a C(munet.yaml).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Take over a topology
  ansible.builtin.copy:
    content: "{{ (lookup('ansible.builtin.file', 'munet.yaml') | from_yaml | impair.testbed.from_munet).inventory | to_nice_yaml }}"
    dest: inventories/mine.yml
    mode: "0644"
"""

RETURN = r"""
_value:
  description: A mapping of C(inventory), and C(left), the places in munet.yaml that an inventory cannot say.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import TestbedError
from ..module_utils.lab.munet import Import


def from_munet(raw: object) -> dict[str, Any]:
    try:
        made = Import(raw)
        return {"inventory": made.inventory(), "left": made.left}
    except TestbedError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Other programs' topologies."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"from_munet": from_munet}
