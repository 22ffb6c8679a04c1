# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probe of nftables' counting of what a bridge forwards, in the throwaway namespace of the caller."""

from __future__ import annotations

import subprocess

from ..capabilities import Finding
from ..programs import find, run

_TABLE = """table bridge probe {
  chain count { numgen inc mod 20 19 drop; }
  chain forward { type filter hook forward priority 0; meta protocol 0x800 goto count; }
}
"""


def probe() -> dict[str, Finding]:
    option = "CONFIG_NF_TABLES_BRIDGE and CONFIG_NFT_NUMGEN"
    if find("nft") is None:
        return {"nft.bridge": Finding("the program nft")}
    try:
        done = run(["nft", "-f", "-"], _TABLE)
    except subprocess.TimeoutExpired:
        return {"nft.bridge": Finding(f"{option} (nft did not answer)", False)}
    if done.returncode:
        said = done.stderr.strip().splitlines()[:1]
        return {"nft.bridge": Finding(f"{option} (nft says: {' '.join(said)})")}
    return {"nft.bridge": Finding(True)}
