#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a path carries, by ping and iperf3."""

from __future__ import annotations

DOCUMENTATION = r"""
module: triage
short_description: Measure by ping and iperf3 what a path carries
version_added: 0.1.0
description:
  - Runs on the node that sends. On the other one C(iperf3 --server) has to listen; the role P(impair.testbed.triage#role) starts it.
  - Measures the round trip, TCP one way and both ways at once, and UDP of each size as fast as it goes.
options:
  address:
    description: IPv4 address of the node that receives.
    type: str
    required: true
  sizes:
    description: Sizes of IP packets in bytes, 44 or more.
    type: list
    elements: int
    default: [64, 128, 256, 512, 1024, 1500]
  seconds:
    description: How long each stream lasts.
    type: int
    default: 3
attributes:
  check_mode:
    description: Measures nothing.
    support: full
  diff_mode:
    description: There is nothing that changes.
    support: none
requirements:
  - python >= 3.10, ping and iperf3 on the node
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: What gets through
  impair.testbed.triage:
    address: 10.0.2.4
    sizes: [64, 1500]
"""

RETURN = r"""
result:
  description:
    - C(rtt) in ms; C(one_way) and, forth and back, C(both_ways) in Mbit/s; C(packets) per second by size. All as received.
    - C(failed) has the reason of what did not get through, which then is null.
  returned: always
  type: dict
  sample: {rtt: 0.8, one_way: 66.2, both_ways: [50.3, 52.7], packets: {"64": 3200}, failed: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.triage.streams import measure


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "sizes": {"type": "list", "elements": "int", "default": [64, 128, 256, 512, 1024, 1500]},
            "seconds": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if module.check_mode:
        module.exit_json(changed=False, result={})
    try:
        result = measure(asked["address"], asked["sizes"], asked["seconds"])
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, result=result)


if __name__ == "__main__":
    main()
