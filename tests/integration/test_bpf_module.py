# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module bpf: programs of a user's own, judged by tc, bpftool and packets."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.converge import Report
from plugins.module_utils.errors import TestbedError
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside, namespace
from tests.integration.own_programs import EVERY_NTH, HEAD, VERDICTS, Own, compiled, every_nth
from tests.integration.places import Call, Netns
from tests.integration.program import compiled as our_program
from tests.integration.wire import sh

PIN = f"/sys/fs/bpf/own_{os.getpid()}"
HTB = """
tc qdisc add dev t0 root handle 1: htb default 2
tc class add dev t0 parent 1: classid 1:1 htb rate 100mbit
tc class add dev t0 parent 1: classid 1:2 htb rate 100mbit
"""
IN_HTB: dict[str, Any] = {"parent": "1:", "flowid": "1:1"}
COUNT = 100


@pytest.fixture
def own() -> Iterator[Own]:
    """An interface with nothing on it, and as it was afterwards."""
    with namespace(1) as place:
        memory = Path(f"/run/impair.testbed/before/{place.number()}")
        yield Own(place, "t0")
    left = sh(f"find {PIN} 2>/dev/null || true; rm -rf {PIN}")
    assert not left
    assert not memory.exists()


def state(own: Own) -> str:
    return own.shell("tc qdisc show dev t0") + own.filters() + sh(f"ls -R {PIN} 2>/dev/null || true")


def unnumbered(report: Report) -> list[str]:
    """The steps without the numbers of maps, which are new each time."""
    return [re.sub(r"id \d+", "id", step) for step in report.steps]


def per_class(own: Own) -> list[int]:
    """Packets of the classes 1:1 and 1:2."""
    shown = own.shell("tc -s class show dev t0")
    counts = dict(re.findall(r"class htb 1:(\d) .*\n Sent \d+ bytes (\d+) pkt", shown))
    return [int(counts["1"]), int(counts["2"])]


