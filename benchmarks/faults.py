# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs a packet that passes a bridge to be counted, so that every 1000th can be dropped, by whatever counts.

Small UDP packets on one CPU, as in forwarding.py. Each way has a process with a network namespace of its own, and they
take turns of some hundredths of a second: what else the machine does meets all of them. What a way adds in a turn is
its time less that of the same turn with nothing in the way; of a round's turns the median counts. Each round makes all
ways anew, as a program is faster at one place of the memory than at another, and there are more rounds until the ratios
that have a goal agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from . import forwarding, packets, place, trees
from .rows import Row, middle, spread
from .trees import INTERFACE

ROUNDS = 7  # at least
MOST_ROUNDS = 2  # times as many
NARROW = 0.1  # of the median: the middle half of the rounds' ratios
TURNS = 11  # of a round
COUNT = 30_000  # packets of one turn; so many that a rule that drops nothing is found out
BATCH = 64  # packets that flood.c sends at a time
EVERY = 1000
MANY = 1000  # rules
AGAINST_IPTABLES, MANY_AGAINST_ONE = 0.3, 1.5
DROPPING = ("bpf", "class", "nft", "iptables")  # of all packets each EVERYth: a rule that sees none is found out
MAYBE = (f"bpf {MANY}", "netem")  # each rule's own, or by chance
STRAY = 10  # packets of the bridge's own
TRIES = 3  # a machine that halts loses packets in queues
LIMIT = 500  # seconds under User-Mode-Linux
NETFILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"
JIT = Path("/proc/sys/net/core/bpf_jit_enable")


def _run(*lines: str) -> None:
    subprocess.run(["sh", "-e"], input="\n".join(lines), text=True, check=True, capture_output=True)


def _bpf(rules: int) -> None:
    """Our program alone: the queues that the engine makes beside it are taken away."""
    from plugins.module_utils.impairment import engine
    from plugins.plugin_utils import clang
    from plugins.plugin_utils.programs import SOURCE

    program = engine.Program(clang.compile_program(SOURCE), "")
    addresses = [trees.address(number) for number in range(rules)]
    matches = [{"destination": address} for address in addresses] if rules > 1 else [{"protocol": "udp"}]
    classes = [{"name": str(number), "match": one, "drop": {"every": EVERY}} for number, one in enumerate(matches)]
    engine.apply([{"name": INTERFACE, "classes": classes}], [], program=program, offloads="keep")
    _run(f"tc qdisc del dev {INTERFACE} root")


def _class() -> None:
    """As `impairment` has it: the program and the queues."""
    from plugins.module_utils.impairment import engine
    from plugins.plugin_utils import clang
    from plugins.plugin_utils.programs import SOURCE

    program = engine.Program(clang.compile_program(SOURCE), "")
    asked = [{"name": INTERFACE, "classes": [{"name": "udp", "match": {"protocol": "udp"}, "drop": {"every": EVERY}}]}]
    engine.apply(asked, [], program=program)


def _iptables(rule: bool) -> None:
    Path(NETFILTER).write_text("1")
    if rule:
        words = f"-A FORWARD -p udp -m statistic --mode nth --every {EVERY} --packet 0 -j DROP"
        _run(f"iptables-nft {words} || iptables-legacy {words}")


def _nothing() -> None:
    pass


WAYS: dict[str, Callable[[], None]] = {
    "none": _nothing,
    "bpf": lambda: _bpf(1),
    f"bpf {MANY}": lambda: _bpf(MANY),
    "class": _class,
    "nft": lambda: _run(
        "nft add table bridge t",
        "nft 'add chain bridge t c { type filter hook forward priority 0; }'",
        f"nft add rule bridge t c ip protocol udp numgen inc mod {EVERY} 0 drop",
    ),
    "br_netfilter": lambda: _iptables(False),
    "iptables": lambda: _iptables(True),
    "ebtables": lambda: _run(
        "ebtables -A FORWARD -p IPv4 --ip-proto udp -j mark --mark-or 0x1 --mark-target CONTINUE",
        "ebtables -A FORWARD -p IPv4 --ip-proto udp -j mark --mark-or 0x2 --mark-target CONTINUE",
    ),
    "netem": lambda: _run(f"tc qdisc add dev {INTERFACE} root netem loss {100 / EVERY:g}%"),
}
WORDS = {
    "bpf": f"bpf, every {EVERY}th",
    f"bpf {MANY}": f"bpf, {MANY} rules",
    "class": "bpf, and the class's queues",
    "nft": f"nft bridge numgen, every {EVERY}th",
    "br_netfilter": "br_netfilter alone",
    "iptables": f"iptables statistic, every {EVERY}th",
    "ebtables": "ebtables, two marks",
    "netem": f"netem loss {100 / EVERY:g}%",
}


