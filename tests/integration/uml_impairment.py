# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The impairment engine against a kernel with netem: test_impairment_uml.py runs this in one; not collected elsewhere.

tc and the files on the node judge; the engine keeps its memory below /run, which is this kernel's own.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils import guard, netlink
from plugins.module_utils.capabilities import load
from plugins.module_utils.errors import ForeignState, InvalidInput, RolledBack
from plugins.module_utils.impairment import engine
from plugins.module_utils.impairment.engine import Outcome
from plugins.module_utils.tc.kinds import netem_words
from tests.integration.places import run
from tests.unit.impairment.refused import BY_THE_PARSER, ON_THE_NODE

ROOT = Path("/run/impair.testbed")
PORTS = ("t0", "t1")  # in a bridge
ALONE = "eth0"
DEADLINE = 20  # seconds that a test waits for the node to act by itself

CLASSES: list[dict[str, Any]] = [
    {"name": "usbip", "match": {"protocol": "tcp", "port": 7575}, "rate": "100mbit"},
    {"name": "device", "match": {"bridged": True}, "rate": "128kbit", "drop": {"every": 20}},
    {"name": "other", "rate": "1mbit", "ceil": "10mbit", "delay": "20ms"},
]
ORIGINAL: list[dict[str, Any]] = [{"name": "t0", "classes": CLASSES}, {"name": "t1", "classes": CLASSES}]


class Node:
    """This kernel, which is a throwaway one."""

    @staticmethod
    def shell(*lines: str, check: bool = True) -> str:
        """What one shell prints."""
        return run(["sh", "-e"], stdin="".join(f"{line}\n" for line in lines), check=check).stdout


@pytest.fixture(scope="module")
def node() -> Node:
    """t0 and t1 in a bridge, and eth0, which has a neighbour behind it."""
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text(), (
        "these tests change the network of the kernel they run on"
    )
    made = Node()
    made.shell(
        *(f"ip link add {name} type veth peer name peer-{name}" for name in (*PORTS, ALONE)),
        "ip link add br0 type bridge",
        "for name in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$name; done",
        *(f"ip link set {port} master br0" for port in PORTS),
        *(f"ip link set {name} up; ip link set peer-{name} up" for name in (*PORTS, ALONE)),
        "ip link set br0 up",
        f"ip address add 10.9.0.1/24 dev {ALONE}",
        f"ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev {ALONE}",
    )
    load()
    return made


