# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains against the kernel: judged by iptables-save, ebtables-save, nft and packets."""

from __future__ import annotations

import itertools
import os
import random
import select
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from plugins.module_utils.capabilities import Capabilities, load
from plugins.module_utils.chains.domain import ChainsDomain, owned
from plugins.module_utils.chains.model import EMPTY, Chain, ChainsState, Jump
from plugins.module_utils.chains.rules import hold
from plugins.module_utils.chains.variants import choose
from plugins.module_utils.converge import Target, converge
from plugins.module_utils.errors import InvalidInput, RolledBack
from tests.integration.chains_rules import (
    ALL,
    BAD,
    CHAIN,
    IPTABLES,
    ORIGINAL,
    POOL,
    Refusing,
    domain,
    entry,
    inside,
    make,
    namespace,
    saved,
    state,
)
from tests.integration.places import Netns, run
from tests.oracle import chains as oracle


@pytest.fixture
def netns() -> Iterator[Netns]:
    """A namespace with nothing but loopback: no multicast listener reports disturb its counters."""
    yield from namespace(f"impair-chains-{os.getpid()}")


@pytest.fixture
def second(netns: Netns) -> Iterator[Netns]:
    """Another namespace, to see there what a shell makes of the lines."""
    yield from namespace(f"{netns.name}-second")


