# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a path carries, by ping and iperf3: round trips, streams one way and both ways, packets of chosen sizes."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import InvalidInput, StepFailed
from ..programs import run

UDP_HEADERS = 28  # bytes: IPv4 and UDP
LEAST = UDP_HEADERS + 16  # iperf3 numbers its packets, and says when they were sent
MORE = 15  # seconds that a run may take beyond the asked ones
ATTEMPTS = 3  # a path that is full may break the connection that controls a run
BUSY = 20  # seconds that a server may still be busy with a run that broke off


def measure(address: str, sizes: Sequence[int], seconds: int) -> dict[str, Any]:
    """Round trip in ms, Mbit/s of TCP, and packets/s for each size of IP packets. Rates are those of the receiver.

    What does not get through has its reason in `failed` instead. Raises InvalidInput and MissingCapability.
    """
    for index, size in enumerate(sizes):
        if not LEAST <= size <= 65535:
            raise InvalidInput(f"sizes[{index}]", size, f"an IP packet of iperf3 has {LEAST} to 65535 bytes")
    found: dict[str, Any] = {"failed": {}, "packets": {}}
    found["rtt"] = _attempt(found, "ping", lambda: round_trip(address))
    rates = _attempt(found, "one way", lambda: tcp(_iperf3(address, seconds)))
    found["one_way"] = rates and rates[0]
    found["both_ways"] = _attempt(found, "both ways", lambda: tcp(_iperf3(address, seconds, "--bidir")))
    for size in sizes:
        found["packets"][str(size)] = _attempt(found, f"{size} bytes", partial(_flood, address, seconds, size))
    return found


def _attempt(found: dict[str, Any], what: str, action: Callable[[], Any]) -> Any:
    reason = ""
    for _number in range(ATTEMPTS):
        try:
            return action()
        except StepFailed as error:
            reason = error.reason
    found["failed"][what] = reason
    return None


def round_trip(address: str) -> float:
    """Mean of five, in ms."""
    argv = ["ping", "-n", "-q", "-c", "5", "-i", "0.2", "-W", "5", address]
    done = run(argv)
    match = re.search(r" = [\d.]+/([\d.]+)/", done.stdout)
    if match is None:
        raise StepFailed(" ".join(argv), (done.stderr or done.stdout).strip())
    return float(match[1])


def _iperf3(address: str, seconds: int, *options: str) -> Mapping[str, Any]:
    argv = ["iperf3", "--json", "--client", address, "--time", str(seconds), "--connect-timeout", "5000", *options]
    until = time.monotonic() + BUSY
    while True:
        try:
            done = run(argv, timeout=seconds + MORE)
        except subprocess.TimeoutExpired:
            raise StepFailed(" ".join(argv), f"no end within {seconds + MORE} s") from None
        try:
            result = json.loads(done.stdout)
        except ValueError:
            raise StepFailed(" ".join(argv), (done.stderr or done.stdout).strip()[-200:]) from None
        reason = result.get("error")
        if reason is None and isinstance(result, Mapping):
            return result
        if "busy" not in str(reason) or time.monotonic() > until:
            raise StepFailed(" ".join(argv), str(reason))
        time.sleep(0.5)  # the server gives up a client that has gone after some seconds


def _flood(address: str, seconds: int, size: int) -> int:
    return udp(_iperf3(address, seconds, "--udp", "--bitrate", "0", "--length", str(size - UDP_HEADERS)))


def tcp(result: Mapping[str, Any]) -> list[float]:
    """Mbit/s as received: forth, and back where there was a way back."""
    end = result["end"]
    ways = [end["sum_received"]] + ([end["sum_received_bidir_reverse"]] if "sum_received_bidir_reverse" in end else [])
    return [round(way["bits_per_second"] / 1e6, 3) for way in ways]


def udp(result: Mapping[str, Any]) -> int:
    """Packets per second as received."""
    end = result["end"]["sum"]
    return round((end["packets"] - end["lost_packets"]) / end["seconds"])
