# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Input that has to be refused: what stands in impairment_interfaces, the path that is named, what is allowed.

Only plain data, as it comes out of YAML, so that the same table is tried on the parser and on a node.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Refused(NamedTuple):
    """`path` goes below impairment_interfaces."""

    interfaces: Any
    path: str
    allowed: str


def whole(path: str, allowed: str, **keys: Any) -> Refused:
    """Keys on the interface itself."""
    return Refused([{"name": "eth0", **keys}], f"[0].{path}" if path else "[0]", allowed)


def classes(path: str, allowed: str, *entries: Any) -> Refused:
    return Refused([{"name": "eth0", "classes": list(entries)}], f"[0].classes{path}", allowed)


def match(path: str, allowed: str, conditions: Any) -> Refused:
    return classes(f"[0].match{path}", allowed, {"name": "a", "match": conditions, "delay": "1ms"})


UDP = {"protocol": "udp"}
TIME, RATE, PERCENT, SIZE = "50ms", "128kbit", "1%", "64KiB"

QUANTITIES = [
    whole("delay", TIME, delay=50),
    whole("delay", TIME, delay="50"),
    whole("delay", TIME, delay="-50ms"),
    whole("delay", TIME, delay="50 parsecs"),
    whole("delay", TIME, delay="50MS"),
    whole("delay", TIME, delay=""),
    whole("delay", TIME, delay=".5ms"),
    whole("delay", TIME, delay="1e3ms"),
    whole("delay", TIME, delay="٥٠ms"),
    whole("delay", TIME, delay=True),
    whole("delay", TIME, delay=["50ms"]),
    whole("delay", TIME, delay={"time": "50ms"}),
    whole("delay", TIME, delay=float("nan")),
    whole("delay", TIME, delay=float("inf")),
    whole("delay", TIME, delay="inf"),
    whole("delay", TIME, delay=5400),  # 1:30:00 in YAML 1.1
    whole("delay", "292 years", delay="9999999999999s"),
    whole("delay", TIME, delay="9" * 5000 + "ms"),
    whole("delay", "1ns", delay="0.4ns"),
    whole("jitter", "write delay as well", jitter="5ms"),
    whole("jitter", "2147483647ns", delay="10s", jitter="5s"),
    whole("delay_correlation", "write jitter as well", delay="10ms", delay_correlation="25%"),
    whole("rate", RATE, rate=128),
    whole("rate", "8bit", rate="0kbit"),
    whole("rate", RATE, rate="-1mbit"),
    whole("rate", "mbit", rate="1mbps"),
    whole("rate", RATE, rate="128kb"),
    whole("rate", RATE, rate="128 k"),
    whole("rate", "8bit", rate="1bit"),
    whole("rate", "2^63", rate="999999999999tbit"),
    whole("rate", RATE, rate=False),
    whole("ceil", "write rate as well", ceil="1mbit"),
    whole("ceil", "2mbit", rate="2mbit", ceil="1mbit"),
    whole("burst", "write rate as well", burst="10kB"),
    whole("burst", SIZE, rate="1mbit", burst="10kb"),
    whole("burst", SIZE, rate="1mbit", burst=15000),
    whole("burst", "1600B", rate="1mbit", burst="100B"),
    whole("burst", "4 GiB", rate="1mbit", burst="4GiB"),
    whole("priority", "0 to 7", priority=8),
    whole("priority", "0 to 7", priority="high"),
    whole("loss", PERCENT, loss="101%"),
    whole("loss", PERCENT, loss=0.01),
    whole("loss", PERCENT, loss=1),
    whole("loss", PERCENT, loss="-1%"),
    whole("loss", PERCENT, loss="1 percent"),
    whole("loss", PERCENT, loss="NaN%"),
    whole("loss", "0.00000002%", loss="0.000000001%"),
    whole("loss", "one of random", loss={"correlation": "25%"}),
    whole("loss.random", "required", loss={"random": None}),
    whole("loss.randon", "random", loss={"randon": "1%"}),
    whole("loss.gemodel.p", "required", loss={"gemodel": {"r": "10%"}}),
    whole("loss.gemodel.q", "1-h", loss={"gemodel": {"p": "1%", "q": "10%"}}),
    whole("loss.state.p13", PERCENT, loss={"state": {"p13": 0.1}}),
    whole("loss", "one of", loss={"gemodel": {"p": "1%"}, "state": {"p13": "1%"}}),
    whole("ecn", "write loss as well", ecn=True),
    whole("ecn", "true or false", loss="1%", ecn=1),
    whole("corrupt", PERCENT, corrupt=[1]),
    whole("duplicate", PERCENT, duplicate="1"),
    whole("reorder", "write delay as well", reorder="25%"),
    whole("reorder.gap", "from 1", delay="10ms", reorder={"percent": "25%", "gap": 0}),
    whole("slot.max", "min", slot={"min": "20ms", "max": "10ms"}),
    whole("queue", "100ms", rate="1mbit", queue=100),
    whole("queue", "above 0", rate="1mbit", queue="0p"),
    whole("queue", "write rate", queue="100ms"),
    whole("queue", "1514B", queue="1kB"),
    whole("queue", "a whole packet", rate="128kbit", queue="50ms"),
    whole("queue", "below 4 GiB", rate="100gbit", queue="1s"),
    whole("queue", "one of them", queue="50p", discipline="fq_codel"),
    whole("discipline", "fq_codel", discipline="netem"),
    whole("discipline", "fq_codel", discipline=["fq_codel"]),
    whole("discipline.kind", "pfifo", discipline={"limit": 5}),
    whole("discipline.limit", "whole number", discipline={"kind": "pfifo", "limit": "5kB"}),
    whole("discipline.quantum", "limit", discipline={"kind": "bfifo", "quantum": 5}),
    whole("discipline.target", "time", discipline={"kind": "fq_codel", "target": 5}),
    whole("discipline.isolation", "flows", discipline={"kind": "cake", "isolation": "none"}),
    whole("discipline", "tbf needs", discipline={"kind": "tbf", "rate": "1mbit"}),
    whole("overhead", "write rate as well", overhead="24B"),
    whole("overhead", SIZE, rate="1mbit", overhead=24),
    whole("overhead", "at most 65535B", rate="1mbit", overhead="64KiB"),
    whole("mpu", "write rate as well", mpu="64B"),
    whole("mpu", SIZE, rate="1mbit", mpu="-64B"),
    whole("linklayer", "write rate as well", linklayer="atm"),
    whole("linklayer", "ethernet, atm, adsl", rate="1mbit", linklayer="ptm"),
    whole("limit", "one of them", limit=10, queue="50p"),
    whole("limit", "from 1", limit=0),
    whole("limit", "from 1", limit=10**30),
    whole("seed", "from 0", seed=-1),
    whole("distribution", "paretonormal", delay="10ms", jitter="1ms", distribution="gauss"),
    whole("distribution", "write jitter as well", delay="10ms", distribution="normal"),
    whole("distribution", "write jitter as well", distribution="pareto"),
    whole("distribution", "measured delays", distribution=["10ms"]),
    whole("distribution", "measured delays", distribution={"mean": "10ms"}),
    whole("distribution", "that differ", distribution=["10ms", "10ms"]),
    whole("distribution", "write delay as well", delay=0, distribution=["10ms", "12ms"]),
    whole("distribution", "write jitter as well", jitter=0, distribution=["10ms", "12ms"]),
    whole("distribution[1]", TIME, distribution=["10ms", 12]),
    whole("jitter", "write delay as well", jitter="1ms", distribution="normal"),
    whole("down", "true or false", down="yes"),
    whole("enabled", "true or false", enabled=0),
    whole("keep_order", "true or false", keep_order="false"),
]

