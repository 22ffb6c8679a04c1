# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IPsec tunnels between two routers, in four namespaces of this kernel; test_ipsec.py runs this, not collected here.

h1 — r1 — r2 — h2: judged by pings, by what is seen on the wire between the routers, and by ip-xfrm(8).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.converge import Report
from plugins.module_utils.errors import InvalidInput, MissingCapability, TestbedError
from plugins.module_utils.namespace import entered
from plugins.module_utils.xfrm import engine
from tests.integration.wire import sh
from tests.oracle import xfrm

ESP, ICMP, ICMPV6 = 50, 1, 58
OURS = "-impair" in os.uname().release  # the kernel of `make kernel`, which has to have IPTFS; Debian's has to lack it
MARK = b"\x5e\xc4\xe7\x5e"  # what is in the pings
SECRET = "one secret of at least so many characters"
MODES = ["tunnel", "iptfs"] if OURS else ["tunnel"]
SIDES = ("r1", "r2")
ADDRESSES = {4: ("10.0.1.1", "10.0.1.2"), 6: ("fd00:1::1", "fd00:1::2")}
NETWORKS = {4: ("10.0.0.0/24", "10.0.2.0/24"), 6: ("fd00::/64", "fd00:2::/64")}
HOSTS = {4: "10.0.2.2", 6: "fd00:2::2"}
CHAIN = """
modprobe -q ipv6 || true
for n in h1 r1 r2 h2; do
    ip netns add $n
    ip -n $n link set lo up
    ip netns exec $n sh -c 'for f in all default; do echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; done
        echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
done
link() {
    ip link add e$2 netns $1 type veth peer name w$2 netns $3
    for end in "$1 e$2 1" "$3 w$2 2"; do
        set -- "$1" "$2" "$3" $end
        ip -n $4 address add 10.0.$2.$6/24 dev $5
        ip -n $4 address add fd00:$2::$6/64 dev $5 nodad
        ip -n $4 link set $5 up
    done
}
link r1 0 h1; link r1 1 r2; link r2 2 h2
for n in 4 6; do
    [ $n = 4 ] && p=10.0. s=.1 || p=fd00: s=::1
    ip -n h1 -$n route add default via ${p}0$s
    ip -n h2 -$n route add default via ${p}2$s
done
ip -n r1 route add 10.0.2.0/24 via 10.0.1.2; ip -n r2 route add 10.0.0.0/24 via 10.0.1.1
ip -n r1 route add fd00:2::/64 via fd00:1::2; ip -n r2 route add fd00:0::/64 via fd00:1::1
"""


@pytest.fixture(scope="module", autouse=True)
def chain() -> None:
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text(), "these tests change the kernel they run on"
    sh(CHAIN)
    for family in (4, 6):
        assert ping(family=family), "the chain itself"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    for router in SIDES:
        sh(f"ip -n {router} xfrm state flush", f"ip -n {router} xfrm policy flush")


def tunnel(router: str, inner: int = 4, outer: int = 4, **more: Any) -> dict[str, Any]:
    """A tunnel as the router's host_vars would have it."""
    here = SIDES.index(router)
    return {
        "name": "chain",
        "local": ADDRESSES[outer][here],
        "remote": ADDRESSES[outer][1 - here],
        "local_networks": [NETWORKS[inner][here]],
        "remote_networks": [NETWORKS[inner][1 - here]],
        **({} if "key_out" in more else {"secret": SECRET}),
        **more,
    }


def hold(router: str, *tunnels: dict[str, Any], check: bool = False) -> Report:
    with entered(f"/run/netns/{router}"):
        return engine.hold(tunnels, check)


def both(**more: Any) -> None:
    for router in SIDES:
        hold(router, tunnel(router, **more))


