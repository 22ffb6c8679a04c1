# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a netem can be asked for, as immutable values in kernel units."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_LIMIT = 1000
JITTER_MAX = 2**31 - 1  # ns


class Chance(NamedTuple):
    """A probability and its correlation with the packet before, in 1/(2^32 - 1)."""

    probability: int = 0
    correlation: int = 0


class GilbertElliott(NamedTuple):
    """Gilbert-Elliott loss as the kernel holds it: p good to bad, r bad to good, h delivery in bad, k1 loss in good."""

    p: int
    r: int
    h: int
    k1: int


class FourState(NamedTuple):
    """4-state Markov loss: transition probabilities, in the order of tc_netem_gimodel."""

    p13: int
    p31: int
    p32: int
    p14: int
    p23: int


class Distribution(NamedTuple):
    """How delays lie about their mean: a word of tc-netem(8), or `table` for a user's own; see distribution.py.

    identity: 32 bits that tell one table from another, 0 where there is none. table: the numbers of a user's own, empty
    where only its identity was read. mean and deviation: in ns, of the delays that it was made of.
    """

    name: str
    identity: int
    table: bytes = b""
    mean: int = 0
    deviation: int = 0

    @property
    def text(self) -> str:
        """As tc takes it; of a user's own table a name by which it would be a file of tc."""
        return f"table-{self.identity:08x}" if self.name == "table" else self.name


UNIFORM = Distribution("uniform", 0)


class Slot(NamedTuple):
    """Packets gathered into slots: times in ns, 0 packets or bytes: no bound.

    The time between slots lies between min_delay and max_delay, or, where distribution_jitter is not 0, about
    distribution_delay as `distribution` says.
    """

    min_delay: int = 0
    max_delay: int = 0
    packets: int = 0
    bytes: int = 0
    distribution_delay: int = 0
    distribution_jitter: int = 0
    distribution: Distribution = UNIFORM


class Netem(NamedTuple):
    """Times in ns, rate in bytes per second (0: none), probabilities in 1/(2^32 - 1), limit in packets."""

    delay: int = 0
    jitter: int = 0
    delay_correlation: int = 0
    loss: Chance | GilbertElliott | FourState = Chance()
    duplicate: Chance = Chance()
    reorder: Chance = Chance()
    gap: int = 0
    corrupt: Chance = Chance()
    rate: int = 0
    packet_overhead: int = 0
    cell_size: int = 0
    cell_overhead: int = 0
    slot: Slot = Slot()
    limit: int = DEFAULT_LIMIT
    ecn: bool = False
    seed: int | None = None  # None: the kernel's choice
    distribution: Distribution = UNIFORM
