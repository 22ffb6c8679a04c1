# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the inventory to flows, packets and command lines."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.measure.asked import impaired_directions, parse_asked
from plugins.module_utils.measure.commands import script, watches
from plugins.module_utils.measure.flows import Subject, calibration_matches, subjects
from plugins.module_utils.measure.matching import Packet, class_of, matches
from plugins.module_utils.measure.schedule import RATE, TRAIN, Limits, overload, stages, train
from plugins.module_utils.measure.topology import parse_lab
from tests.unit.measure.original import DEVICE, ORIGINAL, lab_with


def found(*classes: dict[str, Any]) -> list[Subject]:
    return subjects(lab_with(list(classes)), 40404)


def test_the_original_lab_with() -> None:
    flows = [one.way for one in subjects(lab_with(ORIGINAL, DEVICE, "eth0"), 40404)]
    assert [(one.class_name, one.sender, one.receiver, one.protocol) for one in flows] == [
        ("usbip", "laptop", "slave", "tcp"),
        ("device", "laptop", "slave", "udp"),
        ("other", "master", "slave", "udp"),
        ("usbip", "slave", "laptop", "tcp"),
        ("device", "slave", "laptop", "udp"),
        ("other", "master", "laptop", "udp"),
    ]
    assert [one.entry for one in flows] == ["eth0", "eth0", "", DEVICE, DEVICE, ""]
    assert flows[0].destination_port == 7575
    assert flows[1].destination_port != 7575


def test_a_flow_does_not_fall_into_a_class_before_its_own() -> None:
    first = {"name": "first", "match": {"protocol": "udp"}, "delay": "1ms"}
    second = {"name": "second", "match": {"bridged": True}, "delay": "2ms"}
    assert [one.way.protocol for one in found(first, second)] == ["udp", "tcp"]


def test_a_class_that_nothing_can_reach_is_said() -> None:
    everything = {"name": "wide", "match": [{"protocol": "udp"}, {"protocol": "tcp"}], "delay": "1ms"}
    hidden = {"name": "hidden", "match": {"protocol": "udp", "port": 5000}, "delay": "2ms"}
    subject = found(everything, hidden)[1]
    assert subject.flow is None
    assert "none of the classes before it" in subject.reason


def test_without_the_other_end_there_is_no_flow() -> None:
    lab = lab_with(ORIGINAL)
    alone = parse_lab({"master": lab.nodes["master"]})
    assert all(one.flow is None and "lab_links" in one.reason for one in subjects(alone, 40404))


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"dscp": 46}, {"tos": 184}),
        ({"dscp": "af11"}, {"tos": 40}),
        ({"protocol": "icmp"}, {"protocol": "icmp", "source_port": 0}),
        ({"source_port": 53}, {"source_port": 53}),
        ({"destination_port": 53}, {"destination_port": 53}),
        ({"source": "192.168.1.107"}, {"sender": "master"}),
        ({"source": "192.168.1.147/32"}, {"sender": "laptop"}),
        ({"address": "192.168.1.147"}, {"sender": "laptop"}),
        ({"in_interface": "eth0"}, {"sender": "laptop", "entry": "eth0"}),
        ({"mark": "0x5/0xff"}, {"sender": "master", "mark": 5}),
        ([{"protocol": "esp"}, {"protocol": "tcp"}], {"protocol": "tcp"}),
        ({"dscp": ["af11", 46]}, {"tos": 40}),
        ({"source": ["10.0.0.0/8", "192.168.1.107/32"]}, {"sender": "master"}),
        ({"not": {"source": "192.168.1.147/32"}}, {"sender": "master"}),
        ({"port": "5000-5999", "not": {"protocol": "udp"}}, {"protocol": "tcp", "destination_port": 5000}),
        ({"not": [{"protocol": "udp"}, {"destination_port": "1-30000"}]}, {"protocol": "tcp"}),
    ],
)
def test_headers_fulfil_the_match(match: Any, expected: dict[str, Any]) -> None:
    flow = found({"name": "one", "match": match, "delay": "1ms"})[0].way
    assert {name: getattr(flow, name) for name in expected} == expected


def test_ingress_goes_the_other_way() -> None:
    lab = lab_with([])
    interface = {"name": DEVICE, "direction": "both", "delay": "1ms"}
    variables = {**lab.nodes, "master": {**lab.nodes["master"], "impairment_interfaces": [interface]}}
    egress, ingress = (one.way for one in subjects(parse_lab(variables), 40404))
    assert (egress.sender, egress.receiver, egress.leave) == ("laptop", "slave", DEVICE)
    assert (ingress.sender, ingress.receiver, ingress.entry) == ("slave", "laptop", DEVICE)