def ping(count: int = 1, family: int = 4, size: int = 56, within: float = 3) -> bool:
    """Whether all come back."""
    options = ["-q", "-c", str(count), "-i", "0.05", "-s", str(size), "-W", str(within), "-p", MARK.hex()]
    argv = ["ip", "netns", "exec", "h1", "ping", *options, HOSTS[family]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return f" {count} received" in done.stdout


def kernel_text(router: str) -> str:
    """All that ip prints of states and policies but what counts and ages."""
    printed = sh(f"ip -n {router} xfrm state", f"ip -n {router} xfrm policy")
    return re.sub(r"(lastused|anti-replay).*|\s+seq-hi.*|\s+[0-9a-f]{8} .*", "", printed)


class Wire:
    """What the routers send each other."""

    def __init__(self) -> None:
        self._ends = []
        for router, interface in (("r1", "e1"), ("r2", "w1")):
            with entered(f"/run/netns/{router}"):
                self._ends.append(xfrm.Sent(interface))

    def packets(self) -> list[bytes]:
        return [packet for end in self._ends for packet in end.packets()]

    def close(self) -> None:
        for end in self._ends:
            end.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


CASES = [
    *((mode, algorithm, 4, 4) for mode in MODES for algorithm in ("aes128gcm16", "aes256gcm16", "aes256-sha256")),
    *((mode, "aes128gcm16", *families) for mode in MODES for families in ((4, 6), (6, 4))),
]


@pytest.mark.parametrize(("mode", "algorithm", "inner", "outer"), CASES)
def test_packets_between_the_networks_pass_the_tunnel(
    wire: Wire, mode: str, algorithm: str, inner: int, outer: int
) -> None:
    assert ping(3, inner)
    icmp = ICMP if inner == 4 else ICMPV6
    seen = [packet for packet in wire.packets() if xfrm.protocol(packet) == icmp and MARK in packet]
    assert len(seen) == 6
    both(mode=mode, algorithm=algorithm, inner=inner, outer=outer)
    wire.packets()
    assert ping(3, inner)
    packets = [packet for packet in wire.packets() if xfrm.protocol(packet) in (ESP, icmp) and len(packet) > 80]
    assert len(packets) == 6, [packet.hex() for packet in packets]
    assert not any(MARK in packet for packet in packets)
    here, there = ADDRESSES[outer]
    standing = xfrm.states("r1")
    assert standing.keys() == {(here, there), (there, here)}
    assert {xfrm.spi(packet) for packet in packets} == {one.spi for one in standing.values()}
    assert {key: one.packets for key, one in standing.items()} == {(here, there): 3, (there, here): 3}
    assert {one.mode for one in standing.values()} == {"tunnel" if mode == "tunnel" else "5"}
    first, second = standing.values()
    assert set(first.keys).isdisjoint(second.keys), "each direction has its own key"
    reqid, shown = first.reqid, "tunnel" if mode == "tunnel" else "5"
    mine, theirs = NETWORKS[inner]
    assert xfrm.policies("r1") == [
        f"fwd {theirs} {mine} by {there} {here} reqid {reqid} {shown}",
        f"in {theirs} {mine} by {there} {here} reqid {reqid} {shown}",
        f"out {mine} {theirs} by {here} {there} reqid {reqid} {shown}",
    ]


@pytest.mark.parametrize("mode", MODES)
def test_what_does_not_come_through_the_tunnel_is_dropped(mode: str) -> None:
    both(mode=mode)
    assert ping()
    hold("r1")
    assert not ping(within=1), "r2 takes from r1's network only what was in the tunnel"
    hold("r2")
    assert ping()
    assert not any(sh(f"ip -n {router} xfrm {what}") for router in SIDES for what in ("state", "policy"))


@pytest.mark.parametrize("mode", MODES)
def test_a_second_run_writes_nothing_and_check_mode_tells_what_a_run_does(mode: str) -> None:
    asked = tunnel("r1", mode=mode)
    told = hold("r1", asked, check=True)
    assert told.changed and len(told.steps) == 5 and not told.before and told.after == told.before
    assert not sh("ip -n r1 xfrm state", "ip -n r1 xfrm policy")
    done = hold("r1", asked)
    assert done.steps == told.steps and len(done.after) == 5
    standing = kernel_text("r1")
    again = hold("r1", asked)
    assert not again.changed and not again.steps and again.after == done.after
    assert kernel_text("r1") == standing
    assert hold("r1", tunnel("r1", mode=mode, algorithm="aes256gcm16"), check=True).changed
    assert kernel_text("r1") == standing


@pytest.mark.parametrize("mode", MODES)
def test_another_key_is_taken_and_counting_goes_on(mode: str) -> None:
    """Where both ends have it packets pass again, though the numbers of what was sent go on."""
    both(mode=mode)
    assert ping(5)
    old = xfrm.states("r1")
    report = hold("r1", tunnel("r1", mode=mode, secret=SECRET[::-1]))
    assert sum("disruptive" in step for step in report.steps) == 2
    assert not ping(within=1)
    hold("r2", tunnel("r2", mode=mode, secret=SECRET[::-1]))
    assert ping(5)
    new = xfrm.states("r1")
    assert {key: one.spi for key, one in new.items()} == {key: one.spi for key, one in old.items()}
    assert all(set(new[key].keys).isdisjoint(one.keys) for key, one in old.items())
    assert new[ADDRESSES[4]].sent > old[ADDRESSES[4]].sent + 5


def test_keys_are_in_no_report() -> None:
    given: dict[str, Any] = {"algorithm": "aes256-sha256", "key_out": "5a" * 64, "key_in": "a5" * 64}
    texts = []
    for asked in (tunnel("r1"), tunnel("r1", **given), tunnel("r1", secret=SECRET * 2)):
        report = hold("r1", asked)
        keys = [key for one in xfrm.states("r1").values() for key in one.keys]
        assert len(keys) in (2, 4)
        texts.append("\n".join([*report.steps, *report.before, *report.after]))
        found = [key[start : start + 16] for key in keys for start in range(0, len(key) - 15, 2)]
        assert not any(part in text for part in found for text in texts)
    assert SECRET not in "".join(texts)


def test_given_keys_and_numbers_stand_as_given() -> None:
    given: dict[str, Any] = {"algorithm": "aes256-sha256", "key_out": "0b" * 32 + "1c" * 32, "key_in": "a5" * 64}
    hold("r1", tunnel("r1", **given, spi_out=0x101, spi_in=0x201, replay_window=96))
    standing = xfrm.states("r1")
    sends, receives = (standing[key] for key in (ADDRESSES[4], ADDRESSES[4][::-1]))
    assert (sends.spi, receives.spi) == (0x101, 0x201)
    assert sends.keys == ("0b" * 32, "1c" * 32) and receives.keys == ("a5" * 32, "a5" * 32)
    assert receives.window == 96


def test_what_others_made_stays() -> None:
    key = "07" * 20
    foreign = f"src 10.0.1.1 dst 10.0.1.2 proto esp spi 0x999 reqid 7 mode tunnel aead 'rfc4106(gcm(aes))' 0x{key} 128"
    other = "src 192.0.2.0/24 dst 198.51.100.0/24 dir out tmpl src 10.0.1.1 dst 10.0.1.2 proto esp reqid 7 mode tunnel"
    sh(f"ip -n r1 xfrm state add {foreign}", f"ip -n r1 xfrm policy add {other}")
    before = kernel_text("r1")
    hold("r1", tunnel("r1"))
    assert len(xfrm.policies("r1")) == 4
    assert hold("r1").changed
    assert kernel_text("r1") == before
    with pytest.raises(TestbedError, match=r"a state of somebody else .* spi 0x00000999"):
        hold("r1", tunnel("r1", spi_out=0x999))
    clash = other.replace("192.0.2.0/24", NETWORKS[4][0]).replace("198.51.100.0/24", NETWORKS[4][1])
    sh(f"ip -n r1 xfrm policy add {clash}")
    before = kernel_text("r1")
    with pytest.raises(TestbedError, match="a policy of somebody else"):
        hold("r1", tunnel("r1"))
    assert kernel_text("r1") == before


def test_what_was_changed_by_hand_is_put_right() -> None:
    both()
    reqid = xfrm.states("r1")[ADDRESSES[4]].reqid
    sh(
        "ip -n r1 xfrm policy update src 10.0.0.0/24 dst 10.0.2.0/24 dir out "
        f"tmpl src 10.0.1.1 dst 10.0.1.9 proto esp reqid {reqid} mode tunnel",
        "ip -n r1 xfrm state deleteall src 10.0.1.2",
    )
    assert not ping(within=1)
    assert len(hold("r1", tunnel("r1")).steps) == 2
    assert ping()


def test_what_cannot_be_is_refused_with_its_path() -> None:
    with pytest.raises(InvalidInput, match=r"tunnels\[0\]\.secret"):
        hold("r1", tunnel("r1", secret="short"))
    assert not sh("ip -n r1 xfrm state", "ip -n r1 xfrm policy")


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_passes(mode: str) -> None:
    """iperf3 in both directions at once."""
    both(mode=mode)
    server = subprocess.Popen(["ip", "netns", "exec", "h2", "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while not sh("ip netns exec h2 ss -Hltn sport = 5201"):
            assert server.poll() is None and time.monotonic() < until, "iperf3 does not listen"
            time.sleep(0.05)
        argv = ["ip", "netns", "exec", "h1", "timeout", "60", "iperf3", "-c", "10.0.2.2", "--bidir", "-t", "1", "-J"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        end = json.loads(done.stdout)["end"]
        rates = [end[name]["bits_per_second"] / 1e6 for name in ("sum_received", "sum_received_bidir_reverse")]
        print(f"{mode}: {rates[0]:.0f} and {rates[1]:.0f} Mbit/s")
        assert min(rates) > 0.1
    finally:
        server.kill()
        server.wait()


if not OURS:

    def test_a_kernel_without_iptfs_is_named() -> None:
        hold("r1", tunnel("r1"))
        before = kernel_text("r1")
        for check in (True, False):
            with pytest.raises(MissingCapability, match="CONFIG_XFRM_IPTFS"):
                hold("r1", tunnel("r1", mode="iptfs"), check=check)
        assert kernel_text("r1") == before


if OURS:

    def options(router: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of what r1 sends, and of what it receives."""
        with entered(f"/run/netns/{router}"):
            found = xfrm.iptfs_options()
        return found["10.0.1.2"], found["10.0.1.1"]

    def is_of(packet: bytes, spi: int) -> bool:
        return xfrm.protocol(packet) == ESP and xfrm.spi(packet) == spi

    def test_options_of_iptfs_reach_the_kernel() -> None:
        own = {
            "packet_size": "1200B",
            "dont_fragment": True,
            "init_delay": "20ms",
            "max_queue": "64kB",
            "drop_time": "250ms",
            "reorder_window": 9,
        }
        hold("r1", tunnel("r1", mode="iptfs"))
        sent, received = options("r1")
        assert sent == {"mode": 5, "dir": 2, "pkt_size": 0, "init_delay": 0, "max_qsize": 10485760}
        assert received == {"mode": 5, "dir": 1, "drop_time": 1000000, "reorder": 3}
        report = hold("r1", tunnel("r1", mode="iptfs", iptfs=own))
        assert len(report.steps) == 4
        sent, received = options("r1")
        assert sent == {"mode": 5, "dir": 2, "pkt_size": 1200, "init_delay": 20000, "max_qsize": 64000, "dont_frag": 0}
        assert received == {"mode": 5, "dir": 1, "drop_time": 250000, "reorder": 9}
        assert not hold("r1", tunnel("r1", mode="iptfs", iptfs=own)).changed

    def test_packets_are_put_together_and_split(wire: Wire) -> None:
        """In outer packets of one size, however long what is inside; one end changes without the other.

        The kernel adds check value, trailer and padding to the size (iptfs_user_init): 520 bytes for 500.
        """
        both(mode="iptfs", replay_window=1024)
        assert ping(3)
        hold("r1", tunnel("r1", mode="iptfs", replay_window=1024, iptfs={"packet_size": "500B", "init_delay": "100ms"}))
        wire.packets()
        assert ping(1, size=1400)
        out = xfrm.states("r1")[ADDRESSES[4]].spi
        lengths = [len(packet) for packet in wire.packets() if is_of(packet, out)]
        assert len(lengths) >= 4 and max(lengths) == 520 and sum(lengths) > 1400, lengths
        argv = ["ip", "netns", "exec", "h1", "ping", "-q", "-c", "5", "-i", "0.002", "-W", "3", HOSTS[4]]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert " 5 received" in done.stdout, done.stdout
        together = [packet for packet in wire.packets() if is_of(packet, out)]
        assert len(together) < 5, "five small packets that come within 100 ms leave together"

    def test_the_first_packet_waits_for_others() -> None:
        both(mode="iptfs", iptfs={"init_delay": "30ms"})
        argv = ["ip", "netns", "exec", "h1", "ping", "-c", "3", "-i", "0.2", HOSTS[4]]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        times = [float(text) for text in re.findall(r"time=([\d.]+)", done.stdout)]
        assert len(times) == 3 and min(times) >= 60, times
