# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probes say of requests, retransmissions and system calls, beside tcpdump, nstat, iperf3 and strace."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

import pytest

from plugins.module_utils.bpf import syscall
from plugins.module_utils.errors import InvalidInput, StepFailed
from plugins.module_utils.observer import hooks, limits
from plugins.module_utils.observer.measure import measure
from plugins.plugin_utils import clang
from tests.integration.engine import inside
from tests.integration.labs import wait_for
from tests.integration.path import Path, path
from tests.integration.places import CHECKOUT, Lab, Netns, caller

pytestmark = pytest.mark.testbed
TRAFFIC = str(CHECKOUT / "roles/probes/files/traffic.py")
ECHO, PING = 23324, 23325
ALL = ["requests", "retransmissions", "syscalls"]
MOST_SEGMENTS = 45  # of 1448 bytes, in a superpacket of 64 kB
WITHIN = 100  # seconds that a load may take where others have the processors
LINE = re.compile(r"^([\d.]+) IP6? \S+\.(\d+) > \S+\.(\d+): .*seq (\d+):(\d+),.* length [1-9]")


@pytest.fixture(scope="module")
def code() -> bytes:
    return clang.compile_program(CHECKOUT / "files/bpf/observe.c", (*clang.FLAGS, "-g"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A client in s and servers in r, with a router between."""
    folder = tmp_path_factory.mktemp("probes")
    with path("router") as found:
        pids = []
        try:
            for port, mode in ((ECHO, "echo"), (PING, "ping")):
                file = folder / str(port)
                found.r.run(["python3", TRAFFIC, "server", "32", mode, "16", f"[::]:{port}", "--daemon", str(file)])
                pids.append(int(file.read_text()))
            yield found
        finally:
            for pid in pids:
                os.kill(pid, 9)


@pytest.fixture
def client(made: Path) -> Iterator[Path]:
    """Inside the client's namespace, where nothing stands before, and nothing may stand afterwards."""
    with inside(made.s):
        yield made
    assert "clsact" not in made.s.run(["tc", "qdisc", "show"]).stdout


@pytest.fixture
def losing(client: Path) -> Iterator[Path]:
    """The router loses packets by nftables: each 25th to the server, and each 40th back."""
    rules = "add table ip lose; add chain ip lose c { type filter hook forward priority 0; };"
    rules += 'add rule ip lose c iifname "n0" numgen inc mod 25 == 24 drop;'
    rules += 'add rule ip lose c iifname "n1" numgen inc mod 40 == 39 drop'
    client.n.run(["nft", rules])
    yield client
    client.n.run(["nft", "delete table ip lose"])


def asks(made: Path, port: int = ECHO, connections: int = 4, family: int = 4, seconds: float = 1) -> list[str]:
    mode, address = ("ping" if port == PING else "echo"), made.address("r", family)
    place = f"[{address}]:{port}" if family == 6 else f"{address}:{port}"
    return ["python3", TRAFFIC, "client", str(connections), mode, "16", place, "--seconds", str(seconds), "--linger"]


def look(code: bytes, probes: Sequence[str], wanted: limits.Limits, *commands: Sequence[str], rounds: int = 0) -> Any:
    return measure(code, probes, "s0", wanted, commands, WITHIN, rounds)


def counter(place: Netns, name: str) -> int:
    """The kernel's own count of a namespace."""
    return int(re.findall(rf"{name}\s+(\d+)", place.run(["nstat", "-asz", name]).stdout)[0])


def retransmitted(place: Netns) -> int:
    return counter(place, "TcpRetransSegs")


@contextmanager
def interrupting_init(folder: File) -> Iterator[Callable[[set[int]], int]]:
    """How many segments to a port were sent again while a thread of the machine's first process was interrupted, by
    tracefs: there are kernels that let no tracing program run then, as here once, so that it need not see these."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tracefs", "tracefs", str(folder)], check=True)
    instance = folder / f"instances/impair-{os.getpid()}"
    event = instance / "events/tcp/tcp_retransmit_skb/enable"
    instance.mkdir()
    try:
        event.write_text("1")

        def count(ports: set[int]) -> int:
            found = re.findall(r"-(\d+) +\[.* dport=(\d+)", (instance / "trace").read_text())
            assert {int(port) for _thread, port in found} & ports
            init = os.listdir("/proc/1/task")
            return sum(thread in init for thread, port in found if int(port) in ports)

        yield count
    finally:
        event.write_text("0")
        instance.rmdir()
        subprocess.run(["umount", str(folder)], check=True)


def answered(lines: Sequence[str], service: int) -> list[float]:
    """Seconds between each request and its answer, as tcpdump saw them pass."""
    sent: dict[str, tuple[int, float]] = {}
    got: dict[str, int] = {}
    found = []
    for line in lines:
        match = LINE.match(line)
        if not match:
            continue
        at, source, destination, end = float(match[1]), match[2], match[3], int(match[5])
        if destination == str(service) and end != sent.get(source, (0, 0.0))[0]:
            sent[source] = (end, at)
        elif source == str(service) and end != got.get(destination):
            got[destination] = end
            found.append(at - sent[destination][1])
    return found


def test_requests_are_counted_and_timed_by_port_as_tcpdump_and_the_client_do(
    client: Path, code: bytes, tmp_path: File
) -> None:
    """Echo over IPv4 and ping over IPv6. The means agree within 5 % and 0.2 ms: tcpdump looks at other moments."""
    text = tmp_path / "text"
    argv = ["tcpdump", "-n", "-tt", "-S", "-l", "-B", "32768", "--time-stamp-precision=nano", "-i", "s0", "tcp"]
    with open(text, "w", encoding="ascii") as file, open(tmp_path / "said", "w", encoding="ascii") as said:
        watch = subprocess.Popen(argv, stdout=file, stderr=said)
    try:
        wait_for(lambda: "listening" in (tmp_path / "said").read_text(), 60)
        commands = asks(client, connections=3), asks(client, PING, 3, family=6)
        result = look(code, ["requests"], limits.parse([ECHO, PING], None, True), *commands)
        wait_for(lambda: text.read_text().count(" [R") >= 6, 60)
    finally:
        watch.terminate()
        watch.wait()
    assert "\n0 packets dropped by kernel" in (tmp_path / "said").read_text()
    assert list(result["services"]) == [str(ECHO), str(PING)]
    for own in result["runs"][0]["said"]:
        port, seen = own["port"], result["services"][str(own["port"])]
        took = answered(text.read_text().splitlines(), port)
        mean = sum(took) / len(took) * 1e6
        means = (
            f"{mean:.1f} µs by tcpdump, {seen['latency']['mean']} by the probe, {own['latency']['mean']} by the client"
        )
        print(f"port {port}: {len(took)} requests; mean {means}")
        assert seen["latency"]["count"] == own["requests"] == len(took) > 20
        assert (seen["bytes_out"], seen["bytes_in"]) == (own["bytes_out"], own["bytes_in"])
        assert abs(seen["latency"]["mean"] - mean) <= 0.05 * mean + 200
        assert seen["latency"]["mean"] <= own["latency"]["mean"]
        assert sum(count for _low, count in seen["latency"]["histogram"]) == len(took)


def test_retransmissions_are_those_that_the_namespace_counts(losing: Path, code: bytes, tmp_path: File) -> None:
    """nstat's figure, of the client's namespace alone: the server's in the other one are as many, and not seen."""
    before, others = retransmitted(losing.s), retransmitted(losing.r)
    commands = asks(losing, connections=16, seconds=2), asks(losing, PING, 16, seconds=2)
    with interrupting_init(tmp_path / "tracefs") as hidden:
        result = look(code, ALL, limits.parse([ECHO, PING], None, True), *commands)
        unseen = hidden({ECHO, PING})
    counted = retransmitted(losing.s) - before
    seen = [one["retransmitted"] for one in result["services"].values()]
    others = retransmitted(losing.r) - others
    print(f"retransmitted: {counted} by nstat, {unseen} of them over init; {seen} by the probe; {others} elsewhere")
    assert others
    assert min(seen) > 5 and counted - unseen <= sum(seen) <= counted
    again = sum(one["again"] for one in result["services"].values())
    assert abs(again - counted) <= 0.1 * counted + 5, (
        "what left the interface a second time; not so the segments of SYN"
    )
    requests = sum(own["requests"] for own in result["runs"][0]["said"])
    assert sum(one["latency"]["count"] for one in result["services"].values()) == requests


def test_retransmissions_of_a_stream_are_counted_by_segments(losing: Path, code: bytes, tmp_path: File) -> None:
    """Superpackets count with all their segments. iperf3 looks before its last bytes are out: it may tell less. The
    last segments of its two connections may be sent again when nobody looks any more."""
    losing.n.run(["nft", 'flush chain ip lose c; add rule ip lose c iifname "n0" numgen inc mod 50 == 49 drop'])
    argv = ["ip", "netns", "exec", losing.r.name, "iperf3", "--server", "--port", "23399", "--one-off", "--forceflush"]
    with open(tmp_path / "said", "w", encoding="ascii") as said:
        server = subprocess.Popen(argv, stdout=said, stderr=said)
    try:
        wait_for(lambda: "listening" in (tmp_path / "said").read_text(), 60)
        words = ["iperf3", "--json", "--client", losing.address("r"), "--port", "23399", "--bytes", "40M"]
        before = retransmitted(losing.s)
        with interrupting_init(tmp_path / "tracefs") as hidden:
            result = look(code, ["retransmissions"], limits.parse([23399], None, True), words)
            unseen = hidden({23399}) * MOST_SEGMENTS
        counted = retransmitted(losing.s) - before
        server.wait(60)
    finally:
        server.kill()
        server.wait()
    told = result["runs"][0]["said"][0]["end"]["sum_sent"]["retransmits"]
    seen = result["services"]["23399"]["retransmitted"]
    print(f"retransmitted: {told} by iperf3, {counted} by nstat, {unseen} at most over init; {seen} by the probe")
    assert 20 < told <= counted
    assert counted - unseen - 2 <= seen <= counted


WAITING = """
import socket, sys, time
made = socket.create_connection((sys.argv[1], int(sys.argv[2])))
made.sendall(bytes(9000))
time.sleep(4)
"""


def test_what_could_not_be_sent_again_is_not_counted(client: Path, code: bytes) -> None:
    """The first one still waits in a slow queue when TCP's time is over; Linux 6.16 and newer tell of each such try."""
    client.s.run(["tc", "qdisc", "add", "dev", "s0", "root", "handle", "1:", "htb", "default", "1"])
    client.s.run(["tc", "class", "add", "dev", "s0", "parent", "1:", "classid", "1:1", "htb", "rate", "12kbit"])
    try:
        before, kept = retransmitted(client.s), counter(client.s, "TcpExtTCPSpuriousRtxHostQueues")
        words = ["python3", "-c", WAITING, client.address("r"), str(ECHO)]
        result = look(code, ["retransmissions"], limits.parse([ECHO], None, True), words)
        counted, kept = retransmitted(client.s) - before, counter(client.s, "TcpExtTCPSpuriousRtxHostQueues") - kept
    finally:
        client.s.run(["tc", "qdisc", "del", "dev", "s0", "root"])
    seen = result["services"][str(ECHO)]["retransmitted"]
    print(f"retransmitted: {counted} by nstat, {seen} by the probe; {kept} could not be sent")
    assert kept > 0
    assert seen == counted


SLEEPER = "import select; [select.select([], [], [], 0.02) for _number in range(30)]"


def test_system_calls_take_what_strace_says(client: Path, code: bytes, tmp_path: File) -> None:
    """A call that takes long. strace's stops lie outside of the probe's time: 5 % and 0.5 ms, in one of three tries,
    as strace waits for a processor in between; the probe's time is never the longer one, nor less than was asked."""
    trace = tmp_path / "trace"
    traced = ["strace", "-T", "-o", str(trace), "python3", "-c", SLEEPER]
    for _try in range(3):
        result = look(code, ["syscalls"], limits.parse([], None, False), traced)
        calls = re.findall(r"^(p?select6?)\(.*<([\d.]+)>$", trace.read_text(), re.MULTILINE)
        (name,) = {name for name, _took in calls}
        seen, mean = result["syscalls"][name], sum(float(took) for _name, took in calls) / len(calls) * 1e6
        print(f"{name}: {len(calls)} of {mean:.0f} µs by strace, {seen['count']} of {seen['mean']} by the probe")
        assert seen["count"] == len(calls) == 30
        assert 20_000 <= seen["mean"] <= mean + 100
        if mean - seen["mean"] <= 0.05 * mean + 500:
            return
    pytest.fail("strace and the probe do not agree")


def test_calls_of_others_are_not_seen(client: Path, code: bytes) -> None:
    """Neither of another process in the namespace, nor, where all of it is looked at, of another namespace."""
    sleeper = ["python3", "-c", SLEEPER]
    here = ["ip", "netns", "exec", client.r.name, *sleeper]  # ip becomes the sleeper, and has left the namespace
    result = look(code, ["syscalls"], limits.parse([], None, True), ["sleep", "0.1"])
    naps = [name for name in result["syscalls"] if "nanosleep" in name]
    assert [result["syscalls"][name]["count"] for name in naps] == [1]
    assert not {"select", "pselect6"} & set(result["syscalls"])
    elsewhere = look(code, ["syscalls"], limits.parse([], None, False), here)
    assert "execve" in elsewhere["syscalls"] and not {"select", "pselect6"} & set(elsewhere["syscalls"])
    own = look(code, ["syscalls"], limits.parse([], None, False), sleeper)
    assert {"select", "pselect6"} & set(own["syscalls"])


@pytest.mark.parametrize(
    ("ports", "address", "seen"),
    [
        ((PING,), None, {PING}),
        ((), None, {ECHO, PING}),
        ((), "fd07:2::1", {ECHO}),
        ((), "10.7.2.1", {PING}),
        ((ECHO, PING), "10.7.2.99", set()),
    ],
)
def test_limits_of_port_and_address(
    client: Path, code: bytes, ports: tuple[int, ...], address: str | None, seen: set[int]
) -> None:
    """The echo is asked over IPv6, the ping over IPv4."""
    commands = asks(client, seconds=0.1, family=6), asks(client, PING, seconds=0.1)
    result = look(code, ["requests"], limits.parse(ports, address, True), *commands)
    own = {one["port"]: one["requests"] for one in result["runs"][0]["said"]}
    found = {int(port): one["latency"]["count"] for port, one in result["services"].items()}
    assert {port: count for port, count in found.items() if count} == {port: own[port] for port in seen}


def test_the_probes_cost_is_measured_in_turns(client: Path, code: bytes) -> None:
    result = look(code, ALL, limits.parse([ECHO], None, True), asks(client), rounds=2)
    assert [one["observed"] for one in result["runs"]] == [False, True] * 2
    assert all(one["user"] > 0 and one["said"][0]["requests"] for one in result["runs"])
    observed = sum(one["said"][0]["requests"] for one in result["runs"] if one["observed"])
    assert result["services"][str(ECHO)]["latency"]["count"] == observed
    for name in ("leaving", "arriving", "entered", "left"):
        one = result["programs"][name]
        assert one["runs"] >= observed and 5 < one["ns"] / one["runs"] < 100_000


def test_a_load_that_fails_is_told_and_nothing_stays(client: Path, code: bytes) -> None:
    for words, reason in ((["sh", "-c", "echo no >&2; exit 3"], "exit 3: no"), (["nosuch"], "no such program")):
        with pytest.raises(StepFailed, match=reason):
            look(code, ALL, limits.parse([], None, True), words)
    with pytest.raises(StepFailed, match="in time"):
        measure(code, ALL, "s0", limits.parse([], None, True), [["sleep", "60"]], 0.2, 0)
    with pytest.raises(InvalidInput, match="interface"):
        measure(code, ["requests"], "", limits.parse([], None, True), [["true"]], 9, 0)


def test_what_a_killed_observer_left_is_replaced(client: Path, code: bytes) -> None:
    child = os.fork()
    if not child:
        with hooks.attach(code, ALL, "s0", limits.parse([], None, True)):
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert client.s.run(["tc", "filter", "show", "dev", "s0", "egress"]).stdout
    result = look(code, ["requests"], limits.parse([], None, True), asks(client, seconds=0.1))
    assert result["services"][str(ECHO)]["latency"]["count"] == result["runs"][0]["said"][0]["requests"]


def test_the_module(made: Path, tmp_path: File) -> None:
    """By ansible; from outside of the namespace that it is to look at."""
    call = caller(made.r, tmp_path)
    asked = {"interface": "s0", "ports": [ECHO], "namespace": f"/run/netns/{made.s.name}"}
    asked["commands"] = [asks(made, seconds=0.2)]
    assert call("probes", asked, "--check")["result"] == {}
    seen = call("probes", asked)
    assert not seen["changed"]
    result = seen["result"]
    assert result["services"][str(ECHO)]["latency"]["count"] == result["runs"][0]["said"][0]["requests"] > 0
    assert "sendto" in result["syscalls"]
    assert "clsact" not in made.s.run(["tc", "qdisc", "show"]).stdout


def test_what_the_kernel_lacks_is_named(client: Path, code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TYPES", "/nonexistent")
    with pytest.raises(Exception, match=r"to observe syscalls needs .*CONFIG_DEBUG_INFO_BTF"):
        look(code, ["syscalls"], limits.parse([], None, True), ["true"])
    with pytest.raises(Exception, match="CONFIG_BPF_EVENTS"):
        syscall.attach_raw("no_such_tracepoint", 0)


@pytest.mark.lab
@pytest.mark.sources
def test_the_testbed_prints_its_tables(tmp_path: File) -> None:
    """client - line - server: 10 ms each way, and each 50th packet to the server lost."""
    lab = Lab(f"probetest-{os.getpid()}", base="inventories/probes")
    asked = {"probes_seconds": 3, "probes_rounds": 1, "probes_report": str(tmp_path / "some/probes.json")}
    try:
        said = lab.playbook("probes", "-e", json.dumps(asked)).stdout
        left = [lab.enter(node, ["sh", "-c", "ls /run; tc qdisc show"]).stdout for node in ("client", "server")]
    finally:
        lab.playbook("lab_down")
    result = json.loads((tmp_path / "some/probes.json").read_text())
    runs = [one for one in result["runs"] if one["observed"]]
    for own in runs[0]["said"]:
        seen = result["services"][str(own["port"])]
        assert seen["latency"]["count"] == own["requests"] > 50
        assert 20_000 / 1.13 <= seen["latency"]["p50"] < 100_000
        assert abs(seen["latency"]["mean"] - own["latency"]["mean"]) <= 0.25 * own["latency"]["mean"]
        assert seen["retransmitted"] > 0
    for words in (
        "Requests by port",
        "Latency of requests to port 23324",
        "System calls",
        "what the probes cost",
        "###",
    ):
        assert words in said
    assert not any("probes" in text or "clsact" in text for text in left), left
