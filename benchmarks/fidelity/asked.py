# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured, and what the figures should be."""

from __future__ import annotations

from typing import Any, NamedTuple


class Train(NamedTuple):
    """So many packets, `rate` a second, in frames of `size` bytes."""

    packets: int
    rate: float
    size: int = 128


class Asked(NamedTuple):
    """A row: its part of the page, the impairment as a user writes it, the packets, and what ought to be seen.

    `expected` is in the part's unit (see PARTS); for bursts it is their mean length.
    """

    part: str
    impairment: dict[str, Any]
    train: Train
    expected: float
    note: str = ""


PARTS = {
    "delay": "Delay (ms above the unimpaired way: the median, and where half and nine of ten of the packets lie)",
    "jitter": "Jitter (standard deviation in ms; 50 ms of delay)",
    "loss": "Loss (per cent, with its 95 % interval)",
    "burst": "Losses in a row (mean number)",
    "share": "Duplicated, damaged, reordered and dropped packets (per cent, with the 95 % interval)",
    "rate": "Rate (kbit/s of layer 2 at the receiver, offered 1.5 times as much)",
}
TOLERANCE = {"delay": "±1 ms", "jitter": "±10 %", "rate": "±2 %"}
JITTER = {"delay": "50ms", "jitter": "10ms"}
EVEN = 10 / 3**0.5  # the deviation of what lies evenly within ±10 ms
LOSSES: list[tuple[Any, float, float]] = [
    ("1%", 1, 1 / 0.99),
    ("10%", 10, 1 / 0.9),
    ({"random": "10%", "correlation": "25%"}, 10, 0),
    ({"gemodel": {"p": "1%", "r": "10%"}}, 100 / 11, 10),
    ({"gemodel": {"p": "5%", "r": "50%", "1-h": "80%", "1-k": "1%"}}, (5 * 0.8 + 50 * 0.01) / 0.55, 0),
    ({"state": {"p13": "1%", "p31": "10%"}}, 100 / 11, 10),
]
LONG = Train(20_000, 5_000)


def everything() -> list[Asked]:
    """All rows, in the order of the page."""
    rows = [Asked("delay", {"delay": f"{ms}ms"}, Train(400, 200), ms) for ms in (1, 2, 5, 10, 20, 50, 100, 200, 500)]
    for order in (True, False):
        note = "in order" if order else "keep_order: false"
        keep: dict[str, Any] = {} if order else {"keep_order": False}
        rows.append(Asked("jitter", {**JITTER, **keep}, Train(2000, 500), EVEN, note))
        for name in ("normal", "pareto", "paretonormal"):
            rows.append(Asked("jitter", {**JITTER, "distribution": name, **keep}, Train(2000, 500), 10, note))
    for loss, share, burst in LOSSES:
        rows.append(Asked("loss", {"loss": loss}, LONG, share))
        if burst:
            rows.append(Asked("burst", {"loss": loss}, LONG, burst))
    short = Train(10_000, 5_000)
    rows.append(Asked("share", {"duplicate": "5%"}, short, 5, "duplicated"))
    rows.append(Asked("share", {"corrupt": "5%"}, Train(10_000, 2_000, 1514), 5, "damaged"))
    rows.append(Asked("share", {"delay": "10ms", "reorder": "25%"}, Train(4000, 500), 25, "sent at once"))
    rows.append(Asked("share", {"drop": {"every": 20}}, short, 5, "dropped, each 20th and no other"))
    for kbit in (64, 128, 1_000, 10_000, 100_000):
        size = 500 if kbit < 1000 else 1514
        offered = 1.5 * kbit * 1000 / 8 / size
        rows.append(Asked("rate", {"rate": f"{kbit}kbit"}, Train(int(offered * 6), offered, size), kbit))
    return rows
