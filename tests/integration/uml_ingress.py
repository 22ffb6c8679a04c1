# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What arrives is impaired: test_ingress_uml.py runs this in a kernel with netem; not collected elsewhere."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils import netlink
from plugins.module_utils.capabilities import load
from plugins.module_utils.errors import InvalidInput, TestbedError
from plugins.module_utils.impairment import engine
from plugins.module_utils.node import ifb_name
from tests.integration.wire import (
    AT_ONCE,
    ETHERTYPE,
    FAR,
    FULL,
    NEAR,
    OTHER_SOURCE,
    SLOW,
    SOURCE,
    Wire,
    fill,
    numbers,
    sh,
)

PORT, BEYOND = "eth1", "beyond"  # another interface, for a bridge
BEFORE = Path("/run/impair.testbed/before")
DELAY = "200ms"


@pytest.fixture(scope="module")
def wire() -> Wire:
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text(), (
        "these tests change the network of the kernel they run on"
    )
    sh(
        "modprobe -q ipv6 || true",  # what comes with it later would send packets of its own
        f"ip link add {NEAR} type veth peer name {FAR}",
        f"ip link add {PORT} type veth peer name {BEYOND}",
        "for name in /proc/sys/net/ipv6/conf/*/disable_ipv6; do ! [ -e $name ] || echo 1 >$name; done",
        *(f"ip link set {name} up" for name in (NEAR, FAR, PORT, BEYOND)),
    )
    load()
    return Wire(NEAR, FAR, BEYOND)


