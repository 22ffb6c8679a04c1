# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of one class: each quantity that is asked, and those that have to be zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from . import judge, rates
from .asked import Asked
from .commands import UNIMPAIRED
from .evaluate import Measured, Row, class_order, rate_windows
from .flows import Flow, Subject
from .judge import Verdict
from .records import Other
from .schedule import TRAIN, train_length

SHOWN = 20  # places of a pattern that the table shows
ORDER = ("delay", "jitter", "drop", "loss", "duplicate", "corrupt", "reorder", "rate")


def place(row: Row) -> int:
    """Where a row stands among those of its class."""
    return ORDER.index(row.quantity) if row.quantity in ORDER else len(ORDER)


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.6g}ms" if seconds else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%" if share else "0"


def _inside(measured: Measured, flow: Flow) -> float | None:
    """Delay by the impaired node's own clock, less that of unimpaired requests."""
    through, base = measured.inside(flow, flow.id), measured.inside(flow, UNIMPAIRED + flow.id)
    return median(through) - median(base) if through and base else None


def delay_rows(measured: Measured, subject: Subject) -> Iterator[Row]:
    """delay and jitter, from timed requests."""
    asked, flow = subject.asked, subject.flow
    if flow is None or asked.loss >= 1 or not measured.limits.calibrate:
        return
    through, base = measured.times(flow, "us"), measured.times(flow, "unimpaired_us")
    if asked.reorder and base:  # what overtakes is not delayed: judged by `reorder`
        through = [one for one in through if one - min(base) > asked.delay / 2]
    middle = asked.delay + asked.middle
    verdict = judge.judge_delay(middle, through, base, asked.jitter, _inside(measured, flow))
    yield _row(subject, "delay", _time(middle), verdict)
    if asked.jitter:
        took = measured.inside(flow, flow.id)  # by the node's own clock: nothing else's jitter is in it
        yield _row(subject, "jitter", _time(asked.jitter), judge.judge_jitter(asked.jitter, took, asked.spread))


class Left(NamedTuple):
    """What left the impaired node of a class that damages packets."""

    readable: set[int]  # numbers that can be told
    damaged: int  # frames
    unreadable: int  # damaged frames whose number cannot be told: they were not lost
    doubtful: int  # of the damaged ones, those that may be somebody else's


def left_node(measured: Measured, subject: Subject, sent: set[int]) -> Left:
    """A damaged frame is recognised by what is intact of it, at least by its length, which is this flow's alone."""
    flow = subject.way
    seen, length = measured.seen[flow.node], train_length(flow, subject.asked)
    readable = {one.seq for one in seen.packets(flow.leave, True, flow.id, TRAIN) if not one.damaged}
    damaged = unreadable = 0
    for (point, outgoing, number, kind), packets in seen.ours.items():
        if point != flow.leave or not outgoing:
            continue
        for one in packets:
            if not one.damaged or one.length != length:
                continue
            damaged += 1
            if (number, kind) == (flow.id, TRAIN) and one.seq in sent - readable:
                readable.add(one.seq)
            else:
                unreadable += 1
    strange = [one for one in seen.others.get((flow.leave, True), []) if one.length == length]
    doubtful = sum(not _is_of(one, flow) for one in strange)
    return Left(readable, damaged + len(strange), unreadable + len(strange), doubtful)


def _is_of(frame: Other, flow: Flow) -> bool:
    """Whether its addresses and ports are the flow's, and what is damaged lies behind them."""
    ports = (frame.source_port, frame.destination_port) == (flow.source_port, flow.destination_port)
    return (frame.source, frame.destination) == (flow.source, flow.destination) and (ports or flow.protocol == "icmp")


def packet_rows(measured: Measured, subject: Subject) -> Iterator[Row]:
    """drop, loss, duplicate, corrupt and reorder, from numbered packets."""
    asked, flow = subject.asked, subject.way
    order = class_order(measured, subject)
    sent = {one for one in order if one is not None}
    packets = measured.arrived(flow, TRAIN)
    arrived, unreadable = {one.seq for one in packets}, 0
    if asked.corrupt:  # a damaged packet may not reach the receiver; it did leave the node
        left = left_node(measured, subject, sent)
        arrived, unreadable = left.readable, left.unreadable
        yield _row(subject, "corrupt", *_corrupted(asked, left, order))
    if asked.every:
        order, note = _counted(measured, subject, order, arrived)
    if asked.turns and not asked.loss and not asked.corrupt:
        if asked.every:
            verdict = judge.judge_nth(order, arrived, asked.every)
        else:
            verdict, note = judge.judge_turns(order, sent - arrived, asked.pattern), ""
        verdict = _enough(measured, flow, verdict._replace(note=judge.joined(verdict.note, note)), len(sent))
        yield _row(subject, "drop", _in_turns(asked.turns), verdict)
    else:
        yield from _loss_rows(measured, subject, order, arrived, unreadable)
    if asked.duplicate:
        yield _row(subject, "duplicate", *_duplicated(asked, order, Counter(one.seq for one in packets)))
    if asked.reorder:
        early, judged = _overtaking(measured, subject)
        yield _row(subject, "reorder", _percent(asked.reorder), judge.judge_share(asked.reorder, early, judged))


def _in_turns(pattern: str) -> str:
    """As the table has it: every 20., or the pattern."""
    if pattern.count("1") == 1:
        return f"every {len(pattern)}."
    return f"pattern {pattern}" if len(pattern) <= SHOWN else f"pattern {pattern[:SHOWN]}…"


