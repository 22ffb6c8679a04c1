# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lab_drawing
short_description: A virtual lab as a drawing
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Nodes, links, addresses and impairments of interfaces as SVG.
  - A bad topology is refused as the module M(impair.testbed.lab) refuses it.
positional: hostvars, name
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
  name:
    description: Name of the lab.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Draw the lab
  ansible.builtin.copy:
    content: "{{ groups['all'] | impair.testbed.lab_drawing(hostvars, lab_name) }}"
    dest: lab.svg
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The text of an SVG file.
  type: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import TestbedError
from ..module_utils.lab import draw, manage
from .lab_topology import lab_topology


def lab_drawing(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], name: str) -> str:
    found = lab_topology(hosts, hostvars)
    nodes = [node["name"] for node in found["nodes"]]
    asked = {
        (node, interface["name"]): interface
        for node in nodes
        for interface in hostvars[node].get("impairment_interfaces") or ()
    }
    try:
        return draw.svg(manage.parse(name, found["nodes"], found["links"]), asked)
    except TestbedError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Drawings of labs."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lab_drawing": lab_drawing}
