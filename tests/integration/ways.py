# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node in a namespace with things of other people on it, what tc and the *-save programs show of it, and random
impairments that its kernel carries. Knows the engine's vocabulary, and nothing of its inside."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from plugins.module_utils.capabilities import load
from tests.integration.engine import Prompt, inside, namespace
from tests.integration.places import namespace_number, run
from tests.oracle.programs import at_tcx

BRIDGED, ALONE, OTHER = ("w0", "w1"), "w2", "w3"  # OTHER is never asked for
IMPAIRED = (*BRIDGED, ALONE)
FOREIGN = f"""
for number in 0 1 2 3; do ip link set t$number down; ip link set t$number name w$number up; done
tc -batch - <<END
qdisc add dev lo root handle a5a5: pfifo
qdisc add dev {OTHER} root handle 5: tbf rate 3mbit burst 10kb latency 50ms
qdisc add dev {ALONE} root handle 9: htb default 0x2
class add dev {ALONE} parent 9: classid 9:1 htb rate 2mbit quantum 1500
class add dev {ALONE} parent 9:1 classid 9:2 htb rate 1mbit quantum 1500
qdisc add dev {ALONE} parent 9:2 handle 92: pfifo limit 7
filter add dev {ALONE} parent 9: protocol ip prio 3 u32 match ip dport 9 0xffff flowid 9:2
qdisc add dev {ALONE} clsact
filter add dev {ALONE} ingress protocol ip prio 5 u32 match ip dport 9 0xffff flowid 1:1
filter add dev {ALONE} egress protocol ip prio 5 u32 match ip sport 9 0xffff flowid 1:2
END
ip link add brw type bridge mcast_snooping 0
for port in {" ".join(BRIDGED)}; do ip link set $port master brw; done
ip link set brw up
{{iptables}} -t mangle -N theirs
{{iptables}} -t mangle -A theirs -j MARK --set-xmark 0x7/0xff
{{iptables}} -t mangle -A POSTROUTING -p tcp --dport 9 -j theirs
{{iptables}} -t mangle -A FORWARD -p udp -j MARK --set-xmark 0x100/0x100
ebtables -t nat -A PREROUTING -p IPv4 -j mark --mark-or 0x4 --mark-target CONTINUE
"""
SECTIONS = ("queues", "root", "ingress", "egress")
Shown = dict[str, list[str]]