def serve(way: str) -> None:
    """In a namespace of its own, ns a packet for each line of standard input, or why not; with the first it is made."""
    place.enter()
    for program, lines in (("ip", forwarding.BRIDGE), ("bridge", forwarding.LEARNED)):
        subprocess.run([program, "-batch", "-"], input=lines, text=True, check=True)
    if os.path.exists(NETFILTER):
        Path(NETFILTER).write_text("0")
    flood = packets.sender()
    make = WAYS[way]
    for _line in sys.stdin:
        figure: Any
        try:
            make()
            make = _nothing
            figure = _cost(flood, COUNT, way)
        except Exception as error:  # whatever it is, it is told beside the figures
            said = getattr(error, "stderr", "") or str(error)
            figure = f"cannot: {way}: {said.strip()[:150]}"
        print(json.dumps(figure), flush=True)


def _round() -> dict[str, Any]:
    """ns a packet by way, of all turns; a text where one cannot."""
    words = [sys.executable, "-m", "benchmarks.faults", "--serve"]
    taken: dict[str, Any] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        served = {}
        for way in WAYS:
            process = subprocess.Popen([*words, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            served[way] = stack.enter_context(process)
        for turn in range(TURNS + 1):
            for way, process in served.items():
                if isinstance(taken[way], str):
                    continue
                assert process.stdin and process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                figure = json.loads(process.stdout.readline())
                if isinstance(figure, str):
                    taken[way] = figure
                elif turn:  # in the first they are made
                    taken[way].append(figure)
    return taken


def inside(rounds: int) -> dict[str, Any]:
    """The kernel, whether it translates BPF, and ns a packet of every round's turns by way; a text where one cannot."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if not os.path.exists(NETFILTER):
        subprocess.run(["modprobe", "br_netfilter"], check=False, capture_output=True)
    translated = JIT.exists() and JIT.read_text() != "0\n"
    found: dict[str, Any] = {"kernel": f"Linux {platform.release()}", "translated": translated, "rounds": []}
    while len(found["rounds"]) < rounds or (
        len(found["rounds"]) < MOST_ROUNDS * rounds and not all(_is_narrow(row) for row in _rows(found) if row.goal)
    ):
        found["rounds"].append(_round())
    return found


def _is_narrow(row: Row) -> bool:
    return row.spread is None or row.ratio is None or row.spread[1] - row.spread[0] <= NARROW * row.ratio


def _cost(flood: str, count: int, way: str) -> float:
    """ns a packet. Raises where fewer left the bridge than went in, less those that were to be dropped, each time."""
    due = count // EVERY
    least, most = (due // 2, 2 * due) if way in DROPPING else (0, 2 * due if way in MAYBE else 0)
    for _try in range(TRIES):
        before = _left()
        words = [flood, forwarding.ARRIVES, str(count), str(MANY)]
        shown = subprocess.run(words, check=True, capture_output=True, text=True)
        lost = -count // BATCH * -BATCH - (_left() - before)
        if least - STRAY <= lost <= most + STRAY:
            return float(shown.stdout)
    raise RuntimeError(f"{lost} of {count} packets were lost")


def _left() -> int:
    """Packets that the other end has received."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _colon, numbers = line.partition(":")
        if name.strip() == trees.OTHER_END:
            return int(numbers.split()[1])
    raise RuntimeError(f"{trees.OTHER_END} is gone")


def under_uml(rounds: int) -> dict[str, Any]:
    """`inside`, in a kernel that has netem. Raises RuntimeError with the last that it said."""
    from tests.integration.uml import run_inside

    with tempfile.TemporaryDirectory() as folder:
        done = run_inside([sys.executable, "-m", "benchmarks.faults", str(rounds)], Path(folder), LIMIT)
    if done.code:
        raise RuntimeError(done.output.strip()[-200:])
    return dict(json.loads(done.output.splitlines()[-1]))


def rows(rounds: int) -> Iterator[Row]:
    """What each way adds, here and under User-Mode-Linux, against iptables."""
    words = [sys.executable, "-m", "benchmarks.faults", str(rounds)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-200:])
        yield from _rows(json.loads(done.stdout.splitlines()[-1]))
        yield from _rows(under_uml(max(3, rounds // 2)))
    except RuntimeError as error:
        yield Row("packet, faults", f"cannot: {error}", "")


def _rows(found: dict[str, Any]) -> Iterator[Row]:
    def added(way: str) -> Any:
        """By round; or the reason why there is nothing."""
        reasons = [one for taken in found["rounds"] for one in (taken["none"], taken[way]) if isinstance(one, str)]
        if reasons:
            return reasons[0]
        return [median(cost - none for cost, none in zip(taken[way], taken["none"])) for taken in found["rounds"]]

    def row(way: str, peer: str, goal: float | None = None) -> Row:
        ours, other = added(way), added(peer)
        half = None if isinstance(ours, str) or isinstance(other, str) else spread(ours, other)
        name = f"packet, added by {WORDS[way]}, against {WORDS[peer]}, {found['kernel']}"
        figures = [one if isinstance(one, str) else middle(one) for one in (ours, other)]
        return Row(name, figures[0], figures[1], goal, half)

    yield row("bpf", "iptables", AGAINST_IPTABLES if found["translated"] else None)
    yield row(f"bpf {MANY}", "bpf", MANY_AGAINST_ONE)
    for way in ("class", "nft", "br_netfilter", "ebtables", "netem"):
        yield row(way, "iptables")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        print(json.dumps(inside(int(sys.argv[1]))))