def test_first_match_wins() -> None:
    classes = impaired_directions({"name": "eth0", "classes": ORIGINAL})[0].classes
    tcp = Packet(6, "10.0.0.1", "10.0.0.2", 1000, 7575, forwarded=True)
    assert class_of(classes, tcp) == "usbip"
    assert class_of(classes, tcp._replace(destination_port=80)) == "device"
    assert class_of(classes, tcp._replace(destination_port=80, forwarded=False)) == "other"
    arp = Packet(forwarded=True, ethertype=0x0806)
    assert class_of(classes, arp) == "device"
    assert class_of(classes, tcp._replace(destination_port=22), [{"protocol": "tcp", "port": 22}]) == ""
    assert not matches([{"mac": "02:00:00:00:00:01"}], tcp)  # unknown here: never taken for fulfilled
    assert not matches([{"not": {"source_mac": "02:00:00:00:00:01"}}], tcp)
    assert matches([{"not": {"source_mac": "02:00:00:00:00:01", "protocol": "udp"}}], tcp)


def test_asked_in_plain_figures() -> None:
    asked = parse_asked(
        {"rate": "1mbit", "ceil": "10mbit", "delay": "50ms", "loss": {"random": "1%", "correlation": "25%"}}
    )
    assert (asked.rate, asked.delay) == (10e6, 0.05)
    assert asked.loss == pytest.approx(0.01)
    assert asked.loss_memory == pytest.approx(0.25)
    assert parse_asked({"delay": "50ms", "enabled": False}).delay == 0
    assert parse_asked({"down": True}).loss == 1
    bursts = parse_asked({"loss": {"gemodel": {"p": "1%", "r": "10%"}}})
    assert bursts.loss == pytest.approx(1 / 11)
    assert parse_asked({"loss": {"state": {"p13": "1%"}}}).unjudged == ("loss",)


def test_sizes_are_bounded() -> None:
    limits = Limits()
    for subject in found(*ORIGINAL):
        numbered, load = train(subject, limits), overload(subject, limits)
        assert numbered.seconds <= limits.seconds
        assert numbered.rate * numbered.length * 8 < subject.asked.rate
        assert load is not None
        assert 1 < load.seconds <= limits.seconds
        kept = 0.95 if subject.asked.every else 1
        assert load.rate * load.length * 8 * kept == pytest.approx(1.5 * subject.asked.rate)
    crawl = found({"name": "all", "rate": "8kbit"})[0]
    assert train(crawl, limits).packets < 2000
    assert train(crawl, limits).seconds <= limits.seconds


def test_fast_rates_have_the_wire_for_themselves() -> None:
    made = stages(subjects(lab_with(ORIGINAL, DEVICE, "eth0"), 40404), Limits())
    assert [stage.name for stage in made] == ["delay", "packets", "rate 1", "rate 3", "rate 4", "rate 6"]
    together = {(one.flow, one.kind) for _sender, chain in made[1].chains for one in chain}
    assert {(number, TRAIN) for number in range(1, 7)} <= together
    assert (2, RATE) in together
    assert (1, RATE) not in together


def test_scripts_and_recorders() -> None:
    lab = lab_with(ORIGINAL, DEVICE, "eth0")
    measured = subjects(lab, 40404)
    made = stages(measured, Limits())
    lines = script(made[1], "laptop", measured, 7, Limits()).splitlines()
    assert [line.split()[:2] for line in lines if "send" in line] == [["0", "send"], ["1", "send"], ["1", "send"]]
    assert "to=192.168.1.148 from=192.168.1.147" in lines[0]
    assert script(made[2], "slave", measured, 7, Limits()) == ""
    found_watches = watches(lab, [one.way for one in measured])
    assert set(found_watches["master"].points) == {DEVICE, "eth0"}
    assert found_watches["slave"].receive == ("eth0",)
    assert found_watches["slave"].addresses == ("192.168.1.148",)


def test_arp_passes_while_a_class_that_loses_everything_is_measured() -> None:
    udp = {"protocol": "udp", "port": 40404}
    assert calibration_matches(lab_with([{"name": "all", "delay": "50ms"}]), "master", 40404) == [udp]
    for lost in ({"down": True}, {"loss": "100%"}):
        lab = lab_with([{"name": "all", **lost}])
        assert calibration_matches(lab, "master", 40404) == [udp, {"protocol": "arp"}]