class Node:
    """What stands on the node, by the tools of Linux."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self.memory = Path(f"/run/impair.testbed/before/{namespace_number()}")
        able = [name for name in ("iptables-legacy", "iptables-nft") if load()[name.replace("-", ".")] is True]
        saving = (*able, *(f"ip6{name[2:]}" for name in able), "ebtables")
        self._saves = "\n".join(f"{name}-save | sed 's/^[:-]/{name} &/'" for name in saving)
        prompt.run(FOREIGN.format(iptables=able[0]))
        self.untouched = self.shown()

    def shown(self) -> Shown:
        """Lines by "interface section", and those of what belongs to none."""
        names = sorted(name for _index, name in socket.if_nameindex() if name.startswith(("w", "imp")))
        places = [f"{name} {section}" for name in names for section in SECTIONS]
        lines = []
        for place in places:
            name, section = place.split()
            shows = ["qdisc", "class"] if section == "queues" else ["filter"]
            tail = "" if section in ("queues", "root") else f" {section}"
            lines += [*(f"{what} show dev {name}{tail}" for what in shows), "qdisc show dev lo"]
        actions = ["actions list action gact"] if load()["action.gact"] is True else []
        text = "\n".join([*lines, *actions])
        told = self._prompt.run(f"tc -d -force -batch - 2>/dev/null <<END || true\n{text}\nEND\n")
        parts = [part.splitlines() for part in re.split(r"^qdisc pfifo a5a5: .*\n", told, flags=re.MULTILINE)]
        assert len(parts) == len(places) + 1, told
        found = dict(zip([*places, "actions"], parts))
        found["tcx"] = "".join(map(at_tcx, names)).splitlines()
        found["maps"] = _maps("\n".join([told, *found["tcx"]]))
        saved = self._prompt.run(f"exec 2>/dev/null\n{self._saves}\nls /sys/class/net")
        # Emptied tables stay, with the chains that the kernel has in them; counters are left out.
        kept = [line for line in saved.splitlines() if not re.match(r"\*|#|COMMIT|\S+ :\S+ [A-Z]", line)]
        found["chains"] = [re.sub(r"\[\d+:\d+\]", "", line) for line in kept]
        return found

    def others(self, shown: Shown) -> list[str]:
        """Lines of what other people made that are not there any more."""
        places = [f"{OTHER} queues", f"{OTHER} root", f"{ALONE} ingress", f"{ALONE} egress", "chains"]
        return [line for place in places for line in self.untouched[place] if line not in shown[place]]


def _maps(filters: str) -> list[str]:
    """What bpftool shows of the maps of our programs among these filters, but the long arrays."""
    ids = re.findall(r"(?:\bimp_\w+ direct-action .*?|tcx/egress .* name imp_\w+) id (\d+)", filters)
    if not ids:
        return []
    lines = []
    numbers = [number for one in _bpftool([f"prog show id {number}" for number in ids]) for number in one["map_ids"]]
    shown = _bpftool([f"map show id {number}" for number in numbers])
    kept = [one for one in shown if one["name"] not in ("drops", "states")]
    for one, entries in zip(kept, _bpftool([f"map dump id {one['id']}" for one in kept])):
        lines += sorted(f"{one['name']} {' '.join(entry['key'] + entry['value'])}" for entry in entries)
    return lines


def _bpftool(commands: Sequence[str]) -> list[Any]:
    done = run(["bpftool", "-j", "batch", "file", "-"], stdin="".join(f"{line}\n" for line in commands))
    return [told["output"] for told in json.loads(done.stdout)]


@contextmanager
def node() -> Iterator[Node]:
    """In a namespace of its own, where this thread stays meanwhile."""
    load()
    with namespace(4) as place:
        prompt = Prompt(place.name)
        try:
            with inside(place):
                yield Node(prompt)
        finally:
            prompt.close()


def different(found: Shown, wanted: Shown) -> Shown:
    """Lines that one of them has alone, or, where only their order differs, all."""
    lines = {}
    for place in sorted(found.keys() | wanted.keys()):
        here, there = found.get(place, []), wanted.get(place, [])
        if here != there:
            lines[place] = [f"+{line}" for line in here if line not in there]
            lines[place] += [f"-{line}" for line in there if line not in here] or here + there
    return lines


def normal(shown: Shown) -> Shown:
    """Without the numbers that tell how we came here, and not what stands: the kernel's handles, priorities."""
    return {
        place: (_filters if place.endswith(SECTIONS[1:]) else _queues)(lines)
        for place, lines in shown.items()
        if any(line.strip() for line in lines)
    }


def _queues(lines: Sequence[str]) -> list[str]:
    found = [re.sub(r"refcnt \d+ |direct_packets_stat \d+ | seed \d+| id \d+$", "", line).strip() for line in lines]
    return sorted(re.sub(r"\b[89a-f][0-9a-f]{3}:(?=\s|1\b|$)", "auto:", line) for line in found if line)


def _filters(lines: Sequence[str]) -> list[str]:
    """In the order in which they are tried; those of one hash table of flower have none."""
    texts: list[str] = []
    for line in lines:
        if line.startswith("filter"):
            texts.append(line)
        elif texts:
            texts[-1] += f" {line.strip()}"
    found: list[str] = []
    for place, group in itertools.groupby(texts, lambda text: text.partition(" chain ")[0]):
        cleaned = [_filter(text) for text in group if not re.search(r" u32 chain \d+\s*$|ht divisor", text)]
        found += sorted(cleaned) if place.endswith(" flower") else cleaned
    return found


def _filter(text: str) -> str:
    """Without its numbers, and without the index of an action of its own."""
    text = re.sub(r"index \d+ ref 1 bind 1|pref \d+|fh \S+|order \d+ key ht \S+ bkt \S+|ref \d+ bind \d+", "", text)
    if " direct-action " in text:
        text = re.sub(r"\b(id|load_time) \d+", "", text)
    if " flower " in text:
        text = re.sub(r"handle 0x\w+ ", "", text)
    return " ".join(text.split())


# --- random impairments -----------------------------------------------------------------------------------------------

