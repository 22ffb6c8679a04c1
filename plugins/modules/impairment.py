#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Impairments of a node's interfaces."""

from __future__ import annotations

DOCUMENTATION = r"""
module: impairment
short_description: Hold exactly the asked delay, loss, rate and nth-packet faults on a node's interfaces
version_added: 0.1.0
description:
  - Converges all interfaces of a node to the impairments that are written, and takes the impairment away from interfaces that are no longer written.
  - Every value is changed in place while traffic flows; what stands as asked is not written again.
  - A change is confirmed over a new connection; when that fails the node takes the change back by itself.
  - Impairments hold for what leaves an interface (egress), or with C(direction) for what arrives, or for both.
    A round trip grows by the sum of both directions.
options:
  interfaces:
    description:
      - Interfaces with their impairments, as in the variable C(impairment_interfaces); docs/impairments.md has every key.
      - An element has C(name), and either impairment keys for all its traffic or C(classes). C(direction) is C(egress), C(ingress) or C(both);
        an interface may stand twice, once for each direction.
      - A class has C(name), C(match) (a set of conditions, or a list of alternatives) and impairment keys. The first class that matches takes the packet;
        a class without C(match), the last one, takes the rest. What no class takes passes untouched.
      - Conditions are C(protocol), C(address), C(source), C(destination), C(port), C(source_port), C(destination_port), C(dscp), C(mac),
        C(source_mac), C(destination_mac), C(vlan), C(mark), C(bridged) and C(in_interface). Most take a list too, addresses and ports a range.
        C(not) takes conditions as well, a set or a list of sets, and excludes what these would match.
      - Impairment keys are C(rate), C(ceil), C(burst), C(priority), C(overhead), C(mpu), C(linklayer), C(queue), C(discipline), C(limit),
        C(delay), C(jitter), C(delay_correlation), C(distribution), C(loss), C(ecn), C(duplicate), C(corrupt), C(reorder), C(slot), C(seed), C(drop),
        C(set_mark), C(keep_order), C(down) and C(enabled).
      - C(drop), C(corrupt), C(duplicate) and C(set_mark) of every nth packet, of a pattern or by chance are a BPF program's work, which the controller
        compiles with clang. Without it, or without BPF on the node, a drop of every nth packet falls to C(gact) or C(iptables).
    type: list
    elements: dict
    default: []
  management:
    description:
      - Flows that pass every impaired interface unimpaired, as a list of conditions like those of C(match).
      - Left out, it is TCP port 22 of the address that the controller connects from. An empty list switches it off.
    type: list
    elements: dict
  calibration:
    description: More flows that pass unimpaired; used while an impairment is measured.
    type: list
    elements: dict
    default: []
  confirm_within:
    description: Seconds after which the node takes back a change that was not confirmed over a new connection; 0 trusts every change.
    type: int
    default: 60
  purge:
    description: Replace a root qdisc that was not made by this collection; it is remembered, and restored by O(state=absent).
    type: bool
    default: false
  offloads:
    description:
      - What happens to offloads that gather packets into superpackets, where single packets are to suffer something; docs/offloads.md says where that is.
      - V(manage) has single packets there for as long as it is so, and gives back what stood before.
      - V(keep) leaves them alone. Superpackets then suffer as one; the counters of M(impair.testbed.testbed_info) tell how many came.
    type: str
    choices: [manage, keep]
    default: manage
  program:
    description: The compiled BPF program, or why there is none. The action plugin fills it in where something asked may need it; it is not written by hand.
    type: dict
    suboptions:
      code:
        description: The ELF object, in base64.
        type: str
        default: ""
      missing:
        description: What the controller lacks to compile it.
        type: str
        default: ""
  state:
    description: V(absent) gives back what all interfaces had before the first run.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing.
    support: full
  diff_mode:
    description: Shows the trees before and after in the words of tc(8).
    support: full
requirements:
  - python >= 3.10 on the node; no other program or package
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: 50 ms more on everything that leaves eth0
  impair.testbed.impairment:
    interfaces:
      - {name: eth0, delay: 50ms}

- name: A narrow, lossy lane for what is bridged, a fast one for USB over IP
  impair.testbed.impairment:
    interfaces:
      - name: eth0
        classes:
          - {name: usbip, match: {protocol: tcp, port: 7575}, rate: 100mbit}
          - {name: device, match: {bridged: true}, rate: 128kbit, drop: {every: 20}}
          - {name: other, rate: 1mbit, ceil: 10mbit}

- name: 50 ms each way
  impair.testbed.impairment:
    interfaces:
      - {name: eth0, direction: both, delay: 50ms}

- name: As the node was
  impair.testbed.impairment:
    state: absent
"""

RETURN = r"""
before:
  description: The state that was found, a line an entry.
  returned: always
  type: list
  elements: str
after:
  description: The state that stands now, read back from the kernel.
  returned: always
  type: list
  elements: str
steps:
  description: The changes that were made, or in check mode would be made, as lines for tc(8).
  returned: always
  type: list
  elements: str
  sample: ["tc qdisc change dev eth0 parent 7e57:1f4c handle 1f4c: netem limit 7281 delay 60ms rate 1tbit"]
backends:
  description: Which mechanism of the kernel carries which impairment, and why; and the values that were computed.
  returned: O(state=present)
  type: list
  elements: dict
  sample: [{interface: eth0, direction: egress, class: device, impairment: drop, backend: gact, why: "counts exactly, every packet"}]
rules:
  description: What the rules of BPF programs have counted, as M(impair.testbed.testbed_info) returns it.
  returned: O(state=present)
  type: list
  elements: dict
confirm:
  description: The command that confirms the change before the node takes it back; empty when there is nothing to confirm.
  returned: always
  type: str
"""

import base64

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import bytecode
from ..module_utils.errors import TestbedError


def run(params, check, warn):
    """Converge, and return the module's result."""
    codes = bytecode.Bytecode(bytecode.__name__.rpartition(".")[0])
    codes.serve()
    from ..module_utils.impairment import engine
    from ..module_utils.report import result

    if params["state"] == "absent":
        return result(engine.clear(check), confirm="")
    given = params["program"] or {}
    program = engine.Program(base64.b64decode(given["code"]), given["missing"]) if given else engine.NO_PROGRAM
    outcome = engine.apply(
        params["interfaces"],
        params["management"],
        params["calibration"],
        params["purge"],
        params["confirm_within"],
        check,
        program,
        params["offloads"],
    )
    for warning in outcome.warnings:
        warn(warning)
    confirm = outcome.pending.command if outcome.pending else ""
    if not check:
        codes.keep()
    return result(outcome.report, backends=outcome.backends, rules=outcome.rules, confirm=confirm)


def main():
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "dict", "default": []},
            "management": {"type": "list", "elements": "dict"},
            "calibration": {"type": "list", "elements": "dict", "default": []},
            "confirm_within": {"type": "int", "default": 60},
            "purge": {"type": "bool", "default": False},
            "offloads": {"type": "str", "choices": ["manage", "keep"], "default": "manage"},
            "program": {
                "type": "dict",
                "options": {
                    "code": {"type": "str", "default": ""},
                    "missing": {"type": "str", "default": ""},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module.params, module.check_mode, module.warn))
    except TestbedError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
