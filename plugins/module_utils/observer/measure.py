# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A measurement: the load without and with the probes in turns, and what was seen, in units that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput
from . import hooks, limits, load, names
from .histogram import Histogram

PERCENTILES = (50, 90, 99)


def measure(
    code: bytes,
    probes: Sequence[str],
    interface: str,
    wanted: limits.Limits,
    commands: Sequence[Sequence[str]],
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """What was seen, as module probes returns it; times in µs if not said otherwise.

    `seconds`: what the programs may take, or how long to look where there are none. `rounds`: how often the programs
    run without and with the probes in turns; 0: once with them. Raises TestbedError.
    """
    if rounds and not commands:
        raise InvalidInput("rounds", rounds, "what the probes cost can only be said of commands that are run")
    runs = []
    if not probes:
        runs = [load.run(commands, seconds, False, _nobody) if commands else load.rest(seconds)]
        return result(hooks.Seen({}, {}, {}), runs)
    seen = []
    for _round in range(max(rounds, 1)):
        if rounds:
            runs.append(load.run(commands, seconds, False, _nobody))
        with hooks.attach(code, probes, interface, wanted) as standing:
            runs.append(load.run(commands, seconds, True, standing.choose) if commands else load.rest(seconds))
            seen.append(standing.seen())
    return result(hooks.together(seen), runs)


def _nobody(_process: int) -> None:
    pass


def result(seen: hooks.Seen, runs: Sequence[load.Run]) -> dict[str, Any]:
    """As data that JSON can hold."""
    return {
        "services": {str(port): _service(one) for port, one in seen.services.items()},
        "syscalls": {names.name(number): times(one) for number, one in seen.calls.items()},
        "programs": {name: {"runs": count, "ns": spent} for name, (count, spent) in seen.cost.items()},
        "runs": [one._asdict() for one in runs],
    }


def _service(one: hooks.Service) -> Mapping[str, Any]:
    return {**one._asdict(), "latency": times(one.latency)}


def times(one: Histogram) -> dict[str, Any]:
    """µs; `histogram`: the lower bound of each power of two (of nanoseconds), and how many were there."""
    return {
        "count": one.count,
        "mean": round(one.mean / 1000, 3),
        **{f"p{percent}": round(one.percentile(percent) / 1000, 3) for percent in PERCENTILES},
        "histogram": [[low / 1000, count] for low, count in one.powers()],
    }
