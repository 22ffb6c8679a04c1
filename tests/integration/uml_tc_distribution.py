# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delay distributions, judged by packets: what a kernel holds of them no dump shows. Run by test_tc_uml.py."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import RolledBack
from tests.integration.engine import Bench, Prompt, inside
from tests.integration.places import Netns
from tests.integration.test_tc import htb
from tests.integration.uml_tc_queues import at

PACKETS, TOGETHER = 1500, 10  # so many at a time, 2 ms apart
TWO_HUMPS = ["20ms"] * 3 + ["40ms"]


@pytest.fixture
def loopback(place: Netns, prompt: Prompt, tmp_path: Path) -> Any:
    bench = Bench(place, prompt, "lo", tmp_path / "memory")
    yield bench
    bench.clear()


def tree(**netem: Any) -> dict[str, Any]:
    return {"qdiscs": [{"parent": "root", "handle": "1:", "kind": "netem", "limit": 5000, **netem}]}


def delays(bench: Bench) -> list[float]:
    """Milliseconds that each of PACKETS took over the loopback interface."""
    found: list[float] = []
    with inside(bench.place):
        receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _end in range(2))
    with receiver, sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
        receiver.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS: when the kernel got it
        receiver.settimeout(5)
        sender.connect(receiver.getsockname())
        for number in range(PACKETS):
            if number % TOGETHER == 0:
                time.sleep(0.002)
            sender.send(struct.pack("=Q", time.clock_gettime_ns(time.CLOCK_REALTIME)))
        while len(found) < PACKETS:
            data, ancillary, _flags, _address = receiver.recvmsg(64, 64)
            seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
            found.append((seconds * 10**9 + nanoseconds - struct.unpack("=Q", data)[0]) / 1e6)
    return found


def moments(values: list[float]) -> tuple[float, float, float]:
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return mean, deviation, sum((value - mean) ** 3 for value in values) / len(values) / deviation**3


def share(values: list[float], least: float, most: float) -> float:
    return sum(least <= value <= most for value in values) / len(values)


def test_each_distribution_by_change_and_uniform_again(loopback: Bench) -> None:
    """50 ms ± 10 ms: what theory says of each, and one change message from one to the next."""
    seen: dict[str, list[float]] = {}
    for word in ("uniform", "normal", "pareto", "paretonormal", "uniform"):
        wanted = tree(delay="50ms", jitter="10ms", distribution=word)
        steps = loopback.run(wanted).steps
        assert len(steps) == 1
        assert steps[0].startswith("tc qdisc change " if seen else "tc qdisc add ")
        assert not loopback.run(wanted).changed
        seen[word] = delays(loopback)
        assert moments(seen[word])[0] == pytest.approx(50, abs=1.5)
    mean_deviation = {word: moments(values)[1] for word, values in seen.items()}
    assert mean_deviation["uniform"] == pytest.approx(5.8, abs=0.6)  # measured after the others: their table is gone
    assert share(seen["uniform"], 39.9, 62) > 0.99
    assert mean_deviation["normal"] == pytest.approx(10, abs=1)
    assert share(seen["normal"], 40, 60) == pytest.approx(0.683, abs=0.06)
    assert mean_deviation["pareto"] == pytest.approx(8.2, abs=1.2)
    assert share(seen["pareto"], 0, 43) < 0.01  # it starts at its least delay
    assert moments(seen["pareto"])[2] > 1.5
    assert moments(seen["paretonormal"])[2] > 1
    assert share(seen["paretonormal"], 0, 43) > 0.05


def test_measured_delays(loopback: Bench) -> None:
    loopback.run(tree(delay="50ms", jitter="10ms", distribution="normal"))
    loopback.run(tree(distribution=TWO_HUMPS))
    assert not loopback.run(tree(distribution=TWO_HUMPS)).changed
    found = delays(loopback)
    assert share(found, 19.9, 22) == pytest.approx(0.75, abs=0.05)
    assert share(found, 39.9, 42) == pytest.approx(0.25, abs=0.05)
    (step,) = loopback.run(tree(distribution=["20ms", "40ms"])).steps
    assert step.startswith("tc qdisc change ")
    assert share(delays(loopback), 19.9, 22) == pytest.approx(0.5, abs=0.06)


def test_a_change_that_fails_gives_measured_delays_back(loopback: Bench) -> None:
    """The kernel shows no table: the numbers come from what the node remembers."""
    loopback.run(tree(distribution=TWO_HUMPS))
    wrong = tree(delay="5ms", jitter="1ms", distribution="normal")
    wrong["qdiscs"].append({"parent": "1:1", "kind": "bfifo", "limit": "9kB"})
    wrong["qdiscs"].append({"kind": "clsact"})
    wrong["filters"] = [
        {
            "parent": "ingress",
            "prio": 1,
            "kind": "u32",
            "match": ["u32 0 0"],
            "flowid": "1:1",
            "indev": "no-such-device",
        }
    ]
    with pytest.raises(RolledBack, match=r"the state before was restored"):
        loopback.run(wrong)
    assert not loopback.run(tree(distribution=TWO_HUMPS)).changed
    assert share(delays(loopback), 39.9, 42) == pytest.approx(0.25, abs=0.05)


def test_slots_that_follow_a_distribution(loopback: Bench) -> None:
    """Packets leave together, about 20 ms apart; without the table the netem has to be a new one."""
    loopback.run(tree(slot={"distribution": "normal", "delay": "20ms", "jitter": "1ms"}))
    found = delays(loopback)
    assert 15 < max(found) < 40
    assert share(found, 0, 24) > 0.9
    steps = loopback.run(tree(slot={"min": "5ms"})).steps
    assert any("disruptive" in step for step in steps)
    assert max(delays(loopback)) < 15


def test_many_tables_at_once(loopback: Bench) -> None:
    """8 kB each: more than a socket takes in one go."""
    lanes = range(10, 50)
    leaves = [at(f"1:{lane}", "netem", f"{lane}:", distribution=["9ms", f"{lane}ms"]) for lane in lanes]
    wanted = htb(*({"classid": f"1:{lane}"} for lane in lanes), qdiscs=leaves)
    assert loopback.run(wanted).changed
    assert not loopback.run(wanted).changed
    assert loopback.run(state="absent").changed
