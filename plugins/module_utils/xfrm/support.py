# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this kernel can do what is asked, found by trying."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import MissingCapability
from ..namespace import throwaway_namespace
from ..netlink import Socket
from . import codec
from .model import IPTFS, MODES, TUNNEL, State, Xfrm


def open_kernel() -> Socket:
    """A socket that speaks of IPsec; raises MissingCapability where the kernel has none."""
    try:
        return Socket(codec.NETLINK_XFRM)
    except OSError as error:
        raise MissingCapability("IPsec", f"CONFIG_XFRM_USER (the kernel says: {error.strerror})") from error


def check_support(desired: Xfrm) -> None:
    """Try one state of each mode and algorithm in a namespace of its own; raise MissingCapability naming the option."""
    tried: set[tuple[object, ...]] = set()
    with throwaway_namespace("trying what IPsec of this kernel can do"), open_kernel() as kernel:
        # By the plainest first: of a kernel without ESP it is not said that it lacks IPTFS.
        for state in sorted(desired.states, key=lambda one: one.mode):
            names = tuple(one.name for one in state.algorithms)
            plain = state._replace(mode=TUNNEL, direction="", iptfs=None, window=0)
            for trial in (plain, state):
                kind = (trial.mode, names, bool(trial.window), trial.direction, ":" in trial.destination)
                if kind in tried:
                    continue
                tried.add(kind)
                for refusal in kernel.send([codec.encode_state(trial)]):
                    feature = _feature(trial, names)
                    raise MissingCapability(
                        f"mode {MODES[trial.mode]}", f"{feature} (the kernel says: {refusal.reason})"
                    )
                kernel.request(codec.encode_deletion(trial))


def _feature(state: State, names: Sequence[str]) -> str:
    if state.mode == IPTFS:
        return "CONFIG_XFRM_IPTFS of Linux 6.14 or later"
    protocol = "CONFIG_INET6_ESP" if ":" in state.destination else "CONFIG_INET_ESP"
    if any("gcm" in name for name in names):
        return f"{protocol} and CONFIG_CRYPTO_GCM"
    return f"{protocol}, CONFIG_CRYPTO_CBC, CONFIG_CRYPTO_AUTHENC and CONFIG_CRYPTO_SHA256"
