# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every probe, in one throwaway namespace."""

from __future__ import annotations

from .. import netlink
from ..capabilities import Finding
from ..errors import StepFailed
from ..namespace import throwaway_namespace
from . import nftables, traffic, xtables


def probe_all(bridge_netfilter: bool) -> dict[str, Finding]:
    """Name → what was found. `bridge_netfilter`: whether br_netfilter is loaded already."""
    purpose = "finding out what this node can do"
    with throwaway_namespace(purpose), netlink.Socket() as kernel:
        try:
            return {**traffic.probe(kernel), **xtables.probe(bridge_netfilter), **nftables.probe()}
        except netlink.NetlinkError as error:  # of a request that cannot fail on a healthy kernel
            raise StepFailed(purpose, str(error)) from error
