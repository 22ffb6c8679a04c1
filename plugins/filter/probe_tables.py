# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: probe_tables
short_description: The tables of what probes saw
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Shows what M(impair.testbed.probes) returns as tables and histograms of text.
options:
  _input:
    description: The C(result) of the module.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What was seen
  ansible.builtin.debug:
    msg: "{{ seen.result | impair.testbed.probe_tables }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ..module_utils.observer.table import tables


class FilterModule:
    """The tables as people read them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"probe_tables": tables}
