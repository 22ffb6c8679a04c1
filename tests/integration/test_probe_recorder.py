# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measuring probe's recorder, on a bridge that changes nothing."""

from __future__ import annotations

import base64
from pathlib import Path as File

from plugins.module_utils.measure import probe, records
from plugins.module_utils.measure.schedule import REPLY, TRAIN
from tests.integration.path import path
from tests.integration.places import CHECKOUT

RUN, FLOW = 77, 3


def test_answers_in_a_row_make_no_packet_of_their_flow_a_damaged_one(tmp_path: File) -> None:
    """Answers have their flow's number, and its addresses the other way round."""
    program = str(probe.compiled(CHECKOUT / "files/probe"))
    with path("bridge") as made:

        def send(place: str, to: str, kind: int) -> None:
            flow = ["protocol=udp", f"to={made.address(to)}", "source_port=5000", "destination_port=5001"]
            pace = [f"run={RUN}", f"flow={FLOW}", f"kind={kind}", "length=70", "rate=100", "count=3", "limit=9"]
            made.place(place).run([program, "send", *flow, *pace])

        made.n.run([program, "watch", f"dir={tmp_path}", f"run={RUN}", "points=n0,n1", "limit=60"])
        for _turn in range(2):
            send("s", "r", TRAIN)
            send("r", "s", REPLY)
        dumped = made.n.run([program, "dump", f"dir={tmp_path}"]).stdout
        made.n.run([program, "stop", f"dir={tmp_path}"])
    found = [one for one in records.decode(base64.b64decode(dumped)) if isinstance(one, records.Ours)]
    assert len(found) == 2 * 2 * 2 * 3, found  # points, turns, directions, packets
    assert not any(one.damaged for one in found), found