DROPS = [
    whole("drop.every", "from 1", drop={"every": 0}),
    whole("drop.every", "from 1", drop={"every": -20}),
    whole("drop.every", "from 1", drop={"every": 2.5}),
    whole("drop.every", "from 1", drop={"every": True}),
    whole("drop.every", "65535", drop={"every": 65536}),
    whole("drop.every", "required", drop={"every": None}),
    whole("drop.every", "required", drop={"packet": 3}),
    whole("drop.packet", "from 0 to 19", drop={"every": 20, "packet": 20}),
    whole("drop.packet", "from 0", drop={"every": 20, "packet": -1}),
    whole("drop.evry", "every", drop={"evry": 20}),
    whole("drop", "mapping", drop=20),
    whole("drop", "mapping", drop=[{"every": 20}]),
    whole("drop.across", "two or more", drop={"every": 20, "across": ["eth0"]}),
    whole("drop.across", "each once", drop={"every": 20, "across": ["eth0", "eth0", "eth1"]}),
    whole("drop.across", "list", drop={"every": 20, "across": "eth0"}),
    whole("drop.across[1]", "interface name", drop={"every": 20, "across": ["eth0", "eth 1"]}),
    whole("drop.across", "see eth1", drop={"every": 20, "across": ["eth0", "eth1"]}),
    Refused([{"name": "eth0", "drop": {"every": 20, "across": ["eth0", "eth1"]}},
             {"name": "eth1", "drop": {"every": 10, "across": ["eth0", "eth1"]}}], "[0].drop.across", "same drop"),
    Refused([{"name": "eth0", "drop": {"every": 20, "across": ["eth1", "eth2"]}}], "[0].drop.across", "see eth0"),
    whole("drop.pattern", "bpf", drop={"pattern": "1001"}),
]

