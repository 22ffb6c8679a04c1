# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of a measurement: requests by port, histograms, system calls, processor time, what probes cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 50  # characters of a histogram's longest bar
MOST_CALLS = 12
Rows = list[tuple[str, ...]]


def tables(result: Mapping[str, Any]) -> list[str]:
    """Lines of text, of what module probes returns."""
    observed = [one for one in result["runs"] if one["observed"]]
    lines = []
    if result["services"]:
        lines += ["Requests by port; times in µs, the client's own beside those at its interface", ""]
        lines += _columns([*_services(result["services"], observed)])
    for port, one in result["services"].items():
        if one["latency"]["count"]:
            lines += ["", f"Latency of requests to port {port}", "", *_bars(one["latency"]["histogram"])]
    if result["syscalls"]:
        calls = sorted(result["syscalls"].items(), key=lambda item: -item[1]["mean"] * item[1]["count"])
        lines += ["", "System calls, those that took longest together; µs", ""]
        lines += _columns([*_calls(calls[:MOST_CALLS])])
        lines += ["", f"Latency of {calls[0][0]}", "", *_bars(calls[0][1]["histogram"])]
    lines += ["", "Processor time, and what the probes cost", "", *_columns([*_processor(result["runs"])])]
    if result["programs"]:
        lines += ["", *_columns([*_programs(result["programs"], sum(one["seconds"] for one in observed))])]
    return lines


def clients(runs: Sequence[Mapping[str, Any]], port: str = "") -> list[Mapping[str, Any]]:
    """What clients of ours said in these runs, of one port or of all."""
    said = [one for run in runs for one in run["said"] if isinstance(one, Mapping) and "per_second" in one]
    return [one for one in said if port in ("", str(one.get("port")))]


def _services(services: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    yield (
        *("port", "requests", "per s", "kB/s out", "kB/s in", "mean", "p50", "p90", "p99"),
        *("client's mean", "p50", "p99", "retransmitted", "seen again"),
    )
    for port, one in services.items():
        latency, own = one["latency"], clients(runs, port)
        seconds = sum(run["seconds"] for run in own or runs) or 1  # a client's own is without what it takes to start
        yield (
            port,
            str(latency["count"]),
            _number(latency["count"] / seconds),
            _number(one["bytes_out"] / seconds / 1000),
            _number(one["bytes_in"] / seconds / 1000),
            *(_number(latency[name]) for name in ("mean", "p50", "p90", "p99")),
            *(_number(_weighted(own, name)) for name in ("mean", "p50", "p99")),
            str(one["retransmitted"]),
            str(one["again"]),
        )


def _weighted(said: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Of several runs, by their requests: exact for means, near for the rest."""
    requests = sum(one["requests"] for one in said)
    return sum(one["latency"][name] * one["requests"] for one in said) / requests if requests else None


def _calls(calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, ...]]:
    yield "call", "calls", "ms together", "mean", "p50", "p90", "p99"
    for name, one in calls:
        times = (_number(one[key]) for key in ("mean", "p50", "p90", "p99"))
        yield name, str(one["count"]), _number(one["mean"] * one["count"] / 1000), *times


def _processor(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    heads = ("requests per s", "client µs a request", "user s", "system s", "machine s", "observer s")
    yield "probes", "runs", "seconds", *heads
    for words, observed in (("without", False), ("with", True)):
        these = [one for one in runs if one["observed"] == observed]
        if not these:
            continue
        total = {name: sum(one[name] for one in these) for name in ("seconds", "user", "system", "busy", "own")}
        said = clients(these)
        requests = sum(one["requests"] for one in said)
        each = (total["user"] + total["system"]) * 1e6 / requests if requests else None
        rate = sum(one["per_second"] for one in said) / len(these) if said else None
        spent = (_number(total[name]) for name in ("user", "system", "busy", "own"))
        yield words, str(len(these)), _number(total["seconds"]), _number(rate), _number(each), *spent


def _programs(programs: Mapping[str, Any], seconds: float) -> Iterator[tuple[str, ...]]:
    yield "probe", "runs", "ns a run", "% of one processor"
    for name, one in programs.items():
        each = one["ns"] / one["runs"] if one["runs"] else None
        yield name, str(one["runs"]), _number(each), _number(one["ns"] / 1e7 / seconds if seconds else None)


def _bars(counts: Sequence[Sequence[float]]) -> list[str]:
    most = max(count for _low, count in counts)
    rows: Rows = [("µs from", "count", "")]
    rows += [(_number(low), str(int(count)), "#" * round(WIDTH * count / most)) for low, count in counts]
    return _columns(rows)


def _number(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [shown[0], "  ".join("-" * width for width in widths if width), *shown[1:]]
