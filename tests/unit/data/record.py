# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what a kernel dumps for trees that tc made: python3 -m tests.unit.data.record > tests/unit/data/KERNEL.json

As root, in an empty network namespace (`unshare --net`), on the kernel in question. Imports nothing of the collection.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from tests.oracle import tc as oracle

HTB = ["qdisc add dev {0} root handle 1: htb default 0x2", "class add dev {0} parent 1: classid 1:1 htb rate 10mbit"]
# What the kernel may lack stands in a group of its own.
GROUPS = {
    "htb": [
        *HTB,
        "class add dev {0} parent 1:1 classid 1:2 htb rate 1mbit ceil 5mbit prio 3 quantum 3000 overhead 24 mpu 64",
        "class add dev {0} parent 1:1 classid 1:3 htb rate 40gbit ceil 80gbit burst 50001b cburst 100001b",
    ],
    "queues": [
        *HTB,
        "qdisc add dev {0} parent 1:1 handle 11: tbf rate 1mbit burst 5000b limit 30000b peakrate 2mbit mtu 2000b",
    ],
    "pfifo": ["qdisc add dev {0} root handle 1: pfifo limit 17"],
    "bfifo": ["qdisc add dev {0} root handle 1: bfifo limit 9000"],
    "u32": [
        *HTB,
        "filter add dev {0} parent 1: protocol ip prio 1 u32 match ip dport 7575 0xffff indev lo flowid 1:1",
        "filter add dev {0} parent 1: protocol ip prio 1 u32 match ip src 10.0.0.0/8 flowid 1:1",
        "filter add dev {0} parent 1: protocol all prio 2 u32 match u16 0x5254 0xffff at -14 flowid 1:1",
    ],
    "fw": [*HTB, "filter add dev {0} parent 1: protocol all prio 3 handle 0x2/0xff fw indev lo classid 1:1"],
    "u32 mark": [*HTB, "filter add dev {0} parent 1: prio 1 u32 match u32 0 0 match mark 2 255 flowid 1:1"],
    "netem": [
        "qdisc add dev {0} root handle 1: netem limit 77 delay 20ms 3ms 11% loss random 1.5% 12% duplicate 2.5% 13% "
        "corrupt 3.5% 14% reorder 4.5% 15% gap 3 rate 50gbit 1 64 -2 slot 1ms 2ms packets 7 bytes 8000 ecn"
    ],
    "netem gemodel": ["qdisc add dev {0} root handle 1: netem loss gemodel 10% 70% 90% 0.1%"],
    "netem state": ["qdisc add dev {0} root handle 1: netem loss state 10% 70% 5% 80% 0.5%"],
    "netem normal": ["qdisc add dev {0} root handle 1: netem delay 20ms 3ms distribution normal"],
    "netem slots": ["qdisc add dev {0} root handle 1: netem slot distribution pareto 20ms 3ms packets 7"],
    "queue below netem": [
        "qdisc add dev {0} root handle 1: netem delay 20ms",
        "qdisc add dev {0} parent 1: handle 2: tbf rate 1mbit burst 5000b limit 30000b",
        "qdisc add dev {0} parent 2:1 handle 3: bfifo limit 9000",
    ],
    "prio": [
        "qdisc add dev {0} root handle 1: prio bands 4 priomap 0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 3",
        "qdisc add dev {0} parent 1:4 handle 4: pfifo limit 17",
        "filter add dev {0} parent 1: protocol ip prio 1 u32 match ip dport 7575 0xffff flowid 1:4",
    ],
    "fq": [
        "qdisc add dev {0} root handle 1: fq limit 77 flow_limit 7 quantum 3000 initial_quantum 9000 maxrate 1mbit "
        "buckets 256 orphan_mask 15 nopacing ce_threshold 4ms refill_delay 40ms low_rate_threshold 80kbit "
        "timer_slack 500us horizon 2s horizon_cap"
    ],
    "fq by default": ["qdisc add dev {0} root handle 1: fq"],
    "fq_codel": [
        "qdisc add dev {0} root handle 1: fq_codel limit 99 flows 17 quantum 300 target 7ms interval 83ms noecn "
        "ce_threshold 999us ce_threshold_selector 0x1/0x3 memory_limit 1048576b drop_batch 5"
    ],
    "fq_codel by default": ["qdisc add dev {0} root handle 1: fq_codel"],
    "cake": [
        "qdisc add dev {0} root handle 1: cake bandwidth 5mbit diffserv4 dual-dsthost wash ack-filter no-split-gso "
        "rtt 20ms raw overhead -4 mpu 64 atm ingress memlimit 4194304b fwmark 0xff00"
    ],
    "cake by default": ["qdisc add dev {0} root handle 1: cake"],
    "plug": ["qdisc add dev {0} root handle 1: plug limit 5000"],
    "ingress": [
        "qdisc add dev {0} ingress",
        "filter add dev {0} parent ffff: protocol ip prio 1 u32 match ip dport 7575 0xffff flowid 1:1",
    ],
    "clsact": [
        "qdisc add dev {0} clsact",
        "filter add dev {0} ingress protocol ip prio 1 u32 match ip dport 7575 0xffff flowid 1:1",
        "filter add dev {0} egress protocol ip prio 2 u32 match ip dport 7576 0xffff flowid 1:2",
    ],
    "gact": [
        *HTB,
        "filter add dev {0} parent 1: prio 1 u32 match u32 0 0 action pass random determ drop 20",
        "filter add dev {0} parent 1: prio 2 u32 match u32 0 0 action gact continue",
    ],
    "mirred": [
        *HTB,
        "filter add dev {0} parent 1: prio 1 u32 match u32 0 0 action mirred egress redirect dev lo",
        "filter add dev {0} parent 1: prio 2 u32 match u32 0 0 action mirred ingress mirror dev lo drop",
    ],
    "skbedit": [
        *HTB,
        "filter add dev {0} parent 1: prio 1 u32 match u32 0 0 flowid 1:1 action skbedit queue_mapping 3 "
        "priority 1:2 mark 0x5/0xff ptype otherhost action skbedit mark 7 continue",
    ],
    "police": [
        *HTB,
        "filter add dev {0} parent 1: prio 1 u32 match u32 0 0 action police rate 8mbit burst 10000b mtu 9000b "
        "peakrate 16mbit overhead 24 conform-exceed drop/pipe",
        "filter add dev {0} parent 1: prio 2 u32 match u32 0 0 action police rate 40gbit burst 40000b",
    ],
    "shared": [
        *HTB,
        "actions add action mirred egress mirror dev lo index 7",
        "filter add dev {0} parent 1: prio 1 u32 match u32 0 0 action mirred index 7",
        "filter add dev {0} parent 1: prio 2 u32 match u32 1 1 action mirred index 7",
    ],
    "flower": [
        *HTB,
        "filter add dev {0} parent 1: protocol ip prio 1 flower ip_proto udp dst_ip 10.0.0.0/8 dst_port 5000-5009 "
        "ip_tos 0xb8/0xfc classid 1:1",
        "filter add dev {0} parent 1: protocol 802.1Q prio 2 flower vlan_id 7 vlan_prio 5 classid 1:1 action drop",
    ],
    "matchall": [*HTB, "filter add dev {0} parent 1: protocol ip prio 1 matchall classid 1:1 action drop"],
    "bpf": [
        *HTB,
        "filter add dev {0} parent 1: prio 1 bpf bytecode '4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0' "
        "flowid 1:1",
        "filter add dev {0} parent 1: prio 2 bpf bytecode '1,6 0 0 2' direct-action",
    ],
    "netem seed": ["qdisc add dev {0} root handle 1: netem delay 1ms loss 1% seed 18446744073709551615"],
}
PLACES = (1 << 16, 0xFFFFFFF2, 0xFFFFFFF3)  # 1:, and where ingress and clsact have their filters


def main() -> None:
    subprocess.run(["ip", "link", "add", "t0", "type", "veth", "peer", "name", "p0"], check=True)
    index = socket.if_nametoindex("t0")
    groups = {}
    for name, lines in GROUPS.items():
        text = "".join(f"{line.format('t0')}\n" for line in lines)
        done = subprocess.run(["tc", "-batch", "-"], input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr.strip()}", file=sys.stderr)
        else:
            groups[name] = recorded(index)
        for place in ("root", "ingress", "clsact"):
            subprocess.run(["tc", "qdisc", "del", "dev", "t0", place], capture_output=True, check=False)
    version = subprocess.run(["tc", "-V"], text=True, capture_output=True, check=True).stdout.strip()
    print(json.dumps({"kernel": os.uname().release, "tc": version, "groups": groups}, indent=1))


def recorded(index: int) -> dict[str, list[str]]:
    return {
        "qdiscs": [body.hex() for body in oracle.bodies("qdisc", index)],
        "classes": [body.hex() for body in oracle.bodies("class", index)],
        # ingress shows the same filters in both places
        "filters": list(dict.fromkeys(b.hex() for place in PLACES for b in oracle.bodies("filter", index, place))),
    }


if __name__ == "__main__":
    main()
