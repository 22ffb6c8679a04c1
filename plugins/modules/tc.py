#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exact traffic control trees."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tc
short_description: Converge an interface to an exact traffic control tree
version_added: 0.1.0
description:
  - Brings the qdiscs, classes and filters of one interface to exactly the tree that is written, with the handles that are written.
  - What differs is changed in place where the kernel has a change operation; what stands as wanted is not written again.
  - For delay, loss and rates without handles, use M(impair.testbed.impairment).
options:
  interface:
    description: Name of the interface on the node.
    type: str
    required: true
  qdiscs:
    description:
      - Qdiscs as C({parent, handle, kind, …}). C(parent) is C(root), a class, a band of C(prio) (C("1:1"), C("1:2"), …) or the one place
        below C(netem) and C(tbf) (C("1:1") or C("1:")). One has parent C(root), and a handle; so has each with queues below it.
      - Handles are written in quotes, such as C("1:"), and are hexadecimal as in tc(8). A leaf without a handle gets one from the kernel.
      - Kinds are C(htb) (C(default), C(r2q), C(direct_qlen)), C(netem) (C(delay), C(jitter), C(delay_correlation), C(loss), C(duplicate),
        C(corrupt), C(reorder), C(distribution), C(rate), C(packet_overhead), C(cell_size), C(cell_overhead), C(slot), C(limit), C(ecn), C(seed)),
        C(tbf) (C(rate), C(burst), C(limit), C(latency), C(peakrate), C(mtu)), C(pfifo) and C(bfifo) (C(limit)),
        C(prio) (C(bands), C(priomap), a list of 16 bands counted from 0), C(fq) (C(limit), C(flow_limit), C(quantum), C(initial_quantum),
        C(pacing), C(maxrate), C(buckets), C(refill_delay), C(orphan_mask), C(low_rate_threshold), C(ce_threshold), C(timer_slack), C(horizon),
        C(horizon_drop), C(priomap), C(weights)), C(fq_codel) (C(limit), C(flows), C(quantum), C(target), C(interval), C(ecn), C(ce_threshold),
        C(ce_threshold_selector), C(memory_limit), C(drop_batch)), C(cake) (C(bandwidth), C(autorate_ingress), C(diffserv), C(isolation), C(nat),
        C(wash), C(ack_filter), C(split_gso), C(rtt), C(raw), C(overhead), C(mpu), C(framing), C(ingress), C(memlimit), C(fwmark)) and C(plug)
        (C(limit), which is sent when the plug is made; the kernel shows nothing of a plug).
      - C(distribution) is C(uniform), C(normal), C(pareto), C(paretonormal) or a list of measured delays, whose mean and deviation are then the
        C(delay) and C(jitter) that are not written. C(slot) is C({min, max, packets, bytes}) or C({distribution, delay, jitter, packets, bytes}).
      - C(ingress) and C(clsact) stand where packets arrive, and need neither C(parent) nor handle. Without one of them in the tree,
        what somebody else has there is left alone; so is the root where the tree has only one of these.
    type: list
    elements: dict
    default: []
  classes:
    description:
      - Classes as C({parent, classid, kind, …}). C(htb) takes C(rate), C(ceil), C(burst), C(cburst), C(prio), C(quantum), C(overhead), C(mpu) and C(linklayer).
    type: list
    elements: dict
    default: []
  filters:
    description:
      - Filters as C({parent, prio, protocol, kind, flowid, …}); C(protocol) is C(all) when it is left out. C(parent) is a qdisc with classes or
        bands, a class with children, C(ingress) (C("ffff:fff2")), or C(egress) (C("ffff:fff3"), of C(clsact)).
        C(flowid) can be left out where C(action) is given. Chains are not supported.
      - C(fw) takes the mark as C(handle), and C(mask) and C(indev). C(u32) takes C(match), a list of matches as in tc-u32(8), and C(indev).
        C(matchall) takes nothing else. C(flower) takes C(indev), C(src_mac), C(dst_mac), C(vlan_id), C(vlan_prio), C(vlan_ethtype), C(ip_proto),
        C(ip_tos), C(ip_ttl), C(src_ip), C(dst_ip), C(src_port), C(dst_port), C(tcp_flags), C(ip_flags) (C(frag/nofirstfrag)),
        C(arp_op), C(arp_sip), C(arp_tip), C(arp_sha), C(arp_tha), C(skip_hw) and C(skip_sw), all as in tc-flower(8).
        C(bpf) takes C(bytecode) (as in tc-bpf(8)) or C(object_pinned), the path of a program that is pinned in a BPF file system,
        and C(direct_action) where the program's result is the verdict.
      - C(action) is a list, worked off in order. C({kind, index}) is an action that exists and may be shared with other filters; all others are the
        filter's own. C(gact) takes C(control) (C(pass), C(drop), C(pipe), C(continue), C(reclassify), C(trap)) and C(random),
        C({type, control, value}) with the type C(determ) or C(netrand). C(mirred) takes C(egress) or C(ingress) (C(redirect) or C(mirror)),
        C(dev), and C(control) after a mirror. C(skbedit) takes C(mark) (C(0x5/0xff) leaves the other bits), C(priority) (C("1:10")),
        C(queue_mapping), C(ptype) and C(control). C(police) takes C(rate), C(burst), C(mtu), C(peakrate), C(overhead), C(mpu), C(linklayer),
        C(exceed) and C(conform).
    type: list
    elements: dict
    default: []
  state:
    description: V(absent) gives back what the interface had before the first run.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description: Replace a root qdisc that was not made by this collection; it is remembered, and restored by O(state=absent).
    type: bool
    default: false
  disruptive:
    description:
      - What becomes of a change that the kernel cannot make without losing packets, such as another kind of queue, or a filter of another
        protocol in the same place. Such steps say so in RV(steps), and check mode shows them.
      - C(refuse) fails before anything is touched, and says how many packets wait. C(allow) makes the change.
      - The first run on an interface, and O(state=absent), are asked for and always made.
    type: str
    choices: [refuse, allow]
    default: refuse
