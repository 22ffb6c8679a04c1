# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: usb_stress_report
short_description: What runs of usb_stress have shown
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Makes rows, a table and a plot of what M(impair.testbed.usb_stress) returned.
options:
  _input:
    description: The runs, each with C(way), its name, and with C(tests) and C(first_connect) as the module returned them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: A table
  ansible.builtin.debug:
    msg: "{{ ([{'way': 'native'} | combine(run)] | impair.testbed.usb_stress_report).table }}"
"""

RETURN = r"""
_value:
  description: A mapping of C(rows), a list of mappings with times in seconds, C(table), a text, and C(plot), an SVG.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..module_utils.usb import stress_report


def usb_stress_report(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = stress_report.rows(runs)
    return {
        "rows": [row._asdict() for row in rows],
        "table": stress_report.table(rows),
        "plot": stress_report.plot(runs),
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"usb_stress_report": usb_stress_report}
