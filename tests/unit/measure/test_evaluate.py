# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From records as the probe writes them to rows: a made-up network, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from plugins.module_utils.measure.commands import watches
from plugins.module_utils.measure.evaluate import Measured, Row, Seen
from plugins.module_utils.measure.flows import Subject, subjects
from plugins.module_utils.measure.records import Other, Ours, decode
from plugins.module_utils.measure.rows import delay_rows, packet_rows
from plugins.module_utils.measure.schedule import TRAIN, Limits
from plugins.module_utils.measure.table import render
from tests.unit.measure.original import DEVICE, ORIGINAL, lab_with

OWN_MAC, OTHER_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x09"
BROADCAST = b"\xff" * 6
LAB = lab_with(ORIGINAL)
SUBJECTS = subjects(LAB, 40404)
FLOWS = {one.way.id: one.way for one in SUBJECTS}
WATCHES = watches(LAB, FLOWS.values())
USBIP, FORWARDED, OWN = SUBJECTS


def ours(node: str, point: str, outgoing: bool, flow: int, seq: int, at: int, damaged: bool = False) -> bytes:
    """A numbered packet of 70 bytes, as files/probe/probe.h lays it out."""
    where = (4 if outgoing else 3) | (0x80 if damaged else 0)
    place = WATCHES[node].interfaces.index(point)
    return struct.pack("<BBBBHHQQII", ord("P"), place, TRAIN, where, flow, 70, at, at, seq, 0)


def arp(node: str, point: str, outgoing: bool, at: int, to: bytes = BROADCAST, by: bytes = OTHER_MAC) -> bytes:
    place = WATCHES[node].interfaces.index(point)
    head = struct.pack("<BBBBHHQ6s", ord("F"), place, 0, 4 if outgoing else 1, 0x0806, 60, at, to)
    return head + struct.pack("<HH4s4sBB6s6x", 0, 0, b"\0" * 4, b"\0" * 4, 0, 0, by)


def measured(master: bytes, slave: bytes, sent: int, flow: int, counter: str = "gact") -> Measured:
    events = [{"event": "sent", "flow": flow, "kind": TRAIN, "sent": sent, "asked": sent, "error": ""}]
    data: Mapping[str, bytes] = {"master": master, "slave": slave}
    counters = {("master", DEVICE, "device"): counter} if counter else {}
    seen = {node: Seen(watch, data.get(node, b"")) for node, watch in WATCHES.items()}
    return Measured(LAB, Limits(), seen, events, {"master": frozenset([OWN_MAC])}, FLOWS, counters)


def forwarded(dropped: Callable[[int], bool], extra: bytes = b"", count: int = 400, counter: str = "gact") -> list[Row]:
    """Rows of the class `device` where packet n comes in at n ms and arrives unless dropped."""
    flow = FORWARDED.way.id
    entered = b"".join(ours("master", "eth0", False, flow, n, n * 10**6) for n in range(count))
    arrived = b"".join(ours("slave", "eth0", False, flow, n, n * 10**6) for n in range(count) if not dropped(n))
    return list(packet_rows(measured(entered + extra, arrived, count, flow, counter), FORWARDED))


def test_records_are_read_back() -> None:
    data = ours("master", "eth0", False, 2, 77, 123) + arp("master", DEVICE, True, 456) + b"P\0"
    first, second = decode(data)
    assert isinstance(first, Ours)
    assert (first.flow, first.seq, first.at, first.outgoing, first.damaged, first.length) == (
        2,
        77,
        123,
        False,
        False,
        70,
    )
    assert isinstance(second, Other)
    assert (second.ethertype, second.outgoing, second.destination_mac, second.source_mac) == (
        0x0806,
        True,
        BROADCAST,
        OTHER_MAC,
    )


def test_records_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="unreadable from byte 0"):
        list(decode(b"XYZ"))


def test_every_twentieth_missing() -> None:
    (row,) = forwarded(lambda n: n % 20 == 19)
    assert (row.quantity, row.ok, row.samples) == ("drop", True, 400)
    (row,) = forwarded(lambda n: n % 20 == 19 or n == 200)
    assert not row.ok


def test_arp_that_is_forwarded_takes_part_in_the_count() -> None:
    extra = arp("master", "eth0", False, 100 * 10**6 + 1)  # behind packet 100
    (row,) = forwarded(lambda n: (n if n <= 100 else n + 1) % 20 == 19, extra)
    assert row.ok
    assert "1 foreign packets in the count" in row.note
    (row,) = forwarded(lambda n: n % 20 == 19, extra)
    assert not row.ok


def test_iptables_counts_no_arp() -> None:
    extra = arp("master", "eth0", False, 100 * 10**6 + 1)
    (row,) = forwarded(lambda n: n % 20 == 0, extra, counter="iptables")
    assert row.ok
    assert "1 frames beside IPv4" in row.note
    (row,) = forwarded(lambda n: (n if n <= 100 else n + 1) % 20 == 19, extra, counter="iptables")
    assert not row.ok


