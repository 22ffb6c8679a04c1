# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call: the tunnels that are asked, and no other of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..converge import Report, Target, converge
from ..errors import MissingCapability
from ..node import controller
from .asked import compile_tunnels, with_common
from .domain import XfrmDomain
from .support import check_support, open_kernel


def hold(tunnels: Sequence[Mapping[str, Any]], check: bool = False, **common: Any) -> Report:
    """Bring the node to these tunnels. `common` is what a tunnel that does not say it has.

    Raises TestbedError, with nothing touched, where that cannot be.
    """
    desired = compile_tunnels(with_common(tunnels, common), controller=controller())
    try:
        kernel = open_kernel()
    except MissingCapability:
        if tunnels:
            raise
        return converge([], check)  # a kernel without IPsec holds none of ours
    with kernel:
        if tunnels:
            check_support(desired)
        domain = XfrmDomain(kernel)
        domain.claim(desired)
        return converge([Target(domain, desired)], check)
