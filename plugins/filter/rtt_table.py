# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rtt_table
short_description: Round trips beside somebody else's
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - A table of the round trips that the role P(impair.testbed.rtt#role) measured, beside figures of others.
positional: figures
options:
  _input:
    description: What was measured, with C(host) and C(paths).
    type: dict
    required: true
  figures:
    description: Figures of others in ms, each with C(card), C(min), C(avg), C(max) and C(mdev).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What was measured
  ansible.builtin.debug:
    msg: "{{ run | impair.testbed.rtt_table({}) }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ..module_utils.rtt import table


class FilterModule:
    """The table as people read it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rtt_table": table}