def test_where_the_counter_is_not_known_either_count_will_do() -> None:
    extra = arp("master", "eth0", False, 100 * 10**6 + 1)
    assert forwarded(lambda n: n % 20 == 0, extra, counter="")[0].ok
    assert forwarded(lambda n: (n if n <= 100 else n + 1) % 20 == 19, extra, counter="")[0].ok
    assert not forwarded(lambda n: n % 19 == 0, extra, counter="")[0].ok


@pytest.mark.parametrize(
    "extra",
    [
        arp("master", "eth0", False, 100 * 10**6 + 1, to=OWN_MAC),  # for the node itself
        arp("master", "eth0", False, 100 * 10**6 + 1, to=b"\x01\x80\xc2\0\0\0"),  # spanning tree stays on its link
        arp("master", DEVICE, False, 100 * 10**6 + 1),  # goes the other way
        arp("master", DEVICE, True, 100 * 10**6 + 1, by=OWN_MAC),  # the node's own is another class
        arp("master", DEVICE, True, 100 * 10**6 + 1),  # counted where it came in
        arp("master", "eth0", False, 10**9),  # after the last one
    ],
)
def test_what_is_not_in_the_class_is_not_counted(extra: bytes) -> None:
    (row,) = forwarded(lambda n: n % 20 == 19, extra)
    assert row.ok
    assert "foreign" not in row.note


def test_a_class_without_loss_loses_nothing() -> None:
    flow = USBIP.way.id

    def row_of(lost: int) -> Row:
        entered = b"".join(ours("master", "eth0", False, flow, n, n) for n in range(100))
        arrived = b"".join(ours("slave", "eth0", False, flow, n, n) for n in range(100) if n != lost)
        (row,) = packet_rows(measured(entered, arrived, 100, flow), USBIP)
        return row

    assert row_of(-1).ok
    assert not row_of(50).ok


def test_lost_before_the_node_is_said_and_not_blamed_on_the_class() -> None:
    flow = USBIP.way.id

    def row_of(reached: int) -> Row:
        entered = b"".join(ours("master", "eth0", False, flow, n, n) for n in range(reached))
        arrived = b"".join(ours("slave", "eth0", False, flow, n, n) for n in range(reached))
        (row,) = packet_rows(measured(entered, arrived, 100, flow), USBIP)
        return row

    assert row_of(95).ok
    assert "5 of 100 did not reach the node" in row_of(95).note
    assert not row_of(60).ok


def test_a_nodes_own_packets_are_counted_as_sent() -> None:
    flow = OWN.way.id
    left = b"".join(ours("master", DEVICE, True, flow, n, n) for n in range(100))
    arrived = b"".join(ours("slave", "eth0", False, flow, n, n) for n in range(99))
    (row,) = packet_rows(measured(left, arrived, 100, flow), OWN)
    assert (row.quantity, row.samples, row.ok) == ("loss", 100, False)


def test_a_nodes_first_packet_may_be_the_one_that_is_dropped() -> None:
    lab = lab_with([{"name": "all", "drop": {"every": 20, "packet": 0}, "match": {"bridged": False}}])
    subject = subjects(lab, 40404)[0]
    flow, before = subject.way.id, arp("master", DEVICE, True, 500, by=OWN_MAC)
    left = b"".join(ours("master", DEVICE, True, flow, n, 1000 + n) for n in range(100) if n % 20)
    arrived = b"".join(ours("slave", "eth0", False, flow, n, 1000 + n) for n in range(100) if n % 20)
    (row,) = packet_rows(measured(before + left, arrived, 100, flow, ""), subject)
    assert row.ok
    assert row.got.endswith("(place 0 of the captured order)")
    assert row.note == ""


def of_class(**keys: Any) -> Subject:
    return subjects(lab_with([{"name": "all", "match": {"bridged": True}, **keys}]), 40404)[0]


def through(subject: Subject, copies: Callable[[int], int], count: int = 400, counter: str = "bpf") -> list[Row]:
    """Rows where so many copies of packet n arrive."""
    flow = subject.way.id
    entered = b"".join(ours("master", "eth0", False, flow, n, n * 10**6) for n in range(count))
    arrived = b"".join(ours("slave", "eth0", False, flow, n, n * 10**6) * copies(n) for n in range(count))
    return list(packet_rows(measured(entered, arrived, count, flow, counter), subject))


def test_a_pattern_of_drops() -> None:
    subject = of_class(drop={"pattern": "0110100"})
    (row,) = through(subject, lambda n: "0110100"[(n + 4) % 7] == "0")
    assert (row.quantity, row.asked, row.ok) == ("drop", "pattern 0110100", True)
    (row,) = through(subject, lambda n: "0110010"[(n + 4) % 7] == "0")
    assert not row.ok


def test_a_pattern_of_drops_beside_loss() -> None:
    drop, loss = through(of_class(drop={"pattern": "01"}, loss="10%"), lambda n: not n % 2 and n % 20 != 0)
    assert (drop.quantity, drop.ok, loss.quantity, loss.ok) == ("drop", True, "loss", True)
    drop, loss = through(of_class(drop={"pattern": "01"}, loss="10%"), lambda n: not n % 2 or n == 5)
    assert (drop.ok, loss.ok) == (False, False)


