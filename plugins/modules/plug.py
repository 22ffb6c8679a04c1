#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hold packets in a plug, and let them go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plug
short_description: Hold packets in a plug, and let them go
version_added: 0.1.0
description:
  - Acts on a queue of the kind C(plug) that stands on an interface, as C(discipline=plug) of M(impair.testbed.impairment) or M(impair.testbed.tc)
    make it.
  - These are actions, and no state to converge to, as the kernel shows nothing of a plug but what waits in it. Each run does them.
options:
  interface:
    description: Name of the interface on the node.
    type: str
    required: true
  plug:
    description:
      - One action, or several in their order.
      - V(buffer) holds back what comes from now on. It also draws a line behind what is held by now.
      - V(release_one) lets go what came before the last line, once; what came after it still waits.
      - V(release) lets everything go, and holds nothing back any more.
      - C([buffer, release_one]) lets go what is held by now, and holds what comes.
    type: list
    elements: str
    choices: [buffer, release_one, release]
    required: true
  handle:
    description: The handle of the plug, in quotes, where the interface has several.
    type: str
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: There is no state to compare.
    support: none
requirements:
  - python >= 3.10 on the node, whose kernel has CONFIG_NET_SCH_PLUG
seealso:
  - module: impair.testbed.impairment
  - module: impair.testbed.tc
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Hold everything
  impair.testbed.plug:
    interface: eth0
    plug: buffer

- name: Each second, let go what has come until then
  impair.testbed.plug:
    interface: eth0
    plug: [buffer, release_one]
  loop: "{{ range(10) }}"
  loop_control:
    loop_var: number
    pause: 1

- name: As if there were no plug
  impair.testbed.plug:
    interface: eth0
    plug: release
"""

RETURN = r"""
before:
  description: What was held before, in C(packets) and C(bytes).
  returned: always
  type: dict
  sample: {packets: 12, bytes: 18168}
after:
  description: What is held at the end; what was let go may be still about to leave.
  returned: always
  type: dict
  sample: {packets: 0, bytes: 0}
steps:
  description: The actions, as lines for tc(8).
  returned: always
  type: list
  elements: str
  sample: ["tc qdisc change dev eth0 parent 7e57:2 handle 8001: plug block"]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.tc.plug import ACTIONS, act


def main():
    module = AnsibleModule(
        argument_spec={
            "interface": {"type": "str", "required": True},
            "plug": {
                "type": "list",
                "elements": "str",
                "choices": list(ACTIONS),
                "required": True,
            },
            "handle": {"type": "str"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    try:
        done = act(asked["interface"], asked["plug"], asked["handle"], module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(done["steps"]), **done)


if __name__ == "__main__":
    main()
