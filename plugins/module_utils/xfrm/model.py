# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IPsec states and policies as immutable values in kernel units (linux/xfrm.h, ip-xfrm(8))."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import NamedTuple

TUNNEL, IPTFS = 1, 5  # XFRM_MODE_TUNNEL, XFRM_MODE_IPTFS (RFC 9347; Linux 6.14)
MODES = {TUNNEL: "tunnel", IPTFS: "iptfs"}
DIRECTIONS = {"in": 0, "out": 1, "fwd": 2}  # XFRM_POLICY_IN …
OWNED = 0x0E570000  # the upper half of a reqid of ours; the lower one is the tunnel's
OWNED_MASK = 0xFFFF0000
_SALT = os.urandom(16)  # so that the digests of one run say nothing about keys outside of it


def owned(reqid: int) -> bool:
    """Whether a state, or a policy's template, with this reqid is ours."""
    return reqid & OWNED_MASK == OWNED


class Key:
    """A key that shows itself to the kernel alone: texts have a digest of it, which is another one in each run."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self.data, other.data)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"(key {hmac.new(_SALT, self.data, hashlib.sha256).hexdigest()[:8]})"


class Algorithm(NamedTuple):
    """One algorithm of a state. `role`: aead, auth-trunc or enc, as ip-xfrm(8) says; `icv` bits of the check value."""

    role: str
    name: str
    key: Key
    icv: int = 0


class Iptfs(NamedTuple):
    """Options of RFC 9347's mode as the kernel holds them; those of the other direction are 0."""

    packet_size: int = 0  # bytes of an outer packet; 0: what the path takes
    dont_fragment: bool = False
    init_delay: int = 0  # µs
    max_queue: int = 0  # bytes
    drop_time: int = 0  # µs
    reorder_window: int = 0  # packets


class Count(NamedTuple):
    """Sequence numbers: the last one sent, the highest received."""

    sent: int = 0
    received: int = 0


class State(NamedTuple):
    """A security association. `direction` in or out where the mode wants to know it, else empty."""

    source: str
    destination: str
    spi: int
    reqid: int
    mode: int
    algorithms: tuple[Algorithm, ...]
    window: int = 0  # packets in which a replay is noticed; 0: none, and numbers of 32 bits that may wrap
    direction: str = ""
    iptfs: Iptfs | None = None
    flags: int = 0  # foreign ones, which an own state has not
    numbers: Count = Count()  # no part of what is asked

    @property
    def identity(self) -> tuple[str, int]:
        """What the kernel tells ESP states by."""
        return self.destination, self.spi

    def same(self, other: State) -> bool:
        return self._replace(numbers=Count()) == other._replace(numbers=Count())


class Selector(NamedTuple):
    """The packets that a policy takes."""

    source: str
    destination: str


class Policy(NamedTuple):
    """What has to pass a tunnel in one direction: packets that did not are dropped on arrival."""

    direction: str
    selector: Selector
    source: str  # of the outer packets
    destination: str
    reqid: int
    mode: int
    priority: int = 0
    foreign: str = ""  # what in it is not as ours are

    @property
    def identity(self) -> tuple[str, Selector]:
        return self.direction, self.selector


class Xfrm(NamedTuple):
    """All states and policies of ours in a network namespace."""

    states: tuple[State, ...] = ()
    policies: tuple[Policy, ...] = ()