attributes:
  check_mode:
    description: Says what would be done and writes nothing.
    support: full
  diff_mode:
    description: Shows the tree before and after in the words of tc(8).
    support: full
requirements:
  - python >= 3.10 on the node; no other program or package
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: A lane of 128 kbit for marked traffic, everything else in the other class
  impair.testbed.tc:
    interface: eth0
    qdiscs:
      - {parent: root, handle: "1:", kind: htb, default: 0x1}
      - {parent: "1:2", kind: netem, delay: 50ms, loss: 1%}
    classes:
      - {parent: "1:", classid: "1:1", kind: htb, rate: 10mbit}
      - {parent: "1:", classid: "1:2", kind: htb, rate: 128kbit}
    filters:
      - {parent: "1:", prio: 1, kind: fw, handle: 2, flowid: "1:2"}
      - {parent: "1:", prio: 2, kind: u32, protocol: ip, match: [ip dport 7575 0xffff], flowid: "1:1"}

- name: Interactive traffic first, the rest with delays as they were measured, in a queue of 64 kB
  impair.testbed.tc:
    interface: eth0
    qdiscs:
      - {parent: root, handle: "1:", kind: prio, bands: 2, priomap: [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]}
      - {parent: "1:1", handle: "10:", kind: fq_codel, target: 2ms}
      - {parent: "1:2", handle: "20:", kind: netem, distribution: "{{ lookup('file', 'rtt.txt').splitlines() }}"}
      - {parent: "20:1", kind: bfifo, limit: 64kB}

- name: A copy of what arrives for one host, and no more than 1 mbit/s of the rest
  impair.testbed.tc:
    interface: eth0
    qdiscs:
      - {kind: clsact}
    filters:
      - parent: ingress
        prio: 1
        kind: flower
        protocol: ip
        dst_ip: 10.0.0.7
        action: [{kind: mirred, egress: mirror, dev: eth1}, {kind: gact, control: pass}]
      - {parent: ingress, prio: 2, kind: matchall, action: [{kind: police, rate: 1mbit, burst: 10kB, exceed: drop}]}

- name: As the interface was
  impair.testbed.tc:
    interface: eth0
    state: absent
"""

RETURN = r"""
before:
  description: The tree that was found, a line an entry.
  returned: always
  type: list
  elements: str
after:
  description: The tree that stands now, read back from the kernel.
  returned: always
  type: list
  elements: str
steps:
  description: The changes that were made, or in check mode would be made, as lines for tc(8).
  returned: always
  type: list
  elements: str
  sample: ["tc class change dev eth0 parent 1: classid 1:2 htb rate 256kbit ceil 256kbit burst 1600b cburst 1600b"]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.converge import Target, converge
from ..module_utils.errors import RolledBack, TestbedError
from ..module_utils.netlink import Socket
from ..module_utils.report import result
from ..module_utils.tc.actions import check_shared
from ..module_utils.tc.domain import TcDomain
from ..module_utils.tc.model import BOTH
from ..module_utils.tc.tree import build


def run(interface, qdiscs, classes, filters, state, purge, disruptive, check):
    """Converge and return the report."""
    with Socket() as rtnetlink:
        if state == "present":
            desired = build(qdiscs, classes, filters)
            domain = TcDomain(rtnetlink, interface)
            domain.claim(desired, owned=None, purge=purge)
            if any(entry.options.actions for entry in desired.filters):
                check_shared(rtnetlink, desired.filters)
            return _converge(domain, desired, disruptive, check)
        domain = TcDomain(rtnetlink, interface)
        if not domain.touched():  # what stands is not ours to take away
            return converge([Target(domain, domain.observe())], check)
        report = converge([Target(domain, domain.before())], check)
        if not check:
            domain.forget()
        return report


def _converge(domain, desired, disruptive, check):
    """As converge; a first run on a side that was rolled back leaves nothing to remember."""
    try:
        vet = {} if disruptive == "allow" else {"begin": domain.vet}
        report = converge([Target(domain, desired)], check, **vet)
        if not check:
            domain.release(BOTH - desired.sides)
        return report
    except RolledBack as error:
        if error.restored:
            domain.release()
        raise


def main():
    module = AnsibleModule(
        argument_spec={
            "interface": {"type": "str", "required": True},
            "qdiscs": {"type": "list", "elements": "dict", "default": []},
            "classes": {"type": "list", "elements": "dict", "default": []},
            "filters": {"type": "list", "elements": "dict", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "purge": {"type": "bool", "default": False},
            "disruptive": {"type": "str", "choices": ["refuse", "allow"], "default": "refuse"},
        },
        supports_check_mode=True,
    )
    try:
        report = run(**module.params, check=module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(report))


if __name__ == "__main__":
    main()