@pytest.mark.parametrize("by", ["tc", "the module"])
def test_every_nth_packet_finds_its_class(own: Own, tmp_path: Path, by: str) -> None:
    """The classifier returns -1 for its packets, by the original's command line and by ours."""
    own.shell(HTB)
    if by == "tc":
        (tmp_path / "filter.o").write_bytes(base64.b64decode(every_nth()))
        own.shell(f"tc filter add dev t0 parent 1: bpf obj {tmp_path}/filter.o sec classifier classid 1:1")
    else:
        own.run(**IN_HTB, code=every_nth())
    own.send(COUNT)
    assert per_class(own) == [COUNT // 20, COUNT - COUNT // 20]
    own.run(state="absent")


def test_entries_are_map_updates_and_nothing_else(own: Own) -> None:
    own.shell(HTB)
    asked = {**IN_HTB, "code": every_nth(), "pin": PIN}
    before = state(own)
    checked = own.run(check=True, **asked)
    assert state(own) == before
    assert unnumbered(own.run(**asked)) == unnumbered(checked)
    loaded = own.filters()
    again = own.run(**asked)
    assert again.steps == []
    assert again.before == again.after
    assert len(again.after) == 3
    own.send(10)
    own.run(**asked, maps={"every": {"0": 4}})
    own.send(10)
    assert own.filters() == loaded
    assert own.dump(f"{PIN}/every") == {"00000000": 4}
    assert own.dump(f"{PIN}/seen") == {"00000000": 20}
    assert per_class(own) == [3, 17]  # the 12th, 16th and 20th
    (step,) = own.run(**asked, maps={"every": {"0": "hex 05 00 00 00"}}).steps
    assert step.startswith("bpftool map update id ")
    assert own.run(**asked, maps={"every": {0: 5}}).steps == []
    own.run(state="absent")
    assert state(own) == before


def test_another_program_keeps_the_maps(own: Own) -> None:
    own.run(attach="egress", code=every_nth(), pin=PIN, maps={"every": {"0": 4}})
    own.send(7)
    (step,) = own.run(attach="egress", code=every_nth("-DEVERY=7"), pin=PIN).steps
    assert step.startswith("tc filter replace dev t0 ")
    assert own.dump(f"{PIN}/every") == {"00000000": 4}
    own.send(7)
    assert own.dump(f"{PIN}/seen") == {"00000000": 14}
    own.run(state="absent")


def test_maps_of_another_size_are_made_anew(own: Own, tmp_path: Path) -> None:
    own.run(attach="egress", code=compiled(tmp_path, VERDICTS), pin=PIN, maps={"verdicts": {"8": 2}})
    own.send(5)
    larger = VERDICTS.replace("TYPE_HASH, 16", "TYPE_HASH, 32")
    own.run(attach="egress", code=compiled(tmp_path, larger), pin=PIN)
    assert own.dump(f"{PIN}/verdicts") == {}
    assert own.dump(f"{PIN}/seen") == {"00000000": 5}
    assert '"max_entries":32' in sh(f"bpftool -j map show pinned {PIN}/verdicts").replace(" ", "")
    own.run(state="absent")


def test_a_verdict_where_packets_leave(own: Own, tmp_path: Path) -> None:
    """What the program does not drop goes on; the filter of somebody else stays."""
    own.shell("tc qdisc add dev t0 clsact", "tc filter add dev t0 egress pref 200 bpf da bytecode '1,6 0 0 0'")
    foreign = own.filters()
    arp = f"hex {(0x0806).to_bytes(2, 'big').hex()}"
    own.run(attach="egress", code=compiled(tmp_path, VERDICTS), maps={"verdicts": {arp: 2}})
    assert all(line in own.filters() for line in foreign.splitlines())
    before = _sent(own)
    own.send(5, "arp")
    own.send(4, "ip")
    assert _sent(own) - before == 4
    own.run(state="absent")
    assert own.filters() == foreign
    own.shell("tc qdisc del dev t0 clsact")


def _sent(own: Own) -> int:
    """Frames that came out of the other end."""
    return int(json.loads(own.shell("ip -s -j link show p0"))[0]["stats64"]["rx"]["packets"])


def test_global_variables_are_the_programs_own(own: Own, tmp_path: Path) -> None:
    """Another first value is another program; a map that both have stays."""
    text = """
    MAP(seen, BPF_MAP_TYPE_ARRAY, 1, unsigned, unsigned long);
    volatile int verdict = %d;
    static volatile const int first = 1;
    SEC("classifier") int own(struct __sk_buff *skb)
    {
        unsigned zero = 0;
        unsigned long *count = lookup(&seen, &zero);
        if (count)
            __sync_fetch_and_add(count, first);
        return verdict;
    }
    """
    before = _sent(own)
    for verdict, sent in ((2, 0), (-1, 3)):
        asked = {"attach": "egress", "code": compiled(tmp_path, text % verdict), "pin": PIN}
        assert own.run(False, **asked).changed
        assert own.run(False, **asked).steps == []
        own.send(3)
        assert _sent(own) - before == sent
    assert own.dump(f"{PIN}/seen") == {"00000000": 6}
    own.run(state="absent")


def test_a_place_and_a_protocol_change(own: Own) -> None:
    own.shell(HTB)
    code = every_nth()
    places: list[tuple[dict[str, Any], str]] = [
        ({"attach": "egress"}, "direct-action"),
        ({"attach": "ingress", "protocol": "ip"}, "protocol ip pref 100 bpf"),
        ({"attach": "ingress", "protocol": "ipv6"}, "protocol ipv6 pref 100 bpf"),
        ({"attach": "ingress", "protocol": "ipv6", "priority": 7}, "pref 7 bpf"),
        (IN_HTB, "flowid 1:1"),
        ({"parent": "1:", "flowid": "1:2"}, "flowid 1:2"),
        ({"parent": "1:", "direct_action": True}, "direct-action"),
    ]
    for place, shown in places:
        own.run(**place, code=code)
        (line,) = re.findall(r".*impair\.bpf:mine:.*", own.filters())
        assert shown in line
        assert own.run(**place, code=code).steps == []
    assert "clsact" not in own.shell("tc qdisc show dev t0")
    own.run(state="absent")
    assert "bpf" not in own.filters()


def test_two_programs_share_the_qdisc_and_a_map(own: Own) -> None:
    before = state(own)
    own.run(name="one", attach="egress", priority=1, code=every_nth(), pin=PIN)
    own.run(name="two", attach="ingress", priority=1, code=every_nth("-DEVERY=3"), pin=PIN)
    own.send(5)
    assert own.dump(f"{PIN}/seen") == {"00000000": 5}
    own.run(name="two", state="absent")
    assert own.dump(f"{PIN}/seen") == {"00000000": 5}
    own.run(name="one", state="absent")
    assert state(own) == before


@pytest.mark.parametrize("first", ["impairment", "bpf"])
@pytest.mark.parametrize("last", ["impairment", "bpf"])
def test_the_qdisc_is_shared_with_an_impairment(own: Own, first: str, last: str) -> None:
    """Whoever goes last takes it away."""
    before = state(own)
    program = our_program()

    def impair() -> None:
        asked = [{"name": "t0", "drop": {"pattern": "0010"}}]
        with inside(own.place):
            engine.apply(asked, [], program=program)
            assert engine.apply(asked, [], program=program).report.steps == []

    def clear() -> None:
        with inside(own.place):
            engine.clear()

    def attach() -> None:
        own.run(attach="egress", code=every_nth())
        assert own.run(attach="egress", code=every_nth()).steps == []

    made = {"impairment": impair, "bpf": attach}
    gone = {"impairment": clear, "bpf": lambda: own.run(state="absent")}
    made.pop(first)()
    made.popitem()[1]()
    assert len(re.findall("handle 0x1 imp|tcx/egress .* name imp_", own.filters())) == 2
    ending = gone.pop(last)
    gone.popitem()[1]()
    assert len(re.findall("handle 0x1 imp|tcx/egress .* name imp_", own.filters())) == 1
    ending()
    assert state(own) == before


def test_what_is_refused_touches_nothing(own: Own, tmp_path: Path) -> None:
    own.shell(
        HTB, "tc filter add dev t0 parent 1: pref 9 bpf bytecode '1,6 0 0 0' flowid 1:2", "tc qdisc add dev t0 ingress"
    )
    two = 'SEC("a") int f(struct __sk_buff *s) { return 1; } SEC("b") int g(struct __sk_buff *s) { return 2; }'
    pair = 'SEC("a") int f(struct __sk_buff *s) { return 1; } SEC("a") int g(struct __sk_buff *s) { return 2; }'
    verdicts, nth = compiled(tmp_path, VERDICTS), every_nth()
    here = {**IN_HTB, "code": nth}
    before = state(own)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"code": nth}, "attach: None is refused; write attach"),
        ({**here, "attach": "egress"}, "write attach"),
        ({"attach": "egress", "code": nth}, "holds an ingress qdisc, beside which no program can stand"),
        ({"attach": "ingress", "flowid": "1:1", "code": nth}, "flowid: '1:1' is refused; classes stand in a tree"),
        ({**here, "name": "a:b"}, "name: 'a:b' is refused"),
        ({**here, "interface": "none0"}, "interface: 'none0' is refused; this node has the interfaces lo, p0, t0"),
        ({**here, "parent": "2:"}, "parent: '2:' is refused; t0 has the handles 1:, 1:1, 1:2"),
        ({**here, "parent": "x"}, "parent: 'x' is refused"),
        ({**here, "parent": "ffff:fff3"}, "parent: 'ffff:fff3' is refused"),
        ({**here, "flowid": "1:3"}, "flowid: '1:3' is refused; t0 has the classes 1:1, 1:2"),
        ({**here, "priority": 65111}, "priority: 65111 is refused; write a whole number from 1 to 65110"),
        ({**here, "priority": 9}, "was not made by this task; choose another priority"),
        ({**here, "section": "xdp"}, "own.o has no program in a section xdp; its sections with code: classifier"),
        ({**here, "code": compiled(tmp_path, two)}, "section: None is refused; own.o has several: a, b; say which"),
        ({**here, "code": compiled(tmp_path, pair)}, "has several programs: f, g; say which"),
        ({**here, "code": compiled(tmp_path, "int x;")}, "has no program"),
        ({**here, "maps": {"none": {}}}, "maps.none: {} is refused; the program uses the maps every, seen"),
        ({**here, "maps": {"every": 5}}, "maps.every: 5 is refused; write a mapping"),
        ({**here, "maps": {"every": {"1": 5}}}, "maps.every.1: '1' is refused; this array has the keys 0 to 0"),
        ({**here, "maps": {"every": {"0": 2**32}}}, "a whole number from -2147483648 to 4294967295"),
        ({**here, "maps": {"every": {"0": 1, "hex 00 00 00 00": 2}}}, "write each key once"),
        ({**here, "maps": {"every": {"0": "hex 01 02"}}}, "the values of this map have 4 bytes"),
        ({**here, "maps": {"every": {"hex 0": 1}}}, "the keys of this map have 4 bytes"),
        ({**here, "code": verdicts, "maps": {"verdicts": {"65536": 1}}}, "from -32768 to 65535"),
        ({**here, "pin": "mine"}, "pin: 'mine' is refused"),
        ({**here, "pin": "/sys/fs/bpf/a.b"}, "pin: '/sys/fs/bpf/a.b' is refused"),
        ({**here, "pin": "/tmp"}, "pin: '/tmp' is refused; write a folder in a BPF file system"),
        ({**here, "code": None, "remote_src": True}, "object: 'own.o' is refused; it cannot be read on the node"),
    ]
    for asked, said in cases:
        with pytest.raises(TestbedError) as refusal:
            own.run(**asked)
        assert said in str(refusal.value)
    assert state(own) == before


