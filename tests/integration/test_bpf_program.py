# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files/bpf/impair.c does to packets that a test builds and nobody sends (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration import bpf_program as kernel
from tests.integration.bpf_program import Chooser, Loaded, Rule

PACKET = bytes(12) + b"\x08\x00" + bytes(60)


@pytest.fixture(scope="module")
def program() -> Iterator[Loaded]:
    made = Loaded(kernel.compiled())
    yield made
    made.close()


def test_what_nothing_matches_passes(program: Loaded) -> None:
    program.clear()
    found = program.run(PACKET, mark=7, priority=9)
    assert (found.verdict, found.packet, found.mark, found.priority) == (kernel.PASS, PACKET, 7, 9)


def test_every_nth_packet_is_dropped(program: Loaded) -> None:
    program.only(Rule(drop=Chooser(kind=kernel.EVERY, every=20, place=19)))
    verdicts = [program.run(PACKET).verdict for _number in range(100)]
    assert verdicts == ([kernel.PASS] * 19 + [kernel.DROP]) * 5
    assert (program.state().seen, program.state().dropped) == (100, 5)