CLASSES = [
    Refused(None, "", "list"),
    Refused({"name": "eth0"}, "", "list"),
    Refused("eth0", "", "list"),
    Refused([None], "[0]", "mapping"),
    Refused(["eth0"], "[0]", "mapping"),
    Refused([{"delay": "50ms"}], "[0].name", "required"),
    Refused([{"name": None}], "[0].name", "required"),
    Refused([{"name": ""}], "[0].name", "interface name"),
    Refused([{"name": 0}], "[0].name", "interface name"),
    Refused([{"name": "sixteen-letters!"}], "[0].name", "1 to 15"),
    Refused([{"name": "eth0/1"}], "[0].name", "`/`"),
    Refused([{"name": "eth0:1"}], "[0].name", "`:`"),
    Refused([{"name": "eth 0"}], "[0].name", "space"),
    Refused([{"name": "eth0"}, {"name": "eth0"}], "[1].name", "once"),
    whole("dealy", "delay", dealy="50ms"),
    Refused([{"name": "imp0123456789ab"}], "[0].name", "arrives elsewhere"),
    Refused([{"name": "eth0", "direction": "both"}, {"name": "eth0", "direction": "ingress"}], "[1].name", "once"),
    whole("direction", "egress, ingress, both", direction="sideways"),
    whole("direction", "egress, ingress, both", direction=["egress", "ingress"]),
    whole("classes[0].match.bridged", "impair the egress", direction="ingress",
          classes=[{"name": "a", "match": {"bridged": True}}]),
    whole("classes[0].match[1].in_interface", "impair the egress", direction="both",
          classes=[{"name": "a", "match": [{"protocol": "udp"}, {"in_interface": "eth1"}]}]),
    whole("classes", "list", classes=None),
    whole("classes", "list", classes={"name": "a"}),
    whole("classes", "at least one", classes=[]),
    whole("delay", "into a class", delay="50ms", classes=[{"name": "a"}]),
    classes("[0]", "mapping", None),
    classes("[0].name", "required", {"delay": "1ms"}),
    classes("[0].name", "printable", {"name": "a\nb"}),
    classes("[0].name", "1 to 64", {"name": "a" * 65}),
    classes("[0].name", "printable", {"name": 7}),
    classes("[0].rat", "rate", {"name": "a", "rat": "1mbit"}),
    classes("[1].name", "of its own", {"name": "a", "match": UDP}, {"name": "a"}),
    classes("[0].match", "only the last class", {"name": "a"}, {"name": "b"}),
    classes("[0].match", "only the last class", {"name": "a"}, {"name": "b", "match": UDP}),
    classes("[2].drop.every", "from 1", {"name": "a", "match": UDP}, {"name": "b", "match": UDP},
            {"name": "c", "drop": {"every": 0}}),
]  # fmt: skip

