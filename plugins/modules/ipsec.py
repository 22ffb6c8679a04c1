#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IPsec tunnels by the kernel's own states and policies."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ipsec
short_description: Hold ESP and IP-TFS tunnels by the kernel's states and policies
version_added: 0.1.0
description:
  - Puts the security associations and policies of ESP tunnels (RFC 4303), or of IP-TFS ones (RFC 9347), into the kernel of a node.
    No daemon runs; keys are fixed.
  - One call holds all tunnels that this module has on the node; what an earlier call made and this one leaves out is removed.
  - States and policies of others are never written. What stands as wanted is not written again.
  - Each mode and algorithm is tried in a throwaway network namespace first; what the kernel lacks is named, and nothing touched.
  - A state whose key or options change is made again, as the kernel cannot change them; it goes on counting where the old one was.
options:
  tunnels:
    description: The tunnels that end at this node.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name for messages; it also tells this tunnel's states from those of others.
        type: str
        required: true
      local:
        description: The address of this end, IPv4 or IPv6.
        type: str
        required: true
      remote:
        description: The address of the other end.
        type: str
        required: true
      local_networks:
        description: Networks on this side. What comes from them, and goes to O(tunnels[].remote_networks), has to pass the tunnel.
        type: list
        elements: str
        required: true
      remote_networks:
        description: Networks on the other side. Packets from there that did not pass the tunnel are dropped.
        type: list
        elements: str
        required: true
      mode:
        description:
          - V(tunnel) is ESP's tunnel mode. V(iptfs) puts packets together, and splits them, into ESP packets of equal size (RFC 9347);
            it needs Linux 6.14 with CONFIG_XFRM_IPTFS.
        type: str
        choices: [tunnel, iptfs]
      algorithm:
        description: Cipher and check value, in strongSwan's words. Both ends have to have the same.
        type: str
        choices: [aes128gcm16, aes256gcm16, aes256-sha256]
      secret:
        description:
          - A text of 32 characters or more that both ends share. The key of each direction is made from it, with addresses, mode and algorithm.
        type: str
      key_out:
        description:
          - Instead of O(tunnels[].secret), the keys of what is sent, in hexadecimal; for another end than this module.
          - 20 bytes for V(aes128gcm16) and 36 for V(aes256gcm16), the last four of which are the salt; 64 for V(aes256-sha256), the
            first half of which is that of the check value.
        type: str
      key_in:
        description: The keys of what is received.
        type: str
      spi_out:
        description: The number that sent packets carry, from 256 on. Left out, both ends compute the same one.
        type: int
      spi_in:
        description: The number of received packets.
        type: int
      replay_window:
        description:
          - Packets among which one that comes twice is noticed; what comes later than so many others is dropped too. 0 notices nothing, and
            also takes a peer that began to count again. A window goes with sequence numbers of 64 bits, at both ends.
          - Left out, it is 0 with O(tunnels[].mode=tunnel), and 64 with O(tunnels[].mode=iptfs), which cannot be without.
        type: int
      iptfs:
        description: Options of O(tunnels[].mode=iptfs). Those left out are as the kernel has them by itself.
        type: dict
        suboptions:
          packet_size:
            description:
              - Size of the outer packets, such as V(1400B); 0 takes what the path lets through.
              - The kernel counts neither the check value nor what pads to it, so that packets of GCM come out 20 bytes longer.
            type: str
          dont_fragment:
            description: Do not split packets across outer packets.
            type: bool
          init_delay:
            description: How long the first packet waits for others to go with it, such as V(1ms); of the sender. The kernel waits not at all.
            type: str
          max_queue:
            description: What may wait to be sent, such as V(1MB). The kernel takes 10 MiB.
            type: str
          drop_time:
            description: How long the receiver waits for a missing outer packet, such as V(500ms). The kernel waits one second.
            type: str
          reorder_window:
            description: Outer packets that the receiver puts into order; 0 to 65535. The kernel takes 3.
            type: int
  mode:
    description: The mode of tunnels that do not say theirs.
    type: str
    choices: [tunnel, iptfs]
    default: tunnel
  algorithm:
    description: The algorithm of tunnels that do not say theirs.
    type: str
    choices: [aes128gcm16, aes256gcm16, aes256-sha256]
    default: aes128gcm16
  secret:
    description: The secret of tunnels that have neither one nor keys.
    type: str
  iptfs:
    description: The options of tunnels of the mode V(iptfs) that have none.
    type: dict
    suboptions:
      packet_size:
        description:
          - Size of the outer packets, such as V(1400B); 0 takes what the path lets through.
          - The kernel counts neither the check value nor what pads to it, so that packets of GCM come out 20 bytes longer.
        type: str
      dont_fragment:
        description: Do not split packets across outer packets.
        type: bool
      init_delay:
        description: How long the first packet waits for others to go with it, such as V(1ms); of the sender. The kernel waits not at all.
        type: str
      max_queue:
        description: What may wait to be sent, such as V(1MB). The kernel takes 10 MiB.
        type: str
      drop_time:
        description: How long the receiver waits for a missing outer packet, such as V(500ms). The kernel waits one second.
        type: str
      reorder_window:
        description: Outer packets that the receiver puts into order; 0 to 65535. The kernel takes 3.
        type: int
  state:
    description: V(absent) removes all that this module made; O(tunnels) is then ignored.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be done and writes nothing.
    support: full
  diff_mode:
    description: Shows our states and policies before and after in the words of ip-xfrm(8). A key is shown as a digest that holds for one run.
    support: full
