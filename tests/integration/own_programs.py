# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's own BPF programs for tests: small C sources, and the module bpf at work in the test's process."""

from __future__ import annotations

import base64
import json
import socket
from functools import cache
from pathlib import Path
from typing import Any

from plugins.module_utils.bpf import attach
from plugins.module_utils.converge import Report
from plugins.plugin_utils import clang
from tests.integration.engine import inside
from tests.integration.places import CHECKOUT, Netns
from tests.integration.wire import sh
from tests.oracle import programs

EVERY_NTH = CHECKOUT / "files/bpf/every_nth.c"
HEAD = """
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))
static void *(*lookup)(const void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
char licence[] SEC("license") = "GPL";
#define MAP(name, kind, entries, keys, values) \\
    struct { int (*type)[kind]; int (*max_entries)[entries]; keys *key; values *value; } name SEC(".maps")
"""
# Verdicts by the packet's protocol, -1 where none is told; counts all.
VERDICTS = """
MAP(seen, BPF_MAP_TYPE_ARRAY, 1, unsigned, unsigned long);
MAP(verdicts, BPF_MAP_TYPE_HASH, 16, unsigned short, int);
SEC("classifier") int verdict(struct __sk_buff *skb)
{
    unsigned zero = 0;
    unsigned short key = skb->protocol;
    unsigned long *count = lookup(&seen, &zero);
    int *found = lookup(&verdicts, &key);
    if (count)
        __sync_fetch_and_add(count, 1);
    return found ? *found : -1;
}
"""
# What the verifier refuses: a look-up's result that nobody checked.
UNCHECKED = """
MAP(rules, BPF_MAP_TYPE_HASH, 16, unsigned, int);
SEC("classifier") int unchecked(struct __sk_buff *skb)
{
    unsigned key = skb->protocol;
    return *(int *)lookup(&rules, &key);
}
"""
# Also: a byte that the packet may not have.
BEYOND = """
SEC("classifier") int beyond(struct __sk_buff *skb) { return *(unsigned char *)(unsigned long)skb->data; }
"""
# A loop without an end, whose way the verifier follows until it gives up.
ENDLESS = """
SEC("classifier") int endless(struct __sk_buff *skb)
{
    unsigned turns = 0;
    while (*(volatile unsigned *)&skb->len != turns)
        turns = turns * 3 + 1;
    return turns;
}
"""
ETHERTYPES = {"ip": 0x0800, "arp": 0x0806}


@cache
def every_nth(*flags: str) -> str:
    return base64.b64encode(clang.compile_program(EVERY_NTH, (*clang.FLAGS, "-g", *flags))).decode()


def compiled(folder: Path, text: str, *flags: str) -> str:
    """The object file in base64, as the module gets it."""
    source = folder / "own.c"
    source.write_text(HEAD + text, encoding="utf-8")
    return base64.b64encode(clang.compile_program(source, (*clang.FLAGS, "-g", *flags))).decode()


class Own:
    """The module bpf at the interface `device`, and what tc and bpftool say of it."""

    def __init__(self, place: Netns, device: str) -> None:
        self.place, self.device = place, device

    def run(self, check: bool = False, **asked: Any) -> Report:
        """What the module does; `asked`: its parameters beside name and interface."""
        with inside(self.place):
            return self.run_here(check, **asked)

    def run_here(self, check: bool = False, **asked: Any) -> Report:
        """By a process that is in the namespace already."""
        common = {"name": "mine", "interface": self.device, "priority": 100, "object": "own.o"}
        return attach.run({**common, **asked}, check)[0]

    def shell(self, *lines: str) -> str:
        with inside(self.place):
            return sh(*lines)

    def filters(self) -> str:
        """With the kernel's number of each program."""
        standing = self.shell(f"tc qdisc show dev {self.device}")  # elsewhere tc would not know where to look
        places = {"egress": "clsact ", "ingress": "ffff:fff1", "parent 1:": " 1: "}
        asked = [place for place, qdisc in places.items() if qdisc in standing and place != "egress"]
        with inside(self.place):
            return programs.leaving(self.device) + sh(*(f"tc filter show dev {self.device} {place}" for place in asked))

    def dump(self, path: str) -> dict[str, int]:
        """A map's entries by bpftool: numbers by the hexadecimal of their keys."""
        found = json.loads(sh(f"bpftool -j map dump pinned {path}"))
        return {_hex(one["key"]): int.from_bytes(bytes.fromhex(_hex(one["value"])), "little") for one in found}

    def send(self, count: int, kind: str = "ip", quiet: bool = True) -> None:
        """Frames from this interface; `quiet`: the kernel may tell that one was dropped."""
        with inside(self.place), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((self.device, 0))
            for _number in range(count):
                try:
                    sender.send(b"\2" * 12 + ETHERTYPES[kind].to_bytes(2, "big") + bytes(50))
                except OSError:
                    if not quiet:
                        raise


def _hex(data: list[str]) -> str:
    return "".join(part.removeprefix("0x") for part in data)
