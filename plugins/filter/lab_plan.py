# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lab_plan
short_description: Addresses and routes of a lab, computed from its links
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - The Nth of the C(lab_links), from 0, has the Nth C(/24) of an IPv4 pool and the Nth C(/64) of an IPv6 pool.
  - The Nth node, from 1, has the Nth address in each of its networks.
  - Routes lead over as few routers as there can be. A node with a single router beside it, that is none itself, has a
    default route.
positional: node, nodes, networks, routers
options:
  _input:
    description: The C(lab_links).
    type: list
    elements: dict
    required: true
  node:
    description: The node that is asked about, usually C(inventory_hostname).
    type: str
    required: true
  nodes:
    description: Names of all nodes, in the order in which they are numbered; usually C(groups['testbed']).
    type: list
    elements: str
    required: true
  networks:
    description: Pools, as V(10.0.0.0/16) and V(fd00:10::/48). A node has an address of each pool on each link.
    type: list
    elements: str
    required: true
  routers:
    description: Names of the nodes that forward packets.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# group_vars/testbed.yml
lab_networks: [10.0.0.0/16, fd00:10::/48]
lab_routers: [r1, r2]
__lab_plan: "{{ lab_links | impair.testbed.lab_plan(inventory_hostname, groups['testbed'], lab_networks, lab_routers) }}"
node_interfaces: "{{ __lab_plan.interfaces }}"
node_routes: "{{ __lab_plan.routes }}"
"""

RETURN = r"""
_value:
  description: A mapping of C(interfaces), for C(node_interfaces), and C(routes), for C(node_routes).
  type: dict
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import TestbedError
from ..module_utils.lab import addresses


def lab_plan(
    links: Iterable[Any], node: str, nodes: Iterable[str], networks: object, routers: Iterable[str] = ()
) -> dict[str, Any]:
    try:
        return addresses.plan(node, list(links), list(nodes), networks, list(routers))._asdict()
    except TestbedError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Computed addresses."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lab_plan": lab_plan}
