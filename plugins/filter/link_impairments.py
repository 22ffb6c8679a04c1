# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: link_impairments
short_description: What a lab's links are to do to packets, as impairments of a node's interfaces
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Each of the C(lab_links) may have C(impairment), for both directions, and each of its ends too, for what leaves there.
  - The result is C(impairment_interfaces) of the role P(impair.testbed.impairment#role) for the node at an end.
positional: node
options:
  _input:
    description: The C(lab_links).
    type: list
    elements: dict
    required: true
  node:
    description: The node's name, usually C(inventory_hostname).
    type: str
    required: true
"""

EXAMPLES = r"""
# group_vars/testbed.yml
lab_links:
  - name: core
    impairment: {delay: 20ms, loss: 1%}
    ends:
      - {node: r1, interface: eth1}
      - {node: r2, interface: eth1}
impairment_interfaces: "{{ lab_links | impair.testbed.link_impairments(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: C(impairment_interfaces) of the node.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import TestbedError
from ..module_utils.lab import addresses


def link_impairments(links: Iterable[Any], node: str) -> list[dict[str, Any]]:
    try:
        return addresses.impairments(list(links), node)
    except TestbedError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Impairments of links."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"link_impairments": link_impairments}