def _corrupted(asked: Asked, left: Left, order: list[int | None]) -> tuple[str, Verdict]:
    """What is asked, and how it came out. What is dropped is not damaged."""
    if asked.corrupt_pattern and not asked.turns and not asked.loss:
        numbers = range(left.damaged - left.doubtful, left.damaged + 1)
        verdict = judge.judge_number(asked.corrupt_pattern, numbers, order, "damaged")
        return _in_turns(asked.corrupt_pattern), verdict
    sent = sum(number is not None for number in order)
    reached = round(sent * asked.kept)
    return _percent(asked.corrupt), judge.judge_share(asked.corrupt, left.damaged, reached, asked.corrupt_memory)


def _duplicated(asked: Asked, order: list[int | None], counts: Counter[int]) -> tuple[str, Verdict]:
    """What is asked, and how it came out, of what arrived at all."""
    twice = {number for number, count in counts.items() if count > 1}
    if asked.duplicate_pattern and not asked.corrupt:
        known = [number if number in counts else None for number in order]
        return _in_turns(asked.duplicate_pattern), judge.judge_turns(
            known, twice, asked.duplicate_pattern, "duplicated"
        )
    more = sum(count - 1 for count in counts.values())
    return _percent(asked.duplicate), judge.judge_share(asked.duplicate, more, len(counts), asked.duplicate_memory)


def _counted(
    measured: Measured, subject: Subject, order: list[int | None], arrived: set[int]
) -> tuple[list[int | None], str]:
    """The order in which the class is counted: every frame by tc, IPv4 alone by iptables; where that is not known,
    the one that explains what is missing."""
    of = subject.of
    counter = measured.counters.get((subject.node, subject.impaired.interface, of.name), "")
    if counter not in ("", "iptables") or (not counter and not judge.nth(order, arrived, of.asked.every).spared):
        return order, ""
    ipv4 = class_order(measured, subject, ipv4_only=True)
    others = len(order) - len(ipv4)
    if not counter and (not others or judge.nth(ipv4, arrived, of.asked.every).spared):
        return order, ""
    return ipv4, f"{others} frames beside IPv4, which iptables does not count" if others else ""


def _loss_rows(
    measured: Measured, subject: Subject, order: list[int | None], arrived: set[int], unreadable: int
) -> Iterator[Row]:
    asked, flow = subject.asked, subject.way
    sent = {one for one in order if one is not None}
    reached = len(sent)
    if asked.turns:  # both: those in turn are all missing, and the rest lose their share
        place = judge.turns(order, sent - arrived, asked.turns).place
        period = len(asked.turns)
        due = [one for at, one in enumerate(order) if asked.turns[(at + place) % period] == "1"]
        turn = {one for one in due if one is not None}
        got = f"{len(turn - arrived)} of {len(turn)} missing"
        verdict = Verdict(bool(turn) and not turn & arrived, got, "exact", reached, "random losses beside")
        yield _row(subject, "drop", _in_turns(asked.turns), _enough(measured, flow, verdict, reached))
        sent -= turn
    missing = max(0, len(sent - arrived) - unreadable)
    verdict = judge.judge_share(asked.loss, missing, len(sent), asked.loss_memory)
    yield _row(subject, "loss", _percent(asked.loss), _enough(measured, flow, verdict, reached))


def _enough(measured: Measured, flow: Flow, verdict: Verdict, reached: int) -> Verdict:
    """A verdict on much fewer packets than were sent is none. `reached`: how many came to the impaired node."""
    sent = measured.event("sent", flow.id, TRAIN)
    count = int(sent.get("asked", 0))
    if not count or sent.get("error"):
        return verdict._replace(ok=False, note=f"sending failed: {sent.get('error') or 'no packet was sent'}")
    lost = count - reached
    if lost <= 0:
        return verdict
    note = f"{lost} of {count} did not reach the node"
    note = judge.joined(verdict.note, note)
    return verdict._replace(ok=verdict.ok and lost <= count // 10, note=note)


def _overtaking(measured: Measured, subject: Subject) -> tuple[int, int]:
    """(packets that were not delayed, packets), by the node's own clock."""
    flow = subject.way
    seen = measured.seen[flow.node]
    came = {one.seq: one.at for one in seen.packets(flow.entry, False, flow.id, TRAIN)} if flow.entry else {}
    took = [one.at - came.get(one.seq, one.sent) for one in seen.packets(flow.leave, True, flow.id, TRAIN)]
    return sum(one < subject.asked.delay * 5e8 for one in took), len(took)


def rate_rows(measured: Measured, subject: Subject) -> Iterator[Row]:
    """rate, from the overload."""
    asked, flow = subject.asked, subject.flow
    if flow is None or not asked.rate or asked.loss >= 0.9:
        return
    verdict = rates.judge_rates(asked.rate, rate_windows(measured, subject, asked.kept))
    yield _row(subject, "rate", judge.rate_text(asked.rate), verdict)


def other_rows(subject: Subject) -> Iterator[Row]:
    """What cannot be measured is said, and is no success."""
    if subject.flow is None:
        yield _row(subject, "all", "measurement", Verdict(False, "not measured", "", 0, subject.reason))
    for key in subject.asked.unjudged:
        yield _row(subject, key, "as written", Verdict(False, "not measured", "", 0, "there is no measure for it here"))


def _row(subject: Subject, quantity: str, asked: str, verdict: Verdict) -> Row:
    impaired = subject.impaired
    place = subject.node, impaired.interface, subject.of.name, impaired.direction
    return Row(*place, quantity, asked, verdict.got, verdict.tolerance, verdict.ok, verdict.samples, verdict.note)
