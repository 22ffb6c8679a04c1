# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: without_class
short_description: Impaired interfaces without one of their classes
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Leaves out the class of this name on every interface, so that its traffic falls into the classes after it.
positional: name
options:
  _input:
    description: The interfaces, as O(impair.testbed.impairment#module:interfaces).
    type: list
    elements: dict
    required: true
  name:
    description: Name of the class.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: USB over IP in the lane of all other traffic
  impair.testbed.impairment:
    interfaces: "{{ impairment_interfaces | impair.testbed.without_class('usbip') }}"
"""

RETURN = r"""
_value:
  description: The interfaces.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def without_class(interfaces: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {**interface, "classes": [one for one in interface["classes"] if one.get("name") != name]}
        if "classes" in interface
        else dict(interface)
        for interface in interfaces
    ]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"without_class": without_class}
