# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lab_topology
short_description: The virtual lab that an inventory describes
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Collects the hosts that set C(lab_node_kind), their C(lab_node_memory), C(lab_node_kernel), C(lab_node_cpus), C(lab_board_card)
    and C(node_interfaces).
  - Adds the C(lab_links) that they share.
  - The result has the options C(nodes) and C(links) of the module M(impair.testbed.lab).
positional: hostvars
options:
  _input:
    description: Names of the hosts to look at, usually C(groups['all']).
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Names of the lab's nodes
  ansible.builtin.debug:
    msg: "{{ (groups['all'] | impair.testbed.lab_topology(hostvars)).nodes | map(attribute='name') }}"
"""

RETURN = r"""
_value:
  description: A mapping of C(nodes) and C(links).
  type: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def lab_topology(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    nodes: list[dict[str, Any]] = []
    links: list[Any] = []
    for host in hosts:
        values = hostvars[host]
        if "lab_node_kind" not in values:
            continue
        node = {"name": host, "kind": values["lab_node_kind"], "interfaces": values.get("node_interfaces", [])}
        if "lab_node_memory" in values:
            node["memory"] = values["lab_node_memory"]
        for option in ("kernel", "cpus"):
            if values.get(f"lab_node_{option}"):
                node[option] = values[f"lab_node_{option}"]
        if values.get("lab_board_card"):
            node["card"] = values["lab_board_card"]
        node["routes"] = values.get("node_routes", [])
        node["router"] = host in values.get("lab_routers", [])
        own = values.get("lab_links", [])
        if nodes and own != links:
            raise AnsibleFilterError(
                f"lab_links of {host} differs from that of {nodes[0]['name']}; set it once, for the group of nodes"
            )
        links = own
        nodes.append(node)
    return {"nodes": nodes, "links": links}


class FilterModule:
    """The collection's filters for labs."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lab_topology": lab_topology}