def test_random_drops_are_a_loss() -> None:
    (row,) = through(of_class(drop={"random": "10%"}), lambda n: n % 10 != 0)
    assert (row.quantity, row.asked, row.ok) == ("loss", "10%", True)


def test_duplicates_in_turns_are_exact() -> None:
    subject = of_class(duplicate={"every": 10})
    loss, duplicate = through(subject, lambda n: 1 + (n % 10 == 3))
    assert (loss.ok, duplicate.ok, duplicate.asked) == (True, True, "every 10.")
    assert not through(subject, lambda n: 1 + (n % 10 == 3 and n != 33))[1].ok
    assert not through(subject, lambda n: 1 + (n % 9 == 3))[1].ok


def test_what_is_dropped_takes_part_in_the_turns_of_duplicates() -> None:
    subject = of_class(duplicate={"every": 10}, drop={"every": 4})
    drop, duplicate = through(subject, lambda n: 0 if n % 4 == 3 else 1 + (n % 10 == 3))
    assert (drop.ok, duplicate.ok) == (True, True)


@pytest.mark.parametrize("counter", ["bpf", "gact", "nft"])
def test_all_but_iptables_count_all_frames(counter: str) -> None:
    extra = arp("master", "eth0", False, 100 * 10**6 + 1)
    assert forwarded(lambda n: (n if n <= 100 else n + 1) % 20 == 19, extra, counter=counter)[0].ok
    assert not forwarded(lambda n: n % 20 == 19, extra, counter=counter)[0].ok


def test_damaged_packets_in_turns_are_as_many_as_asked() -> None:
    """Where the damage hides what a packet is, addresses and ports tell it; what has its length may be."""
    subject = of_class(corrupt={"every": 10})
    flow, length = subject.way, 71 + 2 * subject.way.id

    def unknown(at: int, source: str = flow.source) -> bytes:
        place = WATCHES["master"].interfaces.index(DEVICE)
        head = struct.pack("<BBBBHHQ6s", ord("F"), place, 17, 4, 0x0800, length, at, OTHER_MAC)
        ends = [bytes(map(int, end.split("."))) for end in (source, flow.destination)]
        return head + struct.pack("<HH4s4sBB6s6x", flow.source_port, flow.destination_port, *ends, 0, 0, OTHER_MAC)

    def judged(every: int, extra: bytes = b"") -> Row:
        entered = b"".join(ours("master", "eth0", False, flow.id, n, n) for n in range(400))
        kept = b"".join(ours("master", DEVICE, True, flow.id, n, n) for n in range(400) if n % every)
        damaged = b"".join(unknown(n) for n in range(0, 400, every))
        return next(packet_rows(measured(entered + kept + damaged + extra, b"", 400, flow.id, "bpf"), subject))

    assert (judged(10).ok, judged(10).got) == (True, "40 of 400 damaged")
    assert not judged(11).ok
    assert not judged(10, unknown(399)).ok
    beside = judged(10, unknown(399, "192.168.1.99"))
    assert (beside.ok, beside.got) == (True, "41 of 400 damaged, of which 1 may be somebody else's")


def corrupting() -> Subject:
    return subjects(lab_with([{"name": "all", "corrupt": "10%", "match": {"bridged": True}}]), 40404)[0]


def test_damaged_packets_are_not_lost_ones() -> None:
    subject = corrupting()
    flow, length = subject.way.id, 71 + 2 * subject.way.id

    def left(n: int) -> bytes:
        record: Any = bytearray(ours("master", DEVICE, True, flow, n, n, damaged=n % 10 == 0))
        if n % 50 == 0:  # its number is what was damaged
            record[24:28] = struct.pack("<I", n ^ (1 << 20))
        record[6:8] = struct.pack("<H", length)
        return bytes(record)

    entered = b"".join(ours("master", "eth0", False, flow, n, n) for n in range(1000))
    leaving = b"".join(left(n) for n in range(1000))
    corrupt, loss = packet_rows(measured(entered + leaving, b"", 1000, flow), subject)
    assert (corrupt.quantity, corrupt.ok, corrupt.got.split()[0]) == ("corrupt", True, "10.00%")
    assert (loss.quantity, loss.ok, loss.got.split()[0]) == ("loss", True, "0.00%")


def test_without_answers_the_delay_fails() -> None:
    (row,) = delay_rows(measured(b"", b"", 0, 1), USBIP)
    assert not row.ok
    assert "too few answers" in row.note


def test_the_table_has_a_line_a_row_and_says_what_failed() -> None:
    (good,) = forwarded(lambda n: n % 20 == 19)
    (bad,) = forwarded(lambda n: False)
    lines = render([good, bad])
    assert lines[2].endswith("ok")
    assert "FAILED" in "\n".join(lines[3:])
    assert set(good.as_dict()) >= {
        "node",
        "interface",
        "class",
        "direction",
        "quantity",
        "asked",
        "got",
        "tolerance",
        "ok",
        "samples",
    }
