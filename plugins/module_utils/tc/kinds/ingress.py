# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ingress and clsact: no queues, only places for filters (net/sched/sch_ingress.c, tc(8)).

ingress holds filters for what arrives; clsact the same, and filters for what leaves, before the root qdisc.
"""

from __future__ import annotations

from typing import NamedTuple

from .base import Kind


class Hook(NamedTuple):
    """They have no options."""


def _kind(name: str) -> Kind:
    return Kind(name, {}, Hook, lambda _options: b"", lambda _data: Hook(), lambda _options: "")


INGRESS, CLSACT = _kind("ingress"), _kind("clsact")
