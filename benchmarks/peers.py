# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One peer in a process of its own: it builds, dumps, runs again and changes one value, and prints the seconds of each.

usage: python -m benchmarks.peers PEER CLASSES FILTERS     prints {"build": 0.05, "dump": …, "no change": "cannot", …}
A value is seconds, or "cannot" with the reason.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from . import place, trees

Figures = dict[str, Any]
CANNOT_COMPARE = "cannot: it does not compare what stands with what is wanted"


def timed(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def apart(act: Callable[[], float]) -> float:
    """In a copy of this process, so that nothing is remembered from one run to the next; the modules are imported."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(act()).encode())
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as answer:
        figure = answer.read()
    os.waitpid(child, 0)
    if not figure:
        raise RuntimeError("the run failed")
    return float(json.loads(figure))


def ours(classes: int, filters: int) -> Figures:
    """The engine: kernel observed, planned, sent, read back and planned again.

    `texts` is what comes before: the parameters of the module parsed and checked, up to the wanted tree;
    `words` what comes behind: the result, with the trees before and after in words.
    """
    from plugins.module_utils.converge import Report, Target, converge
    from plugins.module_utils.netlink import Socket
    from plugins.module_utils.report import result
    from plugins.module_utils.tc import tree
    from plugins.module_utils.tc.domain import TcDomain
    from plugins.module_utils.tc.kinds import htb, u32  # noqa: F401  # imported before, as pyroute2 is

    def parsed(changed: bool) -> Any:
        given = trees.entries(classes, filters, changed)
        return tree.build(given["qdiscs"], given["classes"], given["filters"])

    def run(wanted: Any) -> Report:
        with Socket() as rtnetlink:
            domain = TcDomain(rtnetlink, trees.INTERFACE)
            domain.claim(wanted, owned=None, purge=False)
            return converge([Target(domain, wanted)])

    def timed_run(changes: bool, changed: bool) -> float:
        wanted = parsed(changed)
        start = time.perf_counter()
        report = run(wanted)
        took = time.perf_counter() - start
        if report.changed != changes:
            raise RuntimeError(f"changed is {report.changed}")
        return took

    def words() -> float:
        report = run(parsed(False))
        return timed(lambda: result(report))

    def dump() -> float:
        with Socket() as rtnetlink:
            return timed(TcDomain(rtnetlink, trees.INTERFACE).observe)

    return {
        "texts": apart(lambda: timed(lambda: parsed(False))),
        "build": apart(lambda: timed_run(True, False)),
        "dump": apart(dump),
        "no change": apart(lambda: timed_run(False, False)),
        "words": apart(words),
        "one value": apart(lambda: timed_run(True, True)),
    }


def whole(classes: int, filters: int) -> Figures:
    """A new python3, our imports, parameters out of JSON, parsed and checked, the engine, and the result as JSON."""

    def run(tree: dict[str, Any]) -> None:
        text = json.dumps({**tree, "state": "present", "purge": False, "disruptive": "refuse", "check": False})
        subprocess.run([sys.executable, "-m", "benchmarks.whole"], input=text, text=True, check=True, stdout=quiet)

    wanted = trees.entries(classes, filters)
    with open(os.devnull, "w", encoding="ascii") as quiet:
        return {
            "build": timed(lambda: run(wanted)),
            "no change": timed(lambda: run(wanted)),
            "one value": timed(lambda: run(trees.entries(classes, filters, True))),
        }


def tc(arguments: list[str]) -> None:
    subprocess.run(["tc", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tc_dump() -> None:
    for role in ("qdisc", "class", "filter"):
        tc([role, "show", "dev", trees.INTERFACE])


def tc_batch(classes: int, filters: int) -> Figures:
    path = f"/run/{os.getpid()}.batch"
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(f"{line}\n" for line in trees.commands(classes, filters)))
    return {
        "build": timed(lambda: tc(["-batch", path])),
        "dump": timed(tc_dump),
        "no change": CANNOT_COMPARE,
        "one value": timed(lambda: tc(trees.change_command(classes).split())),
    }


def tc_each(classes: int, filters: int) -> Figures:
    lines = trees.commands(classes, filters)

    def build() -> None:
        for line in lines:
            tc(line.split())

    return {
        "build": timed(build),
        "dump": timed(tc_dump),
        "no change": CANNOT_COMPARE,
        "one value": timed(lambda: tc(trees.change_command(classes).split())),
    }


def pyroute2(classes: int, filters: int) -> Figures:
    from pyroute2 import IPRoute

    tree = trees.entries(classes, filters)

    def add_class(ipr: Any, verb: str, entry: dict[str, Any]) -> None:
        rates = {"rate": entry["rate"], "ceil": entry.get("ceil", entry["rate"]), "quantum": 1500}
        ipr.tc(verb, "htb", index, entry["classid"], parent=entry["parent"], **rates)

    def build(ipr: Any) -> None:
        ipr.tc("add", "htb", index, "1:", default=0)
        for entry in tree["classes"]:
            add_class(ipr, "add-class", entry)
        for number, entry in enumerate(tree["filters"]):
            value = int.from_bytes(bytes(map(int, trees.address(number).split("."))), "big")
            keys = [f"{value:#x}/0xffffffff+16"]
            target = int(entry["flowid"].replace("1:", ""), 16) | 0x10000
            place = {"parent": 0x10000, "prio": entry["prio"], "protocol": 0x800}
            ipr.tc("add-filter", "u32", index, **place, target=target, keys=keys)

    def dump(ipr: Any) -> None:
        for read in (ipr.get_qdiscs, ipr.get_classes, ipr.get_filters):
            list(read(index=index))

    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname=trees.INTERFACE)[0]
        changed = trees.entries(classes, filters, True)["classes"][1 + classes // 2]
        return {
            "build": timed(lambda: build(ipr)),
            "dump": timed(lambda: dump(ipr)),
            "no change": CANNOT_COMPARE,
            "one value": timed(lambda: add_class(ipr, "change-class", changed)),
        }


def tcconfig(classes: int, filters: int) -> Figures:
    """tcset per rule: it has one class and one filter a rule, and no trees."""
    program = os.path.join(os.environ.get("BENCH_PEERS", ""), "bin", "tcset")
    if not os.path.exists(program):
        raise RuntimeError("cannot: tcconfig is not installed; `make bench` does that")

    def rule(number: int, verb: list[str], kbit: str) -> None:
        words = [trees.INTERFACE, "--network", f"{trees.address(number)}/32", "--rate", kbit.replace("kbit", "kbps")]
        done = subprocess.run([program, *words, *verb], capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr + done.stdout).strip().splitlines()
            raise RuntimeError(f"cannot: tcset says {said[-1] if said else done.returncode}")

    def build() -> None:
        for number in range(classes):
            rule(number, ["--add"] if number else [], trees.rate(number))

    shown = [os.path.join(os.path.dirname(program), "tcshow"), trees.INTERFACE]
    return {
        "build": timed(build),
        "dump": timed(lambda: subprocess.run(shown, check=True, capture_output=True)),
        "no change": CANNOT_COMPARE,
        "one value": timed(lambda: rule(classes // 2, ["--change"], trees.rate(classes // 2, True))),
    }


PEERS = {"ours": ours, "whole": whole, "tc -batch": tc_batch, "tc": tc_each, "pyroute2": pyroute2, "tcconfig": tcconfig}


def main() -> None:
    peer, classes, filters = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    place.enter()
    quiet = io.StringIO()
    try:
        with redirect_stdout(quiet), redirect_stderr(quiet):
            figures = PEERS[peer](classes, filters)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        words = str(error) if str(error).startswith("cannot") else f"cannot: {error}"
        figures = dict.fromkeys(("build", "dump", "no change", "one value"), words)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
