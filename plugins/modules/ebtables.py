#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exact ebtables rules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ebtables
short_description: Hold exact ebtables rules in chains of their own
version_added: 0.1.0
description:
  - Puts rules, written as after C(ebtables -A FORWARD), into chains named C(impair-rules-HOOK), and jumps into them
    from the hooks.
  - One call holds all rules that this module has on the node; what an earlier call made and this one leaves out is
    removed.
  - Rules of others are never written, and keep their counters. What stands as wanted is not written again.
  - Every rule is tried in a throwaway network namespace first, so a rule that ebtables refuses leaves the node
    untouched.
  - All changes of one table are one commit.
options:
  chains:
    description: The rules, by table and hook. A hook stands once for each table.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description: The table.
        type: str
        choices: [broute, filter, nat]
        default: filter
      hook:
        description: The built-in chain that the frames come from.
        type: str
        choices: [BROUTING, PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING]
        required: true
      rules:
        description:
          - Rules in order, each as typed after C(-A HOOK). Quotes work as in a shell, nothing else does.
          - Our chains have the policy RETURN, so frames that pass all rules (C(--mark-target CONTINUE)) go on with
            the rules of others in the hook,
            as they would had the rules been appended there.
        type: list
        elements: str
        required: true
      position:
        description: V(last) appends the jump where it is missing; V(first) keeps it before the rules of others.
        type: str
        choices: [first, last]
        default: last
  state:
    description: V(absent) removes all rules that this module made; O(chains) is then ignored.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing to the node's tables.
    support: full
  diff_mode:
    description: Shows our rules before and after as lines of ebtables(8).
    support: full
requirements:
  - python >= 3.10 and ebtables-nft on the node (it is part of the package iptables)
seealso:
  - module: impair.testbed.iptables
  - module: impair.testbed.impairment
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Mark what is bridged from and to the device under test
  impair.testbed.ebtables:
    chains:
      - hook: FORWARD
        rules:
          - -i enx8cae4cf5b7ae -j mark --set-mark 2 --mark-target CONTINUE
          - -o enx8cae4cf5b7ae -j mark --set-mark 2 --mark-target CONTINUE

- name: Nothing of ours any more
  impair.testbed.ebtables:
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
  description: The changes that were made, or in check mode would be made, as lines of ebtables(8).
  returned: always
  type: list
  elements: str
  sample: ["ebtables -t filter -A impair-rules-FORWARD -i eth0 -j mark --mark-set 0x2 --mark-target CONTINUE"]
variants:
  description: The variant that carries the rules.
  returned: always
  type: dict
  sample: {ebtables: nft}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.capabilities import load
from ..module_utils.chains.model import HOOKS
from ..module_utils.chains.rules import hold, warnings
from ..module_utils.errors import TestbedError
from ..module_utils.report import result

FAMILIES = ("ebtables",)

CHAIN = {
    "table": {"type": "str", "choices": sorted(HOOKS["ebtables"]), "default": "filter"},
    "hook": {
        "type": "str",
        "choices": ["BROUTING", "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "required": True,
    },
    "rules": {"type": "list", "elements": "str", "required": True},
    "position": {"type": "str", "choices": ["first", "last"], "default": "last"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "chains": {"type": "list", "elements": "dict", "default": [], "options": CHAIN},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    chains = asked["chains"] if asked["state"] == "present" else []
    try:
        capabilities = load()
        report, variants = hold(capabilities, FAMILIES, chains, check=module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    for text in warnings(capabilities, FAMILIES, chains):
        module.warn(text)
    outcome = result(report, variants=variants)
    outcome.pop("warnings", None)  # module.warn has them
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
