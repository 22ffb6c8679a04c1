# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packets are missing when nftables drops every nth of what a bridge forwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.errors import InvalidInput, MissingCapability
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.path import Capture, Path, numbered, path, send
from tests.integration.wire import sh

PORT, COUNT = 5000, 1000


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    load()
    with path("bridge") as found:
        yield found


@pytest.fixture
def node(made: Path) -> Iterator[Path]:
    """Inside the node in between, which has a table of somebody else."""
    with inside(made.n):
        sh("nft add table bridge others; nft add chain bridge others c '{ type filter hook forward priority 5; }'")
        before = sh("nft list ruleset")
        yield made
        engine.clear()
        assert sh("nft list ruleset") == before
        sh("nft delete table bridge others")


def asked(every: int, packet: int, match: Any = None, device: str = "n1") -> dict[str, Any]:
    first = {"name": "first", "match": {"bridged": True, "protocol": "udp", "destination_port": 7}}
    counted = match or {"bridged": True, "protocol": "udp", "destination_port": f"{PORT}-{PORT + 9}"}
    drop = {"every": every, "packet": packet, "backend": "nft"}
    return {"name": device, "classes": [first, {"name": "counted", "match": counted, "drop": drop}, {"name": "rest"}]}


def missing(made: Path, count: int = COUNT, family: int = 4, first: int = 0, port: int = PORT) -> list[int]:
    capture = Capture(made.r, "r0")
    send(made, count, port, family=family, first=first)
    found = numbered(capture.frames(), port)
    capture.close()
    return sorted(set(range(first, first + count)) - set(found))


@pytest.mark.parametrize(("every", "packet"), [(2, 0), (20, 0), (20, 7), (20, 19), (333, 5)])
@pytest.mark.parametrize("family", [4, 6])
def test_exactly_the_asked_places_are_missing(node: Path, every: int, packet: int, family: int) -> None:
    out = engine.apply([asked(every, packet)], [])
    assert [one["backend"] for one in out.backends if one["impairment"] == "drop"] == ["nft"]
    assert missing(node, family=family) == list(range(packet, COUNT, every))
    assert not missing(node, port=7)


def test_a_second_run_changes_nothing_and_the_count_goes_on(node: Path) -> None:
    engine.apply([asked(7, 3), asked(5, 1, device="n0")], [])
    assert missing(node, 10) == [3]
    assert not engine.apply([asked(7, 3), asked(5, 1, device="n0")], []).report.changed
    assert missing(node, 10, first=10) == [10, 17]
    steps = engine.apply([asked(7, 3), asked(6, 1, device="n0")], []).report.steps
    assert len(steps) == 1 and steps[0].startswith("nft -f -")  # the other port's table, and its count, stay
    assert missing(node, 10, first=20) == [24]


def test_what_somebody_changed_in_the_table_is_put_right(node: Path) -> None:
    engine.apply([asked(7, 3)], [])
    shown = sh("nft list ruleset")
    name = next(line.split()[2] for line in shown.splitlines() if "impair_testbed" in line)
    sh(f"nft flush chain bridge {name} class_1")
    assert engine.apply([asked(7, 3)], []).report.changed
    assert sh("nft list ruleset") == shown


@pytest.mark.parametrize(
    "match",
    [
        {"bridged": True, "source": "10.7.0.0/30", "dscp": 0},
        {"bridged": True, "in_interface": "n0", "protocol": "udp", "not": {"destination_port": 7}},
        {"bridged": True, "protocol": "udp", "port": PORT, "not": {"source": "10.7.0.64/26"}},
        {"bridged": True, "mark": "0x0/0x8", "protocol": "ipv4"},
        [{"bridged": True, "protocol": "tcp"}, {"bridged": True, "destination": "10.7.0.2", "protocol": 17}],
    ],
)
def test_matches(node: Path, match: Any) -> None:
    if "mark" in match and load()["filter.u32_mark"] is not True:
        with pytest.raises(MissingCapability, match="CONFIG_CLS_U32_MARK"):
            engine.apply([asked(10, 4, match)], [])
        return
    engine.apply([asked(10, 4, match)], [])
    assert missing(node, 100) == list(range(4, 100, 10))
    assert not engine.apply([asked(10, 4, match)], []).report.changed


def test_what_it_cannot_see_is_refused(node: Path) -> None:
    before = sh("nft list ruleset; tc qdisc show")
    for entry in (asked(7, 3, {"protocol": "udp"}), {"name": "br0", "drop": {"every": 3, "backend": "nft"}}):
        with pytest.raises(InvalidInput, match="match bridged traffic of a bridge's port"):
            engine.apply([entry], [])
    assert sh("nft list ruleset; tc qdisc show") == before


def test_it_is_taken_where_nothing_better_is_there(node: Path) -> None:
    entry = asked(7, 3)
    del entry["classes"][1]["drop"]["backend"]
    out = engine.apply([entry], [])
    assert [one["backend"] for one in out.backends if one["impairment"] == "drop"] == ["nft"]
    assert missing(node, 100) == list(range(3, 100, 7))