@pytest.fixture(autouse=True)
def clean(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts and ends without anything of ours."""
    monkeypatch.setattr(engine, "forget", lambda: None)  # the same kernel: its capabilities are tried once
    before = remains()
    assert "ingress" not in before and "clsact" not in before
    yield
    engine.clear()
    left = remains()
    if left != before:  # only what the test put there as somebody else is taken away by hand
        assert "7e57:" not in left and "mirred" not in sh(f"tc filter show dev {NEAR} ingress")
        kind = "clsact" if "clsact" in left else "ingress"
        assert sh(f"tc filter show dev {NEAR} ingress"), f"an empty {kind} is left"
        sh(f"tc qdisc del dev {NEAR} {kind}")
    assert remains() == before


def remains() -> str:
    """Qdiscs, links, actions, and what we remember."""
    shown = sh("tc qdisc show", "ip -o link show", "tc actions list action gact; tc actions list action mirred")
    return shown + "\n".join(sorted(map(str, BEFORE.rglob("*"))))


def apply(*asked: dict[str, Any], management: Any = ()) -> list[str]:
    """Impair interfaces; the steps that were taken. A second run finds nothing to do."""
    entries = [{"name": NEAR, **keys} for keys in asked]
    steps = engine.apply(entries, management).report.steps
    assert not engine.apply(entries, management).report.changed
    return steps


def took(wire: Wire, at: str) -> float:
    """Seconds that a packet takes from this end to the other one, as this clock goes."""
    sent = time.time()
    wire.send(1, at=at)
    (arrival,) = wire.receive(FAR if at == NEAR else NEAR, quiet=1, most=1)
    return arrival.at - sent


def delays(wire: Wire) -> tuple[bool, bool]:
    """Whether what arrives, and what leaves, is delayed. Never by more: halts of this kernel aside."""
    found = took(wire, FAR), took(wire, NEAR)
    assert all(each < 0.15 or 0.2 <= each < 0.35 for each in found), found
    return found[0] >= 0.2, found[1] >= 0.2


def test_what_arrives_is_delayed_and_what_leaves_is_not(wire: Wire) -> None:
    apply({"direction": "ingress", "delay": DELAY})
    assert delays(wire) == (True, False)


def test_both_directions_and_each_its_own(wire: Wire) -> None:
    apply({"direction": "both", "delay": DELAY})
    assert delays(wire) == (True, True)
    apply({"direction": "ingress", "delay": DELAY}, {"loss": "0.1%"})
    assert delays(wire) == (True, False)
    apply({"delay": DELAY})
    assert delays(wire) == (False, True)
    assert "clsact" not in remains() and "ifb" not in sh("ip -d link show")


def test_every_nth_packet_of_each_direction(wire: Wire) -> None:
    apply({"direction": "both", "drop": {"every": 5}})
    for _again in range(2):
        for end in (FAR, NEAR):
            assert numbers(wire.burst(23, at=end)) == [number for number in range(23) if number % 5 != 4]
            wire.burst(2, at=end)  # to the end of the group


def test_a_rate_and_its_buffer_on_arrival(wire: Wire) -> None:
    apply({"direction": "ingress", **SLOW[FULL], "queue": "15140B"})
    (ifb,) = re.findall(r"dev (imp\S+) root", sh("tc qdisc show"))
    assert fill(wire, ifb, at=FAR) == list(range(AT_ONCE[FULL] + 10))


def test_classes_and_management_on_arrival(wire: Wire) -> None:
    lossy = {"name": "lossy", "match": {"mac": SOURCE}, "loss": "100%"}
    apply({"direction": "ingress", "classes": [lossy]})
    assert wire.burst(10, at=FAR) == []
    wire.send(10, at=FAR, source=OTHER_SOURCE)
    assert numbers(wire.receive(NEAR)) == list(range(10))
    apply({"direction": "ingress", "down": True}, management=[{"mac": OTHER_SOURCE}])
    assert wire.burst(10, at=FAR) == []
    wire.send(10, at=FAR, source=OTHER_SOURCE)
    assert numbers(wire.receive(NEAR)) == list(range(10))


def test_a_port_of_a_bridge(wire: Wire) -> None:
    sh("ip link add br0 type bridge; ip link set br0 up", *(f"ip link set {name} master br0" for name in (NEAR, PORT)))
    try:
        apply({"direction": "ingress", "delay": DELAY, "drop": {"every": 5}})
        sent = time.time()
        wire.send(10, at=FAR)
        came = wire.receive(BEYOND, quiet=0.4)
        assert numbers(came) == [0, 1, 2, 3, 5, 6, 7, 8]
        assert came[0].at - sent >= 0.2
        wire.send(10, at=BEYOND)
        assert len(wire.receive(FAR)) == 10
    finally:
        sh("ip link delete br0")


def test_values_change_in_place_and_nothing_is_lost(wire: Wire) -> None:
    apply({"direction": "ingress", "delay": "20ms"})
    sent = 0
    for delay in ("40ms", "5ms", "30ms"):
        wire.send(20, at=FAR, first=sent)
        (step,) = apply({"direction": "ingress", "delay": delay})
        assert "qdisc change" in step
        wire.send(20, at=FAR, first=sent + 20)
        sent += 40
    assert numbers(wire.receive(NEAR)) == list(range(sent))


def test_nothing_is_lost_while_it_comes_changes_and_goes(wire: Wire) -> None:
    count = 1500
    child = os.fork()
    if child == 0:
        for number in range(count):
            wire.send(1, 100, at=FAR, first=number)
            time.sleep(0.001)
        os._exit(0)
    changes = 0
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        classes = [{"name": "a", "match": {"mac": SOURCE}, "delay": f"{changes % 3}ms"}, {"name": "b"}]
        engine.apply([{"name": NEAR, "direction": "ingress", "classes": classes[changes % 2 :]}], [])
        if changes % 4 == 3:
            engine.clear()
        changes += 1
    assert changes >= 4
    assert sorted(numbers(wire.receive(NEAR))) == list(range(count)), changes


def test_what_waits_goes_on_when_the_impairment_is_taken_away(wire: Wire) -> None:
    apply({"direction": "ingress", "delay": "300ms"})
    wire.send(20, at=FAR)
    engine.clear()
    assert sorted(numbers(wire.receive(NEAR, quiet=0.4))) == list(range(20))


def test_a_change_that_is_not_confirmed_is_taken_back(wire: Wire) -> None:
    before = remains()
    engine.apply([{"name": NEAR, "direction": "both", "down": True}], [], confirm_within=0.3)
    assert wire.burst(3, at=FAR) == []
    deadline = time.monotonic() + 20
    while remains() != before:
        assert time.monotonic() < deadline, remains()
        time.sleep(0.05)
    assert len(wire.burst(3, at=FAR)) == 3


@pytest.mark.parametrize("kind", ["clsact", "ingress"])
def test_filters_of_others_at_ingress_survive(wire: Wire, kind: str) -> None:
    parent = "ingress" if kind == "clsact" else "parent ffff:"
    lost = f"protocol {ETHERTYPE:#x} pref 7 u32 match u32 3 0xffffffff at 0 action drop"  # the packet with number 3
    sh(f"tc qdisc add dev {NEAR} {kind}; tc filter add dev {NEAR} {parent} {lost}")
    foreign = sh(f"tc filter show dev {NEAR} {parent}")
    apply({"direction": "ingress", "loss": "100%"})
    assert wire.burst(5, at=FAR) == []
    apply({"direction": "ingress", "delay": "80ms"})
    assert numbers(wire.burst(5, at=FAR)) == [0, 1, 2, 4]
    engine.clear()
    assert sh(f"tc filter show dev {NEAR} {parent}").split("installed")[0] == foreign.split("installed")[0]
    assert numbers(wire.burst(5, at=FAR)) == [0, 1, 2, 4]


def test_a_filter_behind_ours_is_refused(wire: Wire) -> None:
    sh(f"tc qdisc add dev {NEAR} clsact; tc filter add dev {NEAR} ingress pref 65530 matchall action continue")
    before = remains()
    with pytest.raises(TestbedError, match="matchall pref 65530"):
        engine.apply([{"name": NEAR, "direction": "ingress", "delay": "1ms"}], [])
    assert remains() == before


def test_what_cannot_be_done_on_arrival_is_refused(wire: Wire) -> None:
    before = remains()
    with pytest.raises(InvalidInput, match=r"\[0\].drop.packet: 0 is refused"):
        apply({"direction": "ingress", "drop": {"every": 5, "packet": 0}})
    with pytest.raises(InvalidInput, match=r"\[0\].name: 'eth7'"):
        engine.apply([{"name": "eth7", "direction": "ingress", "delay": "1ms"}], [])
    assert remains() == before


def test_a_stranger_of_that_name_is_left_alone(wire: Wire) -> None:
    sh(f"ip link add {ifb_name(NEAR)} type dummy")
    try:
        with pytest.raises(TestbedError, match=ifb_name(NEAR)):
            apply({"direction": "ingress", "delay": "1ms"})
        engine.clear()
        assert "dummy" in sh(f"ip -d link show {ifb_name(NEAR)}")
    finally:
        sh(f"ip link delete {ifb_name(NEAR)}")


def test_an_interface_that_was_unplugged_meanwhile(wire: Wire) -> None:
    sh("ip link add usb0 type veth peer name usb1; ip link set usb0 up")
    asked = [{"name": "usb0", "direction": "both", "delay": "1ms"}]
    engine.apply(asked, [])
    sh("ip link delete usb0; ip link add usb0 type veth peer name usb1; ip link set usb0 up")
    engine.apply(asked, [])
    assert not engine.apply(asked, []).report.changed
    assert "mirred" in sh("tc filter show dev usb0 ingress")
    sh("ip link delete usb0")
    engine.clear()


def test_check_mode_says_the_steps_that_the_run_then_makes(wire: Wire) -> None:
    asked = [{"name": NEAR, "direction": "both", "delay": "5ms", "drop": {"every": 5}}]
    before = remains()
    said = engine.apply(asked, [], check=True).report.steps
    assert remains() == before
    assert engine.apply(asked, []).report.steps == said
    assert [step for step in said if "mirred" in step][-1] == said[-1]


def killed_at(number: int, interfaces: Any) -> bool:
    """Whether a run in a process of its own was killed before its `number`th message; messages go one by one."""
    child = os.fork()
    if child == 0:
        try:
            left = [number]
            plain = netlink.Socket._pack

            def counted(self: netlink.Socket, message: netlink.Message, flags: int) -> bytes:
                if message.type % 4 != 2:
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                return plain(self, message, flags)

            netlink.Socket._pack = counted  # type: ignore[method-assign]
            netlink.SEND_CHUNK = 1
            engine.apply(interfaces, [])
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_before_any_message_it_converges_when_run_again(wire: Wire) -> None:
    before = remains()
    asked = {"direction": "ingress", "delay": "1ms", "drop": {"every": 5}}
    number = 0
    while killed_at(number, [{"name": NEAR, **asked}]):
        if number % 2:
            engine.apply([{"name": NEAR, **asked}], [])
            killed_at(number // 2, [])  # and on the way back
        engine.clear()
        assert remains() == before, number
        number += 1
    assert number >= 10