def test_a_pin_of_somebody_else_stays(own: Own) -> None:
    sh(f"mkdir {PIN}; bpftool map create {PIN}/seen type hash key 4 value 4 entries 9 name seen")
    shown = sh(f"bpftool map show pinned {PIN}/seen")
    try:
        with pytest.raises(TestbedError, match=f"pin: {PIN}/seen is another map than the program has"):
            own.run(attach="egress", code=every_nth(), pin=PIN)
        assert sh(f"bpftool map show pinned {PIN}/seen") == shown
        assert own.filters() == ""
    finally:
        sh(f"rm -r {PIN}")


def test_as_a_playbook_calls_it(netns: Netns, call: Call, tmp_path: Path) -> None:
    """The controller compiles; the node gets an object. What is wrong there is told by the task."""
    asked: dict[str, Any] = {"name": "nth", "interface": netns.device, "attach": "egress", "source": str(EVERY_NTH)}
    entries = {"maps": {"every": {"0": 3}}}
    checked = call("bpf", {**asked, **entries}, "--check", "--diff")
    assert checked["changed"]
    assert netns.run(["tc", "filter", "show", "dev", netns.device, "egress"], check=False).stdout == ""
    made = call("bpf", {**asked, **entries}, "--diff")
    assert made["changed"]
    assert "+filter dev veth0" in "\n".join(f"+{line}" for line in made["after"])
    assert sorted(made["maps"]) == ["every", "seen"]
    shown = netns.run(["tc", "filter", "show", "dev", netns.device, "egress"]).stdout
    assert "impair.bpf:nth:" in shown
    assert not call("bpf", {**asked, **entries})["changed"]
    assert call("bpf", {**asked, "flags": ["-DEVERY=7"]})["changed"]

    built = tmp_path / "built.o"
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", *_headers(), "-c", EVERY_NTH, "-o", built], check=True
    )
    here = {key: value for key, value in asked.items() if key != "source"}
    assert call("bpf", {**here, "object": str(built)})["changed"]
    assert not call("bpf", {**here, "object": str(built), "remote_src": True})["changed"]

    bad = tmp_path / "bad.c"
    bad.write_text(HEAD + "int f(void) { return none; }", encoding="utf-8")
    for more, said in (
        ({"source": str(bad)}, "clang refuses "),
        ({"source": str(tmp_path / "none.c")}, "Could not find or access"),
        ({"source": str(bad), "object": str(built)}, "mutually exclusive"),
        ({}, "any of the following are missing: source, object"),
    ):
        refused = call("bpf", {**here, **more})
        assert refused["failed"]
        assert said in refused["msg"]
    assert call("bpf", {"name": "nth", "interface": netns.device, "state": "absent"})["changed"]
    assert "clsact" not in netns.run(["tc", "qdisc", "show", "dev", netns.device]).stdout


def _headers() -> list[str]:
    folder = Path("/usr/include", f"{os.uname().machine}-linux-gnu")
    return [f"-I{folder}"] if folder.is_dir() else []
