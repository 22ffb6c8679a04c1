#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bridge through ifupdown that keeps the connection alive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bridge
short_description: Join interfaces of a node to a bridge, without losing the node
version_added: 0.1.0
description:
  - Makes a bridge by ifupdown and bridge-utils, live and in C(/etc/network/interfaces).
  - The change is carried out detached from the ssh session, and the bridge takes the MAC of the port that carries
    the controller's connection, so that the connection survives when its own interface becomes a port.
  - The controller then confirms over a fresh connection. Until it does, nothing in C(/etc) speaks of the change;
    without a confirmation within O(confirm_within) the node goes back by itself, and so it does after a power cut.
  - Stanzas of the bridge and its ports that stand in C(/etc/network/interfaces), or in files that it sources,
    become marked comments. Ours stand in a marked block. Everything else in the files stays as it is.
  - systemd-networkd (also behind netplan) and NetworkManager, where they are in use, are told by drop-in files
    to leave these interfaces alone.
  - Nothing is touched when files and live interfaces are as asked.
  - Messages name values as the variables of the role P(impair.testbed.bridge#role), such as C(bridge_ports[1]).
options:
  name:
    description: Name of the bridge. Needed to make one; with O(state=absent) it may be left out.
    type: str
  ports:
    description: Interfaces of the node that become its ports.
    type: list
    elements: str
    default: []
  address:
    description:
      - Address of the node on the bridge, with its prefix length, such as V(192.168.1.107/24).
      - Without one the bridge only forwards.
    type: str
  gateway:
    description: Default gateway by way of the bridge.
    type: str
  hw:
    description:
      - MAC address of the bridge, or the name of the port that lends its own.
      - By default that of the port that carries the controller's connection, else of the first port.
    type: str
  stp:
    description: Run the spanning tree protocol.
    type: bool
    default: false
  fd:
    description: Forward delay in seconds.
    type: int
    default: 0
  state:
    description: V(absent) gives back the files, interfaces, addresses and routes that were there before.
    type: str
    choices: [present, absent]
    default: present
  confirm_within:
    description:
      - How many seconds the controller has to confirm a change over a fresh connection; 0 asks for no confirmation.
    type: int
    default: 30
  token:
    description: Name of the change, which the controller's part of this module makes by itself.
    type: str
attributes:
  check_mode:
    description: Says what would be done and writes nothing.
    support: full
  diff_mode:
    description: Shows the files and the live interfaces.
    support: full
requirements:
  - python >= 3.10, ifupdown, bridge-utils and iproute2 on the node
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: The node between network and device
  impair.testbed.bridge:
    name: br0
    ports: [eth0, enx8cae4cf5b7ae]
    address: 192.168.1.107/24

- name: As the node was
  impair.testbed.bridge:
    state: absent
"""

RETURN = r"""
before:
  description: The bridge and its ports as they were found.
  returned: always
  type: list
  elements: str
after:
  description: The bridge and its ports as they are now, read back.
  returned: always
  type: list
  elements: str
  sample: ["br0: bridge 02:00:00:00:00:01 up stp off forward_delay 0s", "br0: address 192.168.1.107/24"]
steps:
  description: The commands that were run, or in check mode would be run, and the files that were written.
  returned: always
  type: list
  elements: str
  sample: ["ifup --force -i /run/impair.testbed/bridge/interfaces br0", "install -m 644 … /etc/network/interfaces"]
warnings:
  description: What the change takes away besides.
  returned: when there is something to say
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.bridge import engine, files, links, management, model, trial
from ..module_utils.errors import TestbedError


def run(params, check):
    """Find out what differs, and carry it out unless this is check mode; returns the module's result."""
    if check:
        return describe(find(params))
    trial.lock()
    try:
        change = find(params)
    except TestbedError:
        trial.tidy()
        raise
    result = describe(change)
    if not change.steps:
        if change.changed:
            trial.settle(change.job)
        trial.tidy()
        return result
    confirmation = None
    if params["token"] and params["confirm_within"] > 0:
        confirmation = trial.Confirmation(params["token"], params["confirm_within"])
    status = trial.start(change.job, confirmation)
    if status is None:
        return {**result, "pending": trial.folder(params["token"])}
    if status["outcome"] != "committed":
        raise TestbedError(status["message"])
    return {**result, "after": status["after"]}


def find(params):
    """What differs from what is asked."""
    if params["state"] == "present":
        return engine.present(model.parse(params), management.node_address())
    return engine.absent(params["name"] or "")


def describe(change):
    """The result as long as nothing is done."""
    before = links.describe(change.current)
    wanted = "\n".join(links.describe(change.job.desired)) + "\n"
    diff = [files.diff(now, then) for now, then in zip(change.current_files, change.desired_files) if now != then]
    if change.steps:
        lines = {"before": "\n".join(before) + "\n", "after": wanted}
        diff.append({"before_header": "interfaces", "after_header": "interfaces", **lines})
    steps = [*change.steps, *(files.command(file) for file in change.job.late)]
    result = {"changed": change.changed, "before": before, "after": before, "steps": steps, "diff": diff}
    return {**result, "warnings": change.warnings} if change.warnings else result


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "ports": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str"},
            "gateway": {"type": "str"},
            "hw": {"type": "str"},
            "stp": {"type": "bool", "default": False},
            "fd": {"type": "int", "default": 0},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "confirm_within": {"type": "int", "default": 30},
            "token": {"type": "str", "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except TestbedError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
