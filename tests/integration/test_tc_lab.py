# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tc through Ansible on a node of the virtual lab: the original testbed's tree, against its own shell lines."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.integration.places import Lab
from tests.integration.uml_tc_netem import AS_WRITTEN, ORIGINAL
from tests.oracle import tc as oracle

pytestmark = [pytest.mark.lab, pytest.mark.testbed]
PORTS = ("eth0", "enx8cae4cf5b7ae")


def shown(lab: Lab, port: str) -> list[str]:
    commands = "".join(f"{line}\n" for line in oracle.show_commands(port, ["1:3"]))
    return oracle.normalise(lab.run("master", ["tc", "-d", "-batch", "-"], stdin=commands).stdout, port)


def module(lab: Lab, port: str, *options: str, **arguments: Any) -> dict[str, Any]:
    """What the module returns."""
    said = lab.module("master", "impair.testbed.tc", json.dumps({"interface": port, **arguments}), *options).stdout
    found: dict[str, Any] = yaml.safe_load(re.split(r"=> *\n", said)[-1])
    return found


def test_the_original_tree_by_the_module(lab: Lab) -> None:
    first, second = PORTS
    for port in PORTS:  # on an interface that is down the kernel puts no default back
        lab.run("master", ["ip", "link", "set", port, "up"])
    untouched = {port: shown(lab, port) for port in PORTS}
    by_shell = {}
    for port in PORTS:
        lab.run("master", ["sh", "-e"], stdin=ORIGINAL.format(port))
        by_shell[port] = shown(lab, port)
        lab.run("master", ["tc", "qdisc", "del", "dev", port, "root"])
    foretold = module(lab, first, "--check", **AS_WRITTEN)
    assert shown(lab, first) == untouched[first]
    made = module(lab, first, **AS_WRITTEN)
    module(lab, second, **AS_WRITTEN)
    assert {port: shown(lab, port) for port in PORTS} == by_shell
    assert (made["changed"], made["steps"]) == (True, foretold["steps"])
    again = module(lab, first, **AS_WRITTEN)
    assert (again["changed"], again["steps"], again["before"]) == (False, [], made["after"])
    for port in PORTS:
        assert module(lab, port, state="absent")["changed"]
    assert {port: shown(lab, port) for port in PORTS} == untouched
