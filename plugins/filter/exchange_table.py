# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: exchange_table
short_description: What two nodes exchanged, as a table
version_added: 0.1.0
author:
  - impair.testbed contributors (@impair-testbed)
description:
  - Renders rows of measured rates, with the figures of a source beside them.
  - Used by the role P(impair.testbed.exchange#role), which measures the rows.
positional: source
options:
  _input:
    description: Rows, each with C(what), C(server), C(client), C(good) and, as it applies, C(bytes), C(buffer), C(rate) and C(median).
    type: list
    elements: dict
    required: true
  source:
    description:
      - Figures from elsewhere, each with C(rate) in bytes/s or C(median) in µs.
      - What else an entry says chooses the rows that it belongs to. The first that fits counts.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Beside the source's figure
  ansible.builtin.debug:
    msg: "{{ rows | impair.testbed.exchange_table([{'what': 'get', 'bytes': 1024000, 'rate': 958636}]) }}"
  vars:
    rows: [{what: get, server: node0, client: node1, bytes: 1024000, buffer: 65536, rate: 20000000.0, good: true}]
"""

RETURN = r"""
_value:
  description: The table, in lines of text.
  type: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils import exchange


def exchange_table(rows: Sequence[Mapping[str, Any]], source: Sequence[Mapping[str, Any]] = ()) -> str:
    return exchange.render(rows, source)


class FilterModule:
    """The collection's filter for tables of what was exchanged."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"exchange_table": exchange_table}
