#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What requests, retransmissions and system calls cost, seen from the kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: probes
short_description: Look from the kernel at requests, retransmissions and system calls
version_added: 0.1.0
description:
  - Runs commands on the node, and watches meanwhile by BPF programs, which go away again with the task.
  - Runs on the node of the client. A request starts with the first new byte that leaves O(interface), and is answered by the first new byte that
    arrives; bytes that TCP sends again count once.
  - What is seen is limited to the network namespace, and to O(ports), O(address) and O(processes).
options:
  hooks:
    description:
      - What is watched. V(requests) and bytes at the interface; V(retransmissions), segments that TCP sends again; V(syscalls), the time of system calls.
      - None runs the commands alone, and tells the processor time.
    type: list
    elements: str
    choices: [requests, retransmissions, syscalls]
    default: [requests, retransmissions, syscalls]
  interface:
    description: Name of the interface of Ethernet where requests leave the node; needed for V(requests).
    type: str
  ports:
    description: TCP ports of services. Without them, those of all connections that are opened meanwhile, 256 at most.
    type: list
    elements: int
    default: []
  address:
    description: Only connections with this IPv4 or IPv6 address at one of their ends.
    type: str
  namespace:
    description:
      - File of another network namespace of the node, such as C(/run/netns/ns0). Commands run there, and O(interface) is one of it.
    type: path
  processes:
    description: System calls of the commands alone, or of all processes in the network namespace (and PID namespace) but the observer.
    type: str
    choices: [commands, namespace]
    default: commands
  commands:
    description: Programs with their arguments, a list each, which run beside each other. Without them the load is somebody else's.
    type: list
    elements: list
    default: []
  seconds:
    description: How long the commands may take together, or how long to look where there are none.
    type: float
    default: 60
  rounds:
    description: How often the commands run without and with the probes in turns, so that what these cost can be told. 0 runs them once, with.
    type: int
    default: 0
  code:
    description: The object file in base64, which the controller's part of this module fills in.
    type: str
attributes:
  check_mode:
    description: Watches nothing, and runs nothing.
    support: full
  diff_mode:
    description: There is nothing that changes.
    support: none
requirements:
  - python >= 3.10 on the node; Linux 5.12 with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF
  - CONFIG_BPF_EVENTS and CONFIG_DEBUG_INFO_BTF on the node, for V(retransmissions) and V(syscalls)
  - clang on the controller
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Where the time of requests goes
  impair.testbed.probes:
    interface: eth0
    ports: [23324]
    commands:
      - [python3, /root/traffic.py, client, "32", echo, "16", "10.0.1.3:23324"]
    rounds: 3

- name: What somebody else's load of half a minute looks like
  impair.testbed.probes:
    interface: eth0
    hooks: [requests]
    seconds: 30
"""

RETURN = r"""
result:
  description:
    - C(services) by port; C(latency) in µs, C(bytes_out) and C(bytes_in) of the streams, C(retransmitted) segments as the kernel says, C(again)
      those that were seen to leave a second time. Port 0 has what was sent again on connections that were there before.
    - C(syscalls) by name, times in µs.
    - C(programs), how often each probe ran, and for how many ns in all.
    - C(runs), each with C(seconds), processor time of the programs (C(user), C(system)), of the observer (C(own)) and of the machine (C(busy)), in s.
  returned: always
  type: dict
  sample: {services: {"23324": {latency: {count: 9, mean: 20411.0, p50: 20210.1}}}, syscalls: {}, programs: {}, runs: []}
"""

import base64
import contextlib

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import InvalidInput, TestbedError
from ..module_utils.namespace import entered
from ..module_utils.observer.limits import parse
from ..module_utils.observer.measure import measure

HOOKS = ["requests", "retransmissions", "syscalls"]


def run(asked):
    """Measure in the namespace that is asked for."""
    commands = [[str(word) for word in words] for words in asked["commands"]]
    if not all(commands):
        raise InvalidInput("commands", asked["commands"], "write a program, and its arguments, for each")
    place = entered(asked["namespace"]) if asked["namespace"] else contextlib.nullcontext()
    try:
        with place:
            limits = parse(asked["ports"], asked["address"], bool(commands) and asked["processes"] == "commands")
            code = base64.b64decode(asked["code"] or "")
            words = (asked["interface"] or "", limits, commands, asked["seconds"], asked["rounds"])
            return measure(code, asked["hooks"], *words)
    except OSError as error:
        raise TestbedError(f"{error.filename or 'measuring'}: {error.strerror}") from error


def main():
    module = AnsibleModule(
        argument_spec={
            "hooks": {"type": "list", "elements": "str", "choices": HOOKS, "default": HOOKS},
            "interface": {"type": "str"},
            "ports": {"type": "list", "elements": "int", "default": []},
            "address": {"type": "str"},
            "namespace": {"type": "path"},
            "processes": {"type": "str", "choices": ["commands", "namespace"], "default": "commands"},
            "commands": {"type": "list", "elements": "list", "default": []},
            "seconds": {"type": "float", "default": 60},
            "rounds": {"type": "int", "default": 0},
            "code": {"type": "str"},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, result={})
    try:
        result = run(module.params)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, result=result)


if __name__ == "__main__":
    main()
