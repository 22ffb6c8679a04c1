# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any impairments to any others: what stands then does not tell where we came from, and others keep what is theirs.

Here, and by test_impairment_ways_uml.py in a kernel with netem, flower and gact.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.impairment import engine
from tests.integration import ways
from tests.integration.engine import no_descriptors_left
from tests.integration.program import compiled
from tests.integration.ways import Node

Asked = list[dict[str, Any]]
UNSHRUNK = [Phase.explicit, Phase.generate]  # a step takes a second under UML: shrink by hand what is found
FEW = settings(suppress_health_check=list(HealthCheck), phases=UNSHRUNK)
UML = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
WAYS = st.lists(ways.configurations(), min_size=2, max_size=4)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with pytest.MonkeyPatch.context() as patch, ways.node() as made:
        patch.setattr(engine, "forget", lambda: None)  # the same kernel: its capabilities are tried once
        yield made
        engine.clear()


@lru_cache
def program() -> engine.Program:
    return compiled()


def apply(asked: Asked, check: bool = False) -> engine.Outcome:
    return engine.apply(asked, [], purge=True, check=check, program=program())


def walk(node: Node, way: list[Asked]) -> None:
    with no_descriptors_left():
        _walk(node, way)


def _walk(node: Node, way: list[Asked]) -> None:
    engine.clear()  # what an example that failed left
    straight = []
    for asked in way[1:]:
        apply(asked)
        straight.append(node.shown())
        engine.clear()
    assert not ways.different(node.shown(), node.untouched)
    assert not node.memory.exists()
    apply(way[0])
    for asked, wanted in zip(way[1:], straight):
        foretold = apply(asked, check=True).report
        done = apply(asked).report
        assert (done.changed, done.steps) == (foretold.changed, foretold.steps)
        shown = node.shown()
        difference = ways.different(ways.normal(shown), ways.normal(wanted))
        assert not difference, done.steps
        assert not node.others(shown)
        again = apply(asked).report
        assert not again.changed and not again.steps
        event(ways.shape(asked))
    engine.clear()
    assert not ways.different(node.shown(), node.untouched)
    assert not node.memory.exists()


# A program of ours stands in a clsact of somebody else, who has a filter there: clear finds it all the same.
BESIDE_OTHERS: list[Asked] = [[], [{"name": ways.ALONE, "direction": "egress", "corrupt": {"every": 5}}]]


@settings(FEW, max_examples=12 if UML else 24)
@example(BESIDE_OTHERS)
@given(WAYS)
def test_any_way_leads_to_what_is_asked(node: Node, way: list[Asked]) -> None:
    walk(node, way)


@pytest.mark.long
@pytest.mark.timeout(1500)
@settings(FEW, max_examples=150 if UML else 500)
@given(WAYS)
def test_any_of_thousands_of_ways(node: Node, way: list[Asked]) -> None:
    walk(node, way)


@settings(FEW, max_examples=6 if UML else 12)
@given(ways.configurations(), ways.refused())
def test_what_is_refused_touches_nothing(node: Node, stands: Asked, wrong: tuple[Asked, str]) -> None:
    engine.clear()
    apply(stands)
    before = node.shown()
    asked, path = wrong
    for check in (True, False):
        with pytest.raises(InvalidInput) as refusal:
            apply(asked, check)
        assert refusal.value.path == path
    assert not ways.different(node.shown(), before)
