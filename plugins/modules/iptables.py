#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exact iptables rules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: iptables
short_description: Hold exact iptables rules in chains of their own
version_added: 0.1.0
description:
  - Puts rules, written as after C(iptables -A FORWARD), into chains named C(impair-rules-HOOK), and jumps into them
    from the hooks.
  - One call holds all rules that this module has for a family on the node; what an earlier call made and this one
    leaves out is removed.
  - Rules of others are never written, and keep their counters. What stands as wanted is not written again.
  - Every rule is tried in a throwaway network namespace first, so a rule that iptables refuses leaves the node
    untouched.
  - All changes of one table are one commit.
options:
  family:
    description: V(ipv4) is iptables, V(ipv6) is ip6tables, V(both) puts the same rules into both.
    type: str
    choices: [ipv4, ipv6, both]
    default: ipv4
  chains:
    description: The rules, by table and hook. A hook stands once for each table.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description: The table.
        type: str
        choices: [filter, mangle, nat, raw, security]
        default: filter
      hook:
        description: The built-in chain that the packets come from.
        type: str
        choices: [PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING]
        required: true
      rules:
        description:
          - Rules in order, each as typed after C(-A HOOK). Quotes work as in a shell, nothing else does.
          - C(-j RETURN) goes back to the rules of others in the hook.
        type: list
        elements: str
        required: true
      position:
        description: V(last) appends the jump where it is missing; V(first) keeps it before the rules of others.
        type: str
        choices: [first, last]
        default: last
  variant:
    description:
      - V(auto) takes the variant that works on this kernel; where both do, the one that holds rules already, else the
        one that C(iptables) points at.
      - With V(legacy), the kernel replaces the whole table at any edit, and every count of C(--mode nth) in that
        table starts over; the step says so.
    type: str
    choices: [auto, nft, legacy]
    default: auto
  state:
    description: V(absent) removes all rules that this module made for the family; O(chains) is then ignored.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing to the node's tables.
    support: full
  diff_mode:
    description: Shows our rules before and after as lines of iptables(8).
    support: full
requirements:
  - python >= 3.10 and iptables on the node
notes:
  - Names are not looked up and sets (ipset) not found while a rule is tried, because the throwaway namespace has no
    network; use addresses.
seealso:
  - module: impair.testbed.ebtables
  - module: impair.testbed.impairment
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Mark USB over IP, and every 20th forwarded packet
  impair.testbed.iptables:
    chains:
      - {hook: OUTPUT, rules: [-p tcp --dport 7575 -j MARK --set-mark 1]}
      - {hook: INPUT, rules: [-p tcp --sport 7575 -j MARK --set-mark 1]}
      - {hook: FORWARD, rules: [-m statistic --mode nth --every 20 --packet 0 -j MARK --set-mark 3]}

- name: The same count for IPv4 and IPv6, each its own, in the table made for marks
  impair.testbed.iptables:
    family: both
    chains:
      - table: mangle
        hook: FORWARD
        position: first
        rules:
          - >-
            -m physdev --physdev-in eth0 -m statistic --mode nth --every 20 --packet 19
            -j MARK --set-xmark 0x30000/0xff0000

- name: Nothing of ours any more
  impair.testbed.iptables:
    family: both
    state: absent
"""

RETURN = r"""
before:
  description: Rules of ours that were found, as lines that would make them.
  returned: always
  type: list
  elements: str
after:
  description: Rules of ours that stand now, read back from the kernel.
  returned: always
  type: list
  elements: str
steps:
  description: The changes that were made, or in check mode would be made, as lines of iptables(8).
  returned: always
  type: list
  elements: str
  sample: ["iptables -t mangle -R impair-rules-FORWARD 1 -p tcp -j MARK --set-xmark 0x3/0xffffffff"]
variants:
  description: The variant that carries the rules of each family.
  returned: always
  type: dict
  sample: {iptables: nft}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.capabilities import load
from ..module_utils.chains.model import HOOKS
from ..module_utils.chains.rules import hold, warnings
from ..module_utils.errors import TestbedError
from ..module_utils.report import result

FAMILIES = {"ipv4": ("iptables",), "ipv6": ("ip6tables",), "both": ("iptables", "ip6tables")}

CHAIN = {
    "table": {"type": "str", "choices": sorted(HOOKS["iptables"]), "default": "filter"},
    "hook": {"type": "str", "choices": list(HOOKS["iptables"]["mangle"]), "required": True},
    "rules": {"type": "list", "elements": "str", "required": True},
    "position": {"type": "str", "choices": ["first", "last"], "default": "last"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "family": {"type": "str", "choices": list(FAMILIES), "default": "ipv4"},
            "chains": {"type": "list", "elements": "dict", "default": [], "options": CHAIN},
            "variant": {"type": "str", "choices": ["auto", "nft", "legacy"], "default": "auto"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    chains = asked["chains"] if asked["state"] == "present" else []
    families = FAMILIES[asked["family"]]
    try:
        capabilities = load()
        report, variants = hold(capabilities, families, chains, asked["variant"], module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    for text in warnings(capabilities, families, chains):
        module.warn(text)
    outcome = result(report, variants=variants)
    outcome.pop("warnings", None)  # module.warn has them
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
