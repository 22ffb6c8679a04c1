# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of nodes that `lab_node_kind` may name."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Driver
from .board import Board
from .netns import Netns
from .qemu import Qemu
from .uml import Uml

DRIVERS: Mapping[str, Driver] = {"uml": Uml(), "qemu": Qemu(), "netns": Netns(), "board": Board()}
LIVE = frozenset(kind for kind, driver in DRIVERS.items() if driver.live)
