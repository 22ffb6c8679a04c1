# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: star_links
short_description: The links of a star
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - C(eth0) of each leaf is joined to an interface of the center that is called like the leaf.
positional: center
options:
  _input:
    description: Names of the leaves, of at most 15 characters.
    type: list
    elements: str
    required: true
  center:
    description: The node in the middle.
    type: str
    required: true
"""

EXAMPLES = r"""
# group_vars/testbed.yml
lab_links: "{{ groups['leaves'] | impair.testbed.star_links('center') }}"
"""

RETURN = r"""
_value:
  description: C(lab_links).
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable
from typing import Any

from ..module_utils.lab import addresses


def star_links(leaves: Iterable[str], center: str) -> list[dict[str, Any]]:
    return addresses.star(center, list(leaves))


class FilterModule:
    """Shapes of labs."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"star_links": star_links}
