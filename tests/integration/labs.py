# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual lab has on its host, by /proc and ip."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.integration.places import Lab, run

KINDS = ("net", "mnt", "uts", "pid")  # of namespaces that nodes have


def processes(lab: Lab) -> dict[int, str]:
    """The lab's processes: those whose command line or working folder is the run directory or in it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            folder = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(lab.run_dir) in command or folder.startswith(str(lab.run_dir)):
            found[int(entry.name)] = command
    return found


def started(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), field 22 of stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def keeper_of(lab: Lab) -> int:
    return int(json.loads((lab.run_dir / "keeper.pid").read_text())["pid"])


def recap(output: str) -> dict[str, int]:
    line = re.search(r"^localhost\s+:(.*)$", output, re.MULTILINE)
    assert line, output
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line[1])}


OTHERS = ("/run/netns", f"{tempfile.gettempdir()}/pytest-")


def host() -> dict[str, Any]:
    """What the lab must not touch. Other tests' may come and go meanwhile, so namespaces with names do not count, nor
    what is mounted in pytest's folders."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    links = json.loads(run(["ip", "-j", "address"]).stdout)
    return {
        "links": {
            link["ifname"]: [address["local"] for address in link["addr_info"]]
            for link in links
            if link.get("link_type") != "none" and "link_netnsid" not in link
        },
        "routes": run(["ip", "route"]).stdout,
        "forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "mounts": {mount for mount in mounts if not mount.startswith(OTHERS)},
    }


def workers(lab: Lab) -> list[int]:
    """ansible's own processes for a lab: everything with its name that is not in the lab's run directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"lab_name={lab.name}".encode() in command:
                found.append(int(entry.name))
    return found


def namespaces(pids: Iterable[int]) -> set[str]:
    """Those of processes."""
    found = set()
    for pid in pids:
        for kind in KINDS:
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:  # it has just ended
                continue
    return found


@contextlib.contextmanager
def held(lab: Lab) -> Iterator[set[str]]:
    """The namespaces of a lab's processes, with their numbers kept from being given to others meanwhile."""
    with contextlib.ExitStack() as stack:
        found = namespaces(processes(lab)) - namespaces([os.getpid()])
        for pid in processes(lab):
            for kind in KINDS:
                with contextlib.suppress(OSError):
                    stack.callback(os.close, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
        yield found


def entered() -> set[str]:
    """The namespaces of all processes of this machine, and those with a name."""
    named = {f"net:[{path.stat().st_ino}]" for path in Path("/run/netns").glob("*")}
    return named | namespaces(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)
