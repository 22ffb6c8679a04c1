# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One measuring run on the controller: what is planned, what came in, and the rows so far.

Everything is kept in a directory of its own, so that each Ansible task can go on where the one before ended.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bpf.counters import warning
from . import rows as making
from .commands import Watch, script, watch_command, watches
from .evaluate import Measured, Row, Seen
from .flows import Flow, Subject, subjects
from .judge import joined
from .schedule import RATE, REQUEST, TRAIN, Limits, Stage, repeats, stages
from .topology import Lab, parse_lab

GATHERED = ("superpackets", "segments")
ON_NODE = "/run/impair.testbed/measure"
LONGEST = 1800.0  # seconds, as in files/probe/probe.h
AGAIN = {"delay": "delay", "jitter": "delay", "rate": "rate"}  # quantities that a busy machine spoils, and their stage
MOST_AGAIN = 6  # where more fails, it is no accident
MARGIN = 120.0  # seconds that a recorder outlives the planned series, for what Ansible does between them


class Session:
    """A run, read from its directory."""

    def __init__(self, directory: Path) -> None:
        stored = json.loads((directory / "plan.json").read_text())
        self.directory = directory
        self.run: int = stored["run"]
        self.limits = Limits(**stored["limits"])
        self.lab: Lab = parse_lab(stored["variables"])
        self.subjects: list[Subject] = subjects(self.lab, self.limits.port)
        self.flows: dict[int, Flow] = {one.flow.id: one.flow for one in self.subjects if one.flow}
        self.first: list[Stage] = stages(self.subjects, self.limits)
        self.stages: list[Stage] = self.first + repeats(self.subjects, self.limits)
        self.watches: dict[str, Watch] = watches(self.lab, self.flows.values())

    @classmethod
    def plan(cls, variables: Mapping[str, Mapping[str, Any]], limits: Limits) -> Session:
        """Begin a run for these nodes' variables."""
        directory = Path(tempfile.mkdtemp(prefix="impair-measure-"))
        stored = {"run": secrets.randbelow(2**32), "limits": limits._asdict(), "variables": variables}
        (directory / "plan.json").write_text(json.dumps(stored))
        return cls(directory)

    @property
    def nodes(self) -> list[str]:
        """Nodes that take part."""
        return sorted({*self.watches, *(flow.sender for flow in self.flows.values())})

    def watch_line(self, node: str) -> str:
        """How the node's recorder is started; empty where it records nothing."""
        limit = min(LONGEST, 2 * sum(stage.seconds for stage in self.stages) + MARGIN)
        watch = self.watches.get(node)
        return watch_command(watch, ON_NODE, self.run, self.limits.port, limit) if watch else ""

    def scripts(self, node: str) -> dict[int, str]:
        """What the node sends, by the stage's place."""
        made = {n: script(stage, node, self.subjects, self.run, self.limits) for n, stage in enumerate(self.stages)}
        return {number: text for number, text in made.items() if text}

    def _read(self, node: str, what: str) -> bytes:
        path = self.directory / f"{node}.{what}"
        return path.read_bytes() if path.exists() else b""

    def add(self, node: str, what: str, data: bytes) -> None:
        """Keep what a node has recorded (`records`), said (`events`) or is (`macs`, `backends`, `rules`)."""
        with (self.directory / f"{node}.{what}").open("ab") as file:
            file.write(data)

    def size(self, node: str, what: str) -> int:
        path = self.directory / f"{node}.{what}"
        return path.stat().st_size if path.exists() else 0

    def measured(self, since: Mapping[str, int]) -> Measured:
        """What came in, behind the first so many bytes of each file."""

        def read(node: str, what: str) -> bytes:
            return self._read(node, what)[since.get(f"{node}.{what}", 0) :]

        events = [event for node in self.nodes for event in parse_events(read(node, "events"))]
        seen = {node: Seen(watch, read(node, "records")) for node, watch in self.watches.items()}
        macs = {node: frozenset(_macs(self._read(node, "macs").decode())) for node in self.nodes}
        return Measured(self.lab, self.limits, seen, events, macs, self.flows, self._counters())

    def _counters(self) -> dict[tuple[str, str, str], str]:
        """What counts each class's drops, as the module impairment told; nothing for a tree made by hand."""
        told = [(node, one) for node in self.nodes for one in json.loads(self._read(node, "backends") or b"[]")]
        drops = [(node, one) for node, one in told if one.get("impairment") == "drop"]
        return {(node, one["interface"], one["class"]): one["backend"] for node, one in drops}

    def superpackets(self, node: str, rules: Sequence[Mapping[str, Any]]) -> list[str]:
        """Warnings of superpackets that came during the run. `rules`: what programs have counted by now."""
        found = []
        before = {row["rule"]: row for row in json.loads(self._read(node, "rules") or b"[]")}
        for row in rules:
            older = before.get(row["rule"], {})
            grown = {key: value - older.get(key, 0) for key, value in row.items() if key in ("seen", *GATHERED)}
            if text := warning({**row, **grown}):
                found.append(f"{node}: {text}")
        return found

    def judge(self, number: int) -> list[Row]:
        """Rows that this stage has brought; they are kept. A repeated one takes the place of one that failed."""
        again = number >= len(self.first)
        found = self._made(self.stages[number], self.measured(self._marks() if again else {}))
        kept = self._kept()
        if again:
            failed = {(place, row.quantity): row for place, row in kept if not row.ok}
            found = [
                (
                    place,
                    row._replace(
                        note=joined(row.note, f"measured again, alone; first {failed[place, row.quantity].got}")
                    ),
                )
                for place, row in found
                if (place, row.quantity) in failed
            ]
            replaced = {(place, row.quantity) for place, row in found}
            kept = [(place, row) for place, row in kept if (place, row.quantity) not in replaced]
        text = "".join(json.dumps([place, *row]) + "\n" for place, row in [*kept, *found])
        (self.directory / "rows").write_text(text)
        return [row for _place, row in found]

    def _made(self, stage: Stage, measured: Measured) -> list[tuple[int, Row]]:
        """Rows out of what a stage has sent, with the subject's place."""
        sent = {(one.flow, one.kind) for _sender, chain in stage.chains for one in chain if not one.unimpaired}
        found: list[tuple[int, Row]] = []
        for place, subject in enumerate(self.subjects):
            if subject.flow is None:
                continue
            if (subject.flow.id, REQUEST) in sent:
                found += [(place, row) for row in making.delay_rows(measured, subject)]
            if (subject.flow.id, TRAIN) in sent:
                found += [(place, row) for row in making.packet_rows(measured, subject)]
            if (subject.flow.id, RATE) in sent:
                found += [(place, row) for row in making.rate_rows(measured, subject)]
        return found

    def again(self) -> list[int]:
        """Stages that measure once more, each alone, what failed and may have failed for a busy machine."""
        failed = [(self.subjects[place].flow, row) for place, row in self._kept() if not row.ok]
        wanted = {f"{AGAIN[row.quantity]} {flow.id}" for flow, row in failed if flow and row.quantity in AGAIN}
        numbers = [n for n in range(len(self.first), len(self.stages)) if self.stages[n].name in wanted]
        if not numbers or len(numbers) > MOST_AGAIN:
            return []
        names = [f"{node}.{what}" for node in self.nodes for what in ("events", "records")]
        marks = {name: self.size(*name.rsplit(".", 1)) for name in names}
        (self.directory / "marks.json").write_text(json.dumps(marks))
        return numbers

    def _marks(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.directory / "marks.json").read_text())
        return found

    def _kept(self) -> list[tuple[int, Row]]:
        path = self.directory / "rows"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(line[0], Row(*line[1:])) for line in lines]

    def rows(self) -> list[Row]:
        """All rows in the inventory's order, with what could not be measured."""
        found = self._kept()
        for place, subject in enumerate(self.subjects):
            found += [(place, row) for row in making.other_rows(subject)]
        return [row for _unused, row in sorted(found, key=lambda one: (one[0], making.place(one[1])))]

    def problems(self) -> list[str]:
        """What the probe itself complained about."""
        found = []
        for node in self.nodes:
            for event in parse_events(self._read(node, "events")):
                if event.get("event") == "error":
                    found.append(f"{node}: {event['error']}")
                if event.get("event") == "full":
                    found.append(f"{node}: more than {event['records']} frames passed; the rest was not recorded")
                if event.get("dropped"):
                    found.append(f"{node}: the recorder missed {event['dropped']} frames")
        return found


def parse_events(text: bytes) -> list[dict[str, Any]]:
    """The probe's lines, one JSON object each; a line that is not finished is left out."""
    whole = text[: text.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def _macs(text: str) -> list[bytes]:
    return [bytes.fromhex(word.replace(":", "")) for word in text.split() if len(word) == 17]