@pytest.fixture(scope="session")
def capabilities(tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    return load(str(tmp_path_factory.mktemp("cache") / "capabilities.json"))


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_original_lines_make_the_same_node(
    netns: Netns, second: Netns, capabilities: Capabilities, variant: str
) -> None:
    commands = {"iptables": f"iptables-{variant}", "ebtables": "ebtables-nft"}
    for line in ORIGINAL.strip().split("\n"):
        name, *rest = shlex.split(line)
        netns.run([commands[name], *rest])
    with inside(second):
        hold(
            capabilities,
            ("iptables",),
            [
                entry("OUTPUT", "-p tcp --dport 7575 -j MARK --set-mark 1"),
                entry("INPUT", "-p tcp --sport 7575 -j MARK --set-mark 1"),
                entry("FORWARD", "-m statistic --mode nth --every 20 --packet 0 -j MARK --set-mark 3"),
            ],
            variant,
        )
        marks = [f"{way} enx8cae4cf5b7ae -j mark --set-mark 2 --mark-target CONTINUE" for way in ("-i", "-o")]
        hold(capabilities, ("ebtables",), [entry("FORWARD", *marks)])
    for command in commands.values():
        typed = oracle.as_typed(saved(netns, command))
        assert typed, "the shell's lines made nothing: nothing is compared"
        assert oracle.as_typed(saved(second, command)) == typed


@pytest.mark.parametrize(("family", "variant"), ALL)
def test_any_state_can_be_reached_from_any_other(netns: Netns, second: Netns, family: str, variant: str) -> None:
    """Random edits among random foreign rules; a shell's `-A` lines in another namespace say what must stand."""
    pick = random.Random(f"{family} {variant}")
    of, pool = domain(family, variant), POOL[family]
    command, table = of.program.command, of.table
    for mark in range(3):
        foreign = f"--mark {mark}" if family == "ebtables" else f"-m mark --mark {mark}"
        netns.run([command, "-t", table, "-A", "FORWARD", *foreign.split(), "-j", "ACCEPT"])
    before = oracle.foreign(saved(netns, command, "-c"))
    for _round in range(25):
        rules = [pick.choice(pool) for _rule in range(pick.randrange(6))]
        place = pick.choice([None, 0, 1, 3, 7])
        make(netns, of, state(rules, place))
        second.run([command, "-t", table, "-F"])
        for rule in rules:
            second.run([command, "-t", table, "-A", "FORWARD", *shlex.split(rule)])
        now = saved(netns, command)
        assert oracle.rules_of(now, table, CHAIN) == oracle.rules_of(saved(second, command), table, "FORWARD")
        hook = oracle.rules_of(now, table, "FORWARD")
        assert hook.count(f"-j {CHAIN}") == 1
        if place is not None:
            assert hook.index(f"-j {CHAIN}") == min(place, 3)
        assert oracle.foreign(saved(netns, command, "-c")) == before
        assert make(netns, of, state(rules, place)) == []
    make(netns, of, EMPTY)
    assert "impair-" not in saved(netns, command)
    assert oracle.foreign(saved(netns, command, "-c")) == before


@pytest.mark.parametrize(("family", "variant"), IPTABLES)
def test_counters_of_others_go_on(netns: Netns, family: str, variant: str) -> None:
    of = domain(family, variant)
    command, ping = of.program.command, ["ping", "-q", "-c", "3", "-i", "0.01", "::1" if "6" in family else "127.0.0.1"]
    netns.run([command, "-t", "mangle", "-A", "OUTPUT", "-m", "comment", "--comment", "not ours"])
    netns.run([command, "-t", "mangle", "-P", "FORWARD", "DROP"])
    netns.run(ping)
    seen = [oracle.packets(saved(netns, command, "-c"), "OUTPUT", "not ours")]
    for desired in (state(POOL[family][:3], 0), state(POOL[family][1:5]), EMPTY):
        before = oracle.foreign(saved(netns, command, "-c"))
        make(netns, of, desired)
        assert oracle.foreign(saved(netns, command, "-c")) == before
        netns.run(ping)
        seen.append(oracle.packets(saved(netns, command, "-c"), "OUTPUT", "not ours"))
    assert seen[0] > 0
    assert seen == [seen[0] * times for times in (1, 2, 3, 4)]


@pytest.mark.parametrize(("family", "variant"), ALL)
def test_bad_rules_touch_nothing(netns: Netns, family: str, variant: str) -> None:
    of = domain(family, variant)
    command, good = of.program.command, POOL[family][:2]
    netns.run([command, "-t", of.table, "-A", "FORWARD", "-j", "ACCEPT"])
    make(netns, of, state(good))
    before = oracle.tables(saved(netns, command, "-c"))
    for bad in BAD[family]:
        with pytest.raises(InvalidInput) as refusal:
            make(netns, of, state([*good, bad, good[0]]))
        assert refusal.value.path == "rules[2]", bad
        assert oracle.tables(saved(netns, command, "-c")) == before, bad


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_rule_for_the_other_family_is_not_dropped_in_silence(netns: Netns, variant: str) -> None:
    """iptables-restore skips rules with -6 and says nothing."""
    with pytest.raises(InvalidInput, match="-6"):
        make(netns, domain("iptables", variant), state(["-6 -p tcp -j ACCEPT", "-j ACCEPT"]))
    assert "impair-" not in saved(netns, f"iptables-{variant}")


@pytest.mark.parametrize(("family", "variant"), ALL)
def test_check_mode_says_the_steps_that_the_run_then_makes(netns: Netns, family: str, variant: str) -> None:
    of = domain(family, variant)
    steps = make(netns, of, state(POOL[family][:3]), check=True)
    assert saved(netns, of.program.command).count("impair-") == 0
    assert steps == make(netns, of, state(POOL[family][:3]))
    assert steps


@pytest.mark.parametrize(("family", "variant"), ALL)
def test_steps_can_be_typed(netns: Netns, second: Netns, family: str, variant: str) -> None:
    """The lines that are reported make the same state when a person types them."""
    of = domain(family, variant)
    for desired in (
        state(POOL[family][:3]),
        state(POOL[family][2:5], 0),
        state([POOL[family][4], *POOL[family][:2]], 0),
    ):
        for step in make(netns, of, desired):
            second.run(shlex.split(step, comments=True))
        command = of.program.command
        assert oracle.tables(saved(second, command))[of.table] == oracle.tables(saved(netns, command))[of.table]


def test_second_run_is_silent_on_nft(netns: Netns, capabilities: Capabilities) -> None:
    chains = [entry("FORWARD", *POOL["iptables"], table="mangle"), entry("OUTPUT", "-j MARK --set-mark 1")]
    frames = [entry("FORWARD", *POOL["ebtables"])]
    with inside(netns):
        hold(capabilities, ("iptables", "ip6tables"), chains, "nft")
        hold(capabilities, ("ebtables",), frames)
        monitor = subprocess.Popen(["stdbuf", "-oL", "nft", "monitor"], stdout=subprocess.PIPE, text=True)
        assert monitor.stdout is not None
        try:
            for number in itertools.count():  # until the monitor listens
                run(["nft", "add", "table", "ip", f"ready{number}"])
                if select.select([monitor.stdout], [], [], 0.2)[0]:
                    break
                assert number < 50
            report, _variants = hold(capabilities, ("iptables", "ip6tables"), chains, "nft")
            assert not report.changed
            report, _variants = hold(capabilities, ("ebtables",), frames)
            assert not report.changed
            run(["nft", "add", "table", "ip", "sentinel"])
            heard = []
            for line in monitor.stdout:
                heard.append(line.strip())
                if "sentinel" in line:
                    break
        finally:
            monitor.kill()
            monitor.wait()
    assert [line for line in heard if "ready" not in line and not line.startswith("# new generation")] == [
        "add table ip sentinel"
    ]


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_counts_go_on_where_the_kernel_lets_them(netns: Netns, variant: str) -> None:
    """Every third packet: a rewritten rule would match again too early."""
    of, nth = domain("iptables", variant), "-m statistic --mode nth --every 3 --packet 0 -j MARK --set-mark 3"

    def send(count: int) -> int:
        netns.run(["ping", "-q", "-c", str(count), "-i", "0.01", "127.0.0.9"])
        return oracle.packets(saved(netns, of.program.command, "-c"), CHAIN, "--every 3")

    def output(*rules: str) -> ChainsState:
        made = state(rules)
        return made._replace(jumps=(Jump("OUTPUT", CHAIN),))

    only = "-d 127.0.0.9 -p icmp"
    make(netns, of, output(f"{only} {nth}"))
    assert send(2) == 1
    assert make(netns, of, output(f"{only} {nth}")) == []
    assert send(1) == 1  # the third of three: a second run has not restarted the count
    assert send(2) == 2  # the fourth matched, and one more went by
    steps = make(netns, of, output("-p udp -j ACCEPT", f"{only} {nth}", "-p tcp -j ACCEPT"))
    assert send(1) == (2 if variant == "nft" else 3)
    cautions = [step for step in steps if "--every 3" in step and "start over" in step]
    assert len(cautions) == (0 if variant == "nft" else 1)


def test_replacing_a_counting_rule_says_that_its_count_starts_over(netns: Netns) -> None:
    of = domain("iptables", "nft")
    make(netns, of, state(POOL["iptables"][:1]))
    (step,) = make(netns, of, state(POOL["iptables"][1:2]))
    assert step.startswith(f"iptables -t mangle -R {CHAIN} 1 -m statistic --mode nth --every 7")
    assert "--every 20" in step.split("#")[1]


def test_rules_may_jump_to_chains_of_others(netns: Netns) -> None:
    of = domain("iptables", "nft")
    netns.run(["iptables-nft", "-t", "mangle", "-N", "theirs"])
    make(netns, of, state(["-p tcp -j theirs", "-p udp -g theirs"]))
    assert oracle.rules_of(saved(netns, "iptables-nft"), "mangle", CHAIN) == ["-p tcp -j theirs", "-p udp -g theirs"]


def test_two_owners_leave_each_other_alone(netns: Netns, capabilities: Capabilities) -> None:
    one = domain("iptables", "nft")
    two = ChainsDomain(one.program, "mangle", "other")
    theirs = ChainsState((Chain("impair-other-a", (("-j", "RETURN"),)),), (Jump("FORWARD", "impair-other-a", 0),))
    make(netns, one, state(POOL["iptables"][:2], 0))
    make(netns, two, theirs)
    assert make(netns, one, state(POOL["iptables"][:2], 0)) == []
    assert make(netns, two, theirs) == []
    make(netns, one, EMPTY)
    assert oracle.rules_of(saved(netns, "iptables-nft"), "mangle", "FORWARD") == ["-j impair-other-a"]
    make(netns, one, state(POOL["iptables"][:2]))
    with inside(netns):
        converge([Target(each, EMPTY) for each in owned(capabilities)])
    assert "impair-" not in saved(netns, "iptables-nft")


@pytest.mark.parametrize(("family", "variant"), ALL)
def test_roll_back_gives_back_the_observed_state(netns: Netns, family: str, variant: str) -> None:
    of = domain(family, variant)
    command, mark = of.program.command, ["--mark", "1"] if family == "ebtables" else ["-m", "mark", "--mark", "1"]
    netns.run([command, "-t", of.table, "-A", "FORWARD", *mark, "-j", "ACCEPT"])
    make(netns, of, state(POOL[family][:3]))
    netns.run([command, "-t", of.table, "-A", "FORWARD", *mark, "-j", "DROP"])
    before = oracle.tables(saved(netns, command))
    for desired in (state(POOL[family][3:], 0), EMPTY):
        with inside(netns), pytest.raises(RolledBack, match="was restored"):
            converge([Target(of, desired), Target(Refusing(), "wanted")])
        assert oracle.tables(saved(netns, command)) == before


def test_variant_that_holds_rules_is_kept(netns: Netns, capabilities: Capabilities) -> None:
    with inside(netns):
        assert choose(capabilities, "iptables").typed == "iptables"
        run(["iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT"])
        assert choose(capabilities, "iptables").variant == "legacy"
        run(["iptables-nft", "-A", "FORWARD", "-j", "ACCEPT"])
        assert choose(capabilities, "iptables").typed == "iptables"
        hold(capabilities, ("iptables",), [entry("FORWARD", "-j ACCEPT")], "legacy")
        assert choose(capabilities, "iptables").variant == "legacy"
        hold(capabilities, ("iptables",), [entry("FORWARD", "-j ACCEPT")], "nft")  # moves: none stays behind
    assert "impair-" not in saved(netns, "iptables-legacy")
    assert "impair-" in saved(netns, "iptables-nft")


@pytest.mark.parametrize("command", ["iptables-nft", "iptables-legacy", "ebtables-nft"])
def test_looking_creates_nothing(netns: Netns, command: str) -> None:
    family, variant = command.split("-")
    with inside(netns):
        domain(family, variant).observe()
    assert netns.run(["nft", "list", "ruleset"]).stdout == ""
    assert netns.run(["cat", "/proc/net/ip_tables_names"]).stdout == ""