requirements:
  - python >= 3.10 on the node; no other program or package
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: ESP between two routers
  impair.testbed.ipsec:
    tunnels:
      - name: r1-r2
        local: 10.0.1.1
        remote: 10.0.1.2
        local_networks: [10.0.0.0/24]
        remote_networks: [10.0.2.0/24]
        secret: "{{ vault_ipsec_secret }}"

- name: The same by IP-TFS, in packets of 1400 bytes
  impair.testbed.ipsec:
    tunnels:
      - name: r1-r2
        local: 10.0.1.1
        remote: 10.0.1.2
        local_networks: [10.0.0.0/24]
        remote_networks: [10.0.2.0/24]
        mode: iptfs
        secret: "{{ vault_ipsec_secret }}"
        iptfs: {packet_size: 1400B, init_delay: 1ms, drop_time: 500ms, reorder_window: 16}

- name: No tunnel of ours any more
  impair.testbed.ipsec:
    state: absent
"""

RETURN = r"""
before:
  description: States and policies of ours that were found, a line each.
  returned: always
  type: list
  elements: str
after:
  description: States and policies of ours that stand now, read back from the kernel.
  returned: always
  type: list
  elements: str
  sample: ["policy src 10.0.0.0/24 dst 10.0.2.0/24 dir out tmpl src 10.0.1.1 dst 10.0.1.2 proto esp reqid 0xe57a1b2 mode tunnel"]
steps:
  description: The changes that were made, or in check mode would be made, as lines of ip-xfrm(8) without keys.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import TestbedError
from ..module_utils.report import result
from ..module_utils.xfrm.asked import ALGORITHMS
from ..module_utils.xfrm.engine import hold

IPTFS = {
    "packet_size": {"type": "str"},
    "dont_fragment": {"type": "bool"},
    "init_delay": {"type": "str"},
    "max_queue": {"type": "str"},
    "drop_time": {"type": "str"},
    "reorder_window": {"type": "int"},
}
TUNNEL = {
    "name": {"type": "str", "required": True},
    "local": {"type": "str", "required": True},
    "remote": {"type": "str", "required": True},
    "local_networks": {"type": "list", "elements": "str", "required": True},
    "remote_networks": {"type": "list", "elements": "str", "required": True},
    "mode": {"type": "str", "choices": ["tunnel", "iptfs"]},
    "algorithm": {"type": "str", "choices": list(ALGORITHMS)},
    "secret": {"type": "str", "no_log": True},
    "key_out": {"type": "str", "no_log": True},
    "key_in": {"type": "str", "no_log": True},
    "spi_out": {"type": "int"},
    "spi_in": {"type": "int"},
    "replay_window": {"type": "int"},
    "iptfs": {"type": "dict", "options": IPTFS},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tunnels": {"type": "list", "elements": "dict", "default": [], "options": TUNNEL},
            "mode": {"type": "str", "choices": ["tunnel", "iptfs"], "default": "tunnel"},
            "algorithm": {"type": "str", "choices": list(ALGORITHMS), "default": "aes128gcm16"},
            "secret": {"type": "str", "no_log": True},
            "iptfs": {"type": "dict", "options": IPTFS},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    common = {name: asked[name] for name in ("mode", "algorithm", "secret", "iptfs")}
    try:
        report = hold(asked["tunnels"] if asked["state"] == "present" else [], module.check_mode, **common)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result(report))


if __name__ == "__main__":
    main()
