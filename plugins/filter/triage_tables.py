# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: triage_tables
short_description: The tables of a triage
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Puts what M(impair.testbed.triage) measured beside what lines of 1 to 100 Gbit/s carry, and beside the figures of others.
positional: sizes, others
options:
  _input:
    description: Runs, each with C(nodes), C(cpus) and C(modes).
    type: list
    elements: dict
    required: true
  sizes:
    description: Sizes of IP packets.
    type: list
    elements: int
    required: true
  others:
    description: Columns of figures, each a mapping of modes to texts.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What was measured
  ansible.builtin.debug:
    msg: "{{ runs | impair.testbed.triage_tables([64, 1500], {}) }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ..module_utils.triage.table import tables


class FilterModule:
    """The tables as people read them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"triage_tables": tables}