@pytest.fixture(autouse=True)
def clean(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts and ends without anything of ours."""
    monkeypatch.setattr(engine, "forget", lambda: None)  # the same kernel: its capabilities are tried once
    before = remains(node)
    assert "7e57:" not in before
    yield
    engine.clear()
    assert "7e57:" not in remains(node)  # only what is somebody else's is taken away by hand
    for device in (*PORTS, ALONE):
        node.shell(f"tc qdisc del dev {device} root 2>/dev/null || true")
    assert remains(node) == before


def dump(node: Node) -> str:
    """All of the node's network state, counters aside, and what we keep about it."""
    commands = ["tc qdisc show", *(f"tc class show dev {name}; tc filter show dev {name}" for name in (*PORTS, ALONE))]
    commands += ["tc actions list action gact", "ip address", "ip neighbour", "ip rule", "ip route show table all"]
    commands += [
        "iptables-legacy-save -t mangle",
        "ebtables-save",
        "ip -d link | grep -o 'gso_max_segs [0-9]*'",
        "find /run/impair.testbed/before /var/lib/impair.testbed 2>/dev/null || true",  # neither need be there
    ]
    text = node.shell(*commands)
    return re.sub(r"^#.*\n|valid_lft.*|installed \d+ sec.*|\[\d+:\d+\]", "", text, flags=re.MULTILINE)


def trees(node: Node, names: Sequence[str] = ()) -> str:
    """tc's view of all trees, without the numbers that the kernel gave: they tell how we came here, not what stands."""
    names = names or sorted(os.listdir("/sys/class/net"))
    shown = node.shell(*(f"tc qdisc show dev {name}; tc class show dev {name}" for name in names))
    filters = node.shell(*(f"tc filter show dev {name}" for name in names))
    filters = re.sub(r"pref \d+|fh \S+|ht \S+|ref \d+ bind \d+", "", filters)
    shown = re.sub(r"\b8[0-9a-f]{3}: (parent|dev)|leaf 8[0-9a-f]{3}:", r"\1", shown)
    return "\n".join(" ".join(line.split()) for line in [*sorted(shown.splitlines()), *filters.splitlines()])


def apply(interfaces: Any, **options: Any) -> Outcome:
    return engine.apply(interfaces, [], **options)


def eventually(what: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_what_is_refused_touches_nothing(node: Node) -> None:
    apply(ORIGINAL)
    before = dump(node)
    for case in (*BY_THE_PARSER, *ON_THE_NODE):
        with pytest.raises(InvalidInput) as refusal:
            apply(case.interfaces)
        assert refusal.value.path == f"impairment_interfaces{case.path}"
        assert case.allowed in refusal.value.allowed
    assert dump(node) == before


def test_one_changed_value_is_one_message(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(ORIGINAL)
    sent: list[netlink.Message] = []
    plain = netlink.Socket._pack

    def noted(self: netlink.Socket, message: netlink.Message, flags: int) -> bytes:
        sent.append(message)
        return plain(self, message, flags)

    monkeypatch.setattr(netlink.Socket, "_pack", noted)
    changed = [ORIGINAL[0], {"name": "t1", "classes": [*CLASSES[:2], {**CLASSES[2], "delay": "30ms"}]}]
    outcome = apply(changed)
    assert len(outcome.report.steps) == 1
    assert len([message for message in sent if message.type % 4 != 2]) == 1  # linux/rtnetlink.h: 2 is GET
    assert "delay 30ms" in node.shell("tc qdisc show dev t1")
    sent.clear()
    assert not apply(changed).report.changed
    assert not [message for message in sent if message.type % 4 != 2]


EDITS: list[tuple[str, list[dict[str, Any]]]] = [
    ("added in front", [{"name": "ssh", "match": {"protocol": "tcp", "port": 22}, "loss": "1%"}, *CLASSES]),
    ("reordered", [CLASSES[1], CLASSES[0], CLASSES[2]]),
    ("removed", [CLASSES[0], CLASSES[2]]),
    ("renamed", [{**CLASSES[0], "name": "usb"}, *CLASSES[1:]]),
    ("match", [{**CLASSES[0], "match": [{"protocol": "udp", "port": 7}, {"source": "10.0.0.0/8"}]}, *CLASSES[1:]]),
    ("disabled", [{**CLASSES[0], "enabled": False}, *CLASSES[1:]]),
    ("down", [CLASSES[0], {**CLASSES[1], "down": True}, CLASSES[2]]),
    ("no default", CLASSES[:2]),
]


def handles(node: Node) -> dict[str, str]:
    """Class handle by its rate, which here tells the classes apart."""
    shown = node.shell("tc class show dev t0")
    return {rate: handle for handle, rate in re.findall(r"class htb (\S+) .*?rate (\S+)", shown) if rate != "80Gbit"}


@pytest.mark.parametrize(("what", "classes"), EDITS, ids=[what for what, _classes in EDITS])
def test_an_edit_converges_to_what_a_fresh_run_makes(node: Node, what: str, classes: list[dict[str, Any]]) -> None:
    wanted = [{"name": "t0", "classes": classes}]
    apply(wanted)
    fresh = trees(node)
    engine.clear()
    apply([{"name": "t0", "classes": CLASSES}])
    before = handles(node)
    apply(wanted)
    assert trees(node) == fresh
    assert not apply(wanted).report.changed
    if what != "renamed":
        assert {rate: handle for rate, handle in handles(node).items() if rate in before}.items() <= before.items()
    apply([{"name": "t0", "classes": CLASSES}])
    assert handles(node) == before


def test_check_mode_says_the_steps_that_the_run_then_makes(node: Node) -> None:
    apply(ORIGINAL)
    before = dump(node)
    wanted = [{"name": "t0", "classes": EDITS[0][1]}, {"name": ALONE, "delay": "5ms", "loss": "1%"}]
    said = apply(wanted, check=True)
    assert said.report.changed and dump(node) == before
    assert apply(wanted).report.steps == said.report.steps


def test_an_interface_that_is_not_written_any_more_is_as_before(node: Node) -> None:
    before = dump(node)
    apply([{"name": ALONE, "delay": "5ms"}])
    alone = dump(node)
    apply([{"name": ALONE, "delay": "5ms"}, *ORIGINAL])
    apply([{"name": ALONE, "delay": "5ms"}])
    assert dump(node) == alone
    apply([])
    assert dump(node) == before


FOREIGN = "handle 5: tbf rate 3mbit burst 10kb latency 50ms"


def test_a_foreign_root_is_refused_or_given_back(node: Node) -> None:
    node.shell(f"tc qdisc add dev {ALONE} root {FOREIGN}")
    node.shell(f"tc qdisc add dev t0 root {FOREIGN}")
    before = dump(node)
    with pytest.raises(ForeignState, match="tbf"):
        apply([{"name": ALONE, "delay": "5ms"}])
    assert dump(node) == before
    apply([{"name": ALONE, "delay": "5ms"}], purge=True)
    assert "tbf 5: dev t0" in dump(node)
    engine.clear()
    assert dump(node) == before


def test_a_change_that_fails_leaves_nothing_and_forgets_what_it_saw(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(node)
    with monkeypatch.context() as broken:
        broken.setattr(netem_words, "JITTER_MAX", 2**40)  # the kernel cuts it, without a word
        with pytest.raises(RolledBack, match=r"reads back differently.*the state before was restored"):
            apply([{"name": ALONE, "delay": "5s", "jitter": "5s"}])
    assert dump(node) == before
    node.shell(f"tc qdisc add dev {ALONE} root {FOREIGN}")
    with pytest.raises(ForeignState):
        apply([{"name": ALONE, "delay": "5ms"}])


def test_a_change_that_is_not_confirmed_is_taken_back(node: Node) -> None:
    before = dump(node)
    apply(ORIGINAL, confirm_within=0.3)
    assert dump(node) != before
    eventually(lambda: dump(node) == before)
    assert not guard.PENDING.exists()
    apply(ORIGINAL)
    stands = trees(node)
    apply([{"name": "t0", "down": True}, {"name": ALONE, "delay": "1s"}], confirm_within=0.3)
    assert trees(node) != stands
    eventually(lambda: trees(node) == stands)


def guards() -> list[str]:
    """Processes beside this one that run the same program."""
    own = Path("/proc/self/cmdline").read_bytes()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.name != str(os.getpid()) and (process / "cmdline").read_bytes() == own:
                found.append(process.name)
        except OSError:
            continue
    return found


def confirm(outcome: Outcome) -> int:
    assert outcome.pending
    return os.waitstatus_to_exitcode(os.system(outcome.pending.command))


def test_a_confirmed_change_stays_and_its_guard_ends(node: Node) -> None:
    outcome = apply(ORIGINAL, confirm_within=1)
    assert confirm(outcome) == 0
    stands = dump(node)
    assert not list(guard.PENDING.glob("*"))
    eventually(lambda: not guards())
    assert dump(node) == stands


def test_a_confirmation_covers_the_changes_before_it(node: Node) -> None:
    apply(ORIGINAL, confirm_within=2)  # its confirmation was lost on the way
    outcome = apply(ORIGINAL, confirm_within=2)
    assert not outcome.report.changed
    assert confirm(outcome) == 0
    stands = dump(node)
    eventually(lambda: not guards())
    assert dump(node) == stands
    first = apply([], confirm_within=2)
    assert first.pending
    second = apply([{"name": ALONE, "delay": "5ms"}], confirm_within=2)
    assert second.pending and set(first.pending.files) < set(second.pending.files)
    assert confirm(second) == 0
    stands = dump(node)
    eventually(lambda: not guards())
    assert dump(node) == stands


def test_clear_and_trusted_changes_end_the_guards_of_changes_before(node: Node) -> None:
    apply([{"name": ALONE, "delay": "5ms"}])
    for settle in (engine.clear, lambda: apply(ORIGINAL)):
        apply([{"name": ALONE, "delay": "9ms"}], confirm_within=2)
        settle()
        stands = dump(node)
        eventually(lambda: not guards())
        assert dump(node) == stands


def test_changes_that_are_not_confirmed_are_taken_back_to_the_first_ones_start(node: Node) -> None:
    before = dump(node)
    apply(ORIGINAL, confirm_within=0.5)
    apply([{"name": ALONE, "delay": "5ms"}], confirm_within=1)
    eventually(lambda: dump(node) == before)
    assert not guard.PENDING.exists()


def killed_at(number: int, interfaces: Any, confirm_within: float = 0) -> bool:
    """Whether a run in a process of its own was killed before its `number`th message; messages go one by one."""
    child = os.fork()
    if child == 0:
        try:
            left, killed = [number], os.getpid()
            plain = netlink.Socket._pack

            def counted(self: netlink.Socket, message: netlink.Message, flags: int) -> bytes:
                if message.type % 4 != 2 and os.getpid() == killed:  # not in its guard
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                return plain(self, message, flags)

            netlink.Socket._pack = counted  # type: ignore[method-assign]
            netlink.SEND_CHUNK = 1
            apply(interfaces, confirm_within=confirm_within)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_before_any_message_it_converges_when_run_again(node: Node) -> None:
    node.shell(f"tc qdisc add dev {ALONE} root {FOREIGN}")
    asked = [{"name": "t0", "classes": CLASSES[1:]}]
    changed = [{"name": "t0", "classes": [EDITS[0][1][0], CLASSES[2]]}]
    before = remains(node)
    apply(changed)
    second = trees(node, ["t0"])
    engine.clear()
    apply(asked)
    first = trees(node, ["t0"])
    engine.clear()
    number = 0
    while killed_at(number, asked):
        if number % 2:
            apply(asked)
            assert trees(node, ["t0"]) == first, number
        else:
            killed_at(number, changed)
            apply(changed)
            assert trees(node, ["t0"]) == second, number
        engine.clear()
        assert remains(node) == before, number
        number += 1
    assert number >= 10
    while killed_at(number, []):
        number += 1
    engine.clear()
    assert remains(node) == before


def test_killed_before_any_message_an_unconfirmed_change_is_taken_back(node: Node) -> None:
    asked = [{"name": "t0", "classes": [EDITS[0][1][0], CLASSES[2]]}]
    apply(ORIGINAL)
    before = trees(node)
    number = 0
    while killed_at(number, asked, confirm_within=0.01):
        eventually(lambda: trees(node) == before and not guards())
        number += 3  # each is waited for
    assert number >= 5
    eventually(lambda: trees(node) == before and not guards())  # the last run was not killed, and not confirmed


def remains(node: Node) -> str:
    """Roots, actions, and what we remember."""
    kept = sorted(map(str, ROOT.glob("before/*")))
    return "\n".join([node.shell("tc qdisc show", "tc actions list action gact"), *kept])
