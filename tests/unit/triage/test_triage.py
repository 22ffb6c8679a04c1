# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of a triage, and what iperf3's results mean."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.triage import streams
from plugins.module_utils.triage.table import LINES, nanoseconds, packets_per_second, tables

ESP = {"rtt": 1.234, "one_way": 51.4, "both_ways": [27.2, 38.1], "packets": {"64": 6863, "1500": None}, "failed": {}}
RUN: dict[str, Any] = {
    "nodes": "uml, Linux 6.1.0",
    "cpus": 1,
    "modes": {
        "iptfs": {"lacks": "CONFIG_XFRM_IPTFS"},
        "routed": {**ESP, "failed": {"1500 bytes": "no end"}},
        "tunnel": ESP,
    },
}


def test_lines_carry_what_the_source_says() -> None:
    """Its table of 64 bytes, to the last digit."""
    assert [packets_per_second(64, line) for line in LINES] == [1225490, 12254901, 49019607, 122549019]
    assert [nanoseconds(64, line) for line in LINES] == [816, 81, 20, 8]


def test_the_tables() -> None:
    lines = tables([RUN, {**RUN, "cpus": 4}], [64, 1500], {"emulated": {"tunnel": "120", "iptfs": "2"}})
    assert len({line.index("path") for line in lines if "path" in line}) == 1
    place = "uml, Linux 6.1.0, 1 CPU"
    paths = [line.removeprefix(place).split()[0] for line in lines if line.startswith(f"{place}  ")]
    assert paths == ["routed", "IPsec", "IP-TFS"]
    assert any(line.split() == f"{place} IPsec 1.2 51 27 + 38 120".split() for line in lines)
    assert any(line.split() == f"{place} IP-TFS - - - 2".split() for line in lines)
    sizes = [line.split() for line in lines if line.startswith(("64 ", "1500 "))]
    assert len(sizes) == 4
    assert sizes[0][-5:] == ["6863", "145708ns", "6863", "145708ns", "-"]
    assert sizes[1] == [
        "1500",
        "81274",
        "12304ns",
        "812743",
        "1230ns",
        "3250975",
        "307ns",
        "8127438",
        "123ns",
        "-",
        "-",
        "-",
    ]
    assert f"{place}, IP-TFS: CONFIG_XFRM_IPTFS" in lines and f"{place}, routed: 1500 bytes: no end" in lines
    assert all(line == line.rstrip() for line in lines)


def test_results_are_the_receivers() -> None:
    end = {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 51.4e6}}
    assert streams.tcp({"end": end}) == [51.4]
    assert streams.tcp({"end": {**end, "sum_received_bidir_reverse": {"bits_per_second": 2e6}}}) == [51.4, 2.0]
    assert streams.udp({"end": {"sum": {"packets": 30000, "lost_packets": 10000, "seconds": 2.0}}}) == 10000


def test_sizes_that_iperf3_cannot_send_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"sizes\[1\]"):
        streams.measure("192.0.2.1", [64, 40], 1)