MATCHES = [
    match("", "leave the key out", None),
    match("", "at least one condition", {}),
    match("", "list of them", []),
    match("", "list", "udp"),
    match("[0]", "mapping", ["udp"]),
    match("[1].port", "from 1", [{"protocol": "tcp"}, {"protocol": "tcp", "port": 0}]),
    match(".prot", "protocol", {"prot": "tcp"}),
    match(".protocol", "tcp", {"protocol": "quic"}),
    match(".protocol", "tcp", {"protocol": ["tcp"]}),
    match(".protocol", "255", {"protocol": 256}),
    match(".protocol", "tcp, udp and sctp", {"protocol": "icmp", "port": 80}),
    match("", "no packet is both", {"protocol": "arp", "source": "10.0.0.1"}),
    match(".protocol", "ARP", {"protocol": "arp", "dscp": "ef"}),
    match(".port", "65535", {"protocol": "tcp", "port": 65536}),
    match(".port", "65535", {"protocol": "tcp", "port": "http"}),
    match(".port[1]", "65535", {"protocol": "tcp", "port": [80, 0]}),
    match(".port", "at least one", {"protocol": "tcp", "port": []}),
    match(".port", "range", {"protocol": "tcp", "port": "90-80"}),
    match(".port", "range", {"protocol": "tcp", "port": "80-"}),
    match(".port", "range", {"protocol": "tcp", "port": "-80"}),
    match(".port", "range", {"protocol": "tcp", "port": "0-80"}),
    match(".destination_port[0]", "65535", {"destination_port": ["1-65536"]}),
    match(".port", "65535", {"protocol": "tcp", "port": True}),
    match(".source", "range", {"source": "10.0.0.9-10.0.0.5"}),
    match(".source", "range", {"source": "10.0.0.9-2001:db8::1"}),
    match(".source[1]", "network", {"source": ["10.0.0.0/8", "all"]}),
    match("", "no packet is both", {"source": ["10.0.0.0/8"], "destination": ["2001:db8::/32"]}),
    match(".mac", "source_mac", {"mac": "52:54:00:00:00:01", "source_mac": "52:54:00:00:00:02"}),
    match(".destination_mac", "in quotes", {"destination_mac": 3150240}),
    match(".not", "list", {"not": "udp"}),
    match(".not", "at least one", {"not": {}}),
    match(".not[1].port", "65535", {"not": [{"port": 5}, {"port": 0}]}),
    match(".not.not", "known", {"not": {"not": {"protocol": "udp"}}}),
    match(".not.bridged", "class of its own", {"not": {"bridged": True}}),
    match(".not.in_interface", "class of its own", {"not": {"in_interface": "eth0"}}),
    match(".not.vlan", "class of its own", {"not": {"vlan": 7}}),
    match(".port", "either side", {"protocol": "tcp", "port": 80, "source_port": 81}),
    match(".address", "either side", {"address": "10.0.0.1", "source": "10.0.0.2"}),
    match(".source", "network", {"source": "10.0.0.300"}),
    match(".source", "network", {"source": "10.0.0.1/8"}),
    match(".source", "network", {"source": "example.org"}),
    match(".source", "network", {"source": 167772161}),
    match(".source", "network", {"source": "fe80::1%eth0"}),
    match("", "no packet is both", {"source": "10.0.0.1", "destination": "2001:db8::1"}),
    match("", "no packet is both", {"protocol": "icmpv6", "source": "10.0.0.1"}),
    match(".dscp", "0 to 63", {"dscp": 64}),
    match(".dscp", "af43", {"dscp": "af44"}),
    match(".mac", "in quotes", {"mac": 3150240}),  # 14:35:04:00 … in YAML 1.1 is a number
    match(".mac", "MAC address", {"mac": "52:54:00:00:01"}),
    match(".vlan", "4094", {"vlan": 0}),
    match(".vlan[1]", "4094", {"vlan": [5, 4095]}),
    match(".mark", "within the mask", {"mark": "0x100/0xff"}),
    match(".mark", "value/mask", {"mark": "0x1/0"}),
    match(".mark", "value/mask", {"mark": "one"}),
    match(".mark", "value/mask", {"mark": True}),
    match(".bridged", "true", {"bridged": "true"}),
    match(".bridged", "true", {"bridged": False}),
    match(".in_interface", "interface name", {"in_interface": "../eth0"}),
]  # fmt: skip

# What only the node can tell: it has eth0, in no bridge.
ON_THE_NODE = [
    Refused([{"name": "eth7", "delay": "1ms"}], "[0].name", "eth0"),
    match(".bridged", "no port of a bridge", {"bridged": True}),
    match(".in_interface", "eth0", {"in_interface": "eth7"}),
    classes("[0].duplicate", "without classes", {"name": "a", "match": UDP, "duplicate": "1%"}, {"name": "b"}),
]

BY_THE_PARSER = [*QUANTITIES, *DROPS, *CLASSES, *MATCHES]