PERCENTS = st.sampled_from(["0%", "0.1%", "33.3%", "100%"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "rate": st.sampled_from(["8kbit", "128kbit", "1.5mbit", "10mbit", "10gbit"]),
    "priority": st.integers(0, 7),
    "enabled": st.booleans(),
    "drop": st.builds(dict, every=st.integers(1, 50)),
}
CHOSEN: dict[str, list[Any]] = {  # by a BPF program
    "drop": [{"every": 20, "packet": 0}, {"pattern": "0010"}, {"random": "5%", "seed": 7}, {"gemodel": {"p": "1%"}}],
    "corrupt": [{"every": 5, "offset": 2, "xor": "ff01", "checksum": "fix"}, {"pattern": "01", "at": "network"}],
    "duplicate": [{"every": 3}, {"random": "1%"}],
    "set_mark": ["0x50000/0xff0000", {"value": "0x60000/0xff0000", "every": 2}],
}
EMULATED: dict[str, st.SearchStrategy[Any]] = {
    "delay": st.sampled_from(["0", "1us", "50ms", "1.5s"]),
    "loss": PERCENTS
    | st.sampled_from(
        [{"random": "1%", "correlation": "25%"}, {"gemodel": {"p": "1%", "r": "10%"}}, {"state": {"p13": "1%"}}]
    ),
    "corrupt": PERCENTS,
    "down": st.booleans(),
    "keep_order": st.booleans(),
    "slot": st.sampled_from([{"min": "1ms"}, {"min": "1ms", "max": "3ms", "packets": 5}]),
}
SPREADS: list[dict[str, Any]] = [
    {"delay": "5ms", "jitter": "1ms"},
    {"delay": "5ms", "jitter": "1ms", "delay_correlation": "25%", "distribution": "pareto"},
    {"delay": "5ms", "jitter": "2ms", "distribution": "normal"},
    {"delay": "9ms", "distribution": ["1ms", "2ms", "9ms"]},
    {"delay": "5ms", "reorder": {"percent": "25%", "gap": 3}},
]
OF_A_RATE: list[dict[str, Any]] = [
    {"ceil": "40gbit"},
    {"burst": "20kB"},
    {"overhead": "24B", "mpu": "64B", "linklayer": "atm"},
]
BUFFERS: list[dict[str, Any]] = [
    {"queue": "5p"},
    {"queue": "64kB"},
    {"queue": "2s"},
    {"limit": 70},
    {"discipline": {"kind": "bfifo", "limit": "30kB"}},
]
MANY = [{"source": f"10.7.0.{number}"} for number in range(1, 24)]
CONDITIONS: list[Any] = [
    *({"protocol": protocol, "port": port} for protocol in ("tcp", "udp") for port in (22, 80, "5000-5007")),
    {"protocol": "icmp"},
    {"protocol": "arp"},
    {"source": "10.0.0.0/8"},
    {"source": ["10.0.0.1", "2001:db8::/32"], "dscp": "ef"},
    {"protocol": "udp", "not": {"destination_port": 53}},
    [{"protocol": "tcp"}, {"destination": "10.0.0.5-10.0.0.20"}],
    MANY,
    MANY[5:],
    [*MANY[:20], {"source": "10.7.1.1"}],
]
OF_A_PORT: list[Any] = [{"bridged": True}, {"bridged": True, "protocol": "tcp", "port": 80}, {"in_interface": OTHER}]
FOR_TC: list[Any] = [
    {"mac": "52:54:00:00:00:01"},
    {"source_mac": ["52:54:00:00:00:01", "52:54:00:00:00:02"], "protocol": "ipv4"},
]


def programs() -> bool:
    """Whether this kernel takes BPF programs; the test gives the engine ours."""
    return load()["bpf.program"] is True


@st.composite
def impairments(draw: st.DrawFn, drops: bool) -> dict[str, Any]:
    """One that this kernel carries."""
    able = load()
    values = {**VALUES, **(EMULATED if able["qdisc.netem"] is True else {})}
    keys = draw(st.lists(st.sampled_from(sorted(values)), max_size=4, unique=True))
    found = {key: draw(values[key]) for key in keys if drops or key != "drop"}
    if programs() and drops and draw(st.integers(0, 4)) == 0:  # the kernel takes 0.1 s to verify a program
        for key in draw(st.lists(st.sampled_from(sorted(CHOSEN)), min_size=1, max_size=2, unique=True)):
            found[key] = draw(st.sampled_from(CHOSEN[key]))
    if able["qdisc.netem"] is True and draw(st.booleans()):
        found |= draw(st.sampled_from(SPREADS))
    if "rate" in found and draw(st.booleans()):
        found |= draw(st.sampled_from(OF_A_RATE))
    if "rate" in found and draw(st.booleans()):
        found |= draw(st.sampled_from(BUFFERS))
    return found


@st.composite
def interfaces(draw: st.DrawFn, name: str) -> dict[str, Any]:
    able = load()
    exact = (
        programs() or able["action.gact_determ"] is True
    )  # otherwise iptables drops: what leaves, of whole nodes, and sees no MAC
    direction = draw(st.sampled_from(["egress", "egress", "ingress", "both"]))
    drops = exact or (name == ALONE and direction == "egress")
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4))
    whole: dict[str, Any] = {"name": name, "direction": direction}
    if not names:
        whole |= draw(impairments(drops))
        if name == ALONE and direction == "egress" and draw(st.integers(0, 3)) == 0:
            whole["drop"] = {"every": 5, "packet": 2, "backend": "iptables"}
        return whole
    matches = CONDITIONS + (FOR_TC if exact or not drops else [])
    if name in BRIDGED and direction == "egress":
        matches = matches + OF_A_PORT
    if able["filter.flower"] is True:
        matches = [*matches, {"vlan": [5, 7]}]
    if able["filter.u32_mark"] is True:
        matches = [*matches, {"mark": "0x20000/0xff0000"}]
    classes = [{"name": one, "match": draw(st.sampled_from(matches)), **draw(impairments(drops))} for one in names]
    if draw(st.booleans()):
        del classes[-1]["match"]
    whole |= draw(st.sampled_from([{}, {}, {"enabled": False}]))
    return {**whole, "classes": classes}


