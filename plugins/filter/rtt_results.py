# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rtt_results
short_description: Round trips out of what ping said
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Takes what a loop of ping over paths registered, and gives how many came back, and the figures of ping's last line in ms.
options:
  _input:
    description: The results of the loop.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: What was measured
  ansible.builtin.debug:
    msg: "{{ pings.results | impair.testbed.rtt_results }}"
"""

RETURN = r"""
_value:
  description: For each path C(name), C(figure), C(sent), C(received), C(min), C(avg), C(max), C(mdev) and C(failed).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ..module_utils.rtt import results


class FilterModule:
    """The figures as programs read them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rtt_results": results}
