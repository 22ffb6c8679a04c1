# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests over a link that delays, as the probes see them; test_probes_uml.py runs this; not collected elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as File

import pytest

from plugins.module_utils.errors import MissingCapability
from plugins.module_utils.observer import limits
from plugins.module_utils.observer.measure import measure
from tests.integration.engine import inside
from tests.integration.path import Path, path
from tests.integration.places import CHECKOUT, run

TRAFFIC = str(CHECKOUT / "roles/probes/files/traffic.py")
CODE = File("/run/out/observe.o")
PORT = 23324
DELAY = 20  # ms


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    run(["modprobe", "ipv6"])
    with path("router") as found:
        found.n.run(["tc", "qdisc", "add", "dev", "n0", "root", "netem", "delay", f"{DELAY}ms"])
        pidfile = "/run/server"
        found.r.run(["python3", TRAFFIC, "server", "8", "echo", "4000", f"[::]:{PORT}", "--daemon", pidfile])
        try:
            yield found
        finally:
            os.kill(int(File(pidfile).read_text()), 9)


@pytest.mark.parametrize("family", [4, 6])
def test_the_delay_of_a_link_is_what_requests_take(made: Path, family: int) -> None:
    """Requests and answers of several segments: the first one out to the first one in, so one delay."""
    address = made.address("r", family)
    where = f"[{address}]:{PORT}" if family == 6 else f"{address}:{PORT}"
    client = ["python3", TRAFFIC, "client", "2", "echo", "4000", where, "--seconds", "2", "--linger"]
    with inside(made.s):
        result = measure(CODE.read_bytes(), ["requests"], "s0", limits.parse([], None, True), [client], 100, 0)
    (own,) = result["runs"][0]["said"]
    seen = result["services"][str(PORT)]
    means = f"{seen['latency']['mean']} µs by the probe, {own['latency']['mean']} by the client"
    print(f"IPv{family}: {own['requests']} requests, mean {means}")
    assert seen["latency"]["count"] == own["requests"] > 10
    assert (seen["bytes_out"], seen["bytes_in"]) == (own["bytes_out"], own["bytes_in"])
    assert 1000 * DELAY <= seen["latency"]["mean"] <= own["latency"]["mean"] < 3000 * DELAY
    assert 800 * DELAY < seen["latency"]["p50"] < 2000 * DELAY


@pytest.mark.parametrize("hook", ["retransmissions", "syscalls"])
def test_what_this_kernel_lacks_is_named(made: Path, hook: str) -> None:
    with inside(made.s), pytest.raises(MissingCapability, match=f"to observe {hook} needs .*CONFIG_DEBUG_INFO_BTF"):
        measure(CODE.read_bytes(), [hook], "s0", limits.parse([], None, True), [["true"]], 100, 0)
    assert "clsact" not in made.s.run(["tc", "qdisc", "show"]).stdout