@st.composite
def configurations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """impairment_interfaces that are valid on this node."""
    names = draw(st.lists(st.sampled_from(IMPAIRED), unique=True, min_size=draw(st.sampled_from([1, 1, 1, 0]))))
    found = [draw(interfaces(name)) for name in names]
    if set(BRIDGED) <= set(names) and programs() and draw(st.booleans()):
        shared = {"every": 20, "across": list(BRIDGED)}
        for entry in found:
            if entry["name"] in BRIDGED:
                for key in ("classes", *CHOSEN):
                    entry.pop(key, None)
                entry |= {"direction": "egress", "drop": shared}
    return found


Wrong = tuple[str, Any, str]  # the key of an entry, a value that cannot be there, the path below the entry
WRONG: list[Wrong] = [
    ("delay", "50", "delay"),
    ("delay", "50 parsecs", "delay"),
    ("rate", "1mbps", "rate"),
    ("rate", "-1mbit", "rate"),
    ("loss", 0.01, "loss"),
    ("loss", {"random": "101%"}, "loss.random"),
    ("drop", {"every": 0}, "drop.every"),
    ("drop", {"every": 5, "packet": 5}, "drop.packet"),
    ("priority", 8, "priority"),
    ("limit", 0, "limit"),
    ("dealy", "5ms", "dealy"),
    ("keep_order", "yes", "keep_order"),
]
WRONG_MATCHES: list[Wrong] = [
    ("match", {"protocol": "quic"}, "match.protocol"),
    ("match", {"protocol": "tcp", "port": 65536}, "match.port"),
    ("match", [{"protocol": "tcp"}, {"source": "10.0.0.1/8"}], "match[1].source"),
    ("match", {}, "match"),
]


@st.composite
def refused(draw: st.DrawFn) -> tuple[list[dict[str, Any]], str]:
    """A configuration with one value that is wrong, and the path that names it."""
    found = draw(configurations().filter(bool))  # an interface at least
    at = draw(st.integers(0, len(found) - 1))
    path, entry = f"impairment_interfaces[{at}]", found[at]
    wrong = WRONG
    if "classes" in entry:
        entry["classes"] = [dict(one) for one in entry["classes"]]
        index = draw(st.integers(0, len(entry["classes"]) - 1))
        path, entry, wrong = f"{path}.classes[{index}]", entry["classes"][index], WRONG + WRONG_MATCHES
    key, value, below = draw(st.sampled_from(wrong))
    entry[key] = value
    return found, f"{path}.{below}"


def shape(asked: Sequence[Mapping[str, Any]]) -> str:
    """What a configuration has, in short, for hypothesis' statistics."""
    return " ".join(f"{entry['direction']}{len(entry.get('classes', ()))}" for entry in asked) or "nothing"
