#!/usr/bin/python
# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phases of a measuring run; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: measure
short_description: Measure what nodes do to packets, and hold it against what their variables ask
version_added: 0.1.0
description:
  - One phase of a measuring run. The role M(impair.testbed.measure) and the playbook C(verify) put the phases together; docs/verify.md describes them.
  - A small C program on the nodes sends numbered packets and records what passes; everything is judged on the controller.
options:
  phase:
    description:
      - V(plan) chooses a flow for each class of each interface of O(nodes) and compiles the program, on the controller.
      - V(begin) installs the program on the node and starts recording.
      - V(send) sends the node's packets of O(stage) and waits for their end. V(collect) brings in what was recorded.
      - V(judge) says, on the controller, what O(stage) has shown.
      - V(again) names the stages that repeat what failed and may have failed because a machine was busy.
      - V(end) ends the node's processes and removes what they wrote.
      - V(report) prints the table, writes it to O(path), and fails where a row fails.
      - V(remove) takes the program off the node.
    type: str
    required: true
    choices: [plan, begin, send, collect, judge, again, end, report, remove]
  nodes:
    description: Nodes that may take part; needed by V(plan).
    type: list
    elements: str
  limits:
    description:
      - Bounds of the run, for V(plan) - C(packets) numbered packets and C(requests) timed requests a class, C(seconds) for one series,
        C(pace) numbered packets a second, C(calibrate) the unimpaired path or not, over UDP C(port).
    type: dict
    default: {}
  directory:
    description: Directory of the run on the controller, as V(plan) returned it.
    type: path
  stage:
    description: Number of the stage, from 0.
    type: int
  path:
    description: File for the rows as JSON, for V(report).
    type: path
attributes:
  action:
    description: Runs on the controller.
    support: full
  check_mode:
    description: Measuring changes no setting of a node; V(remove) removes nothing in check mode.
    support: partial
requirements:
  - a C compiler on the controller, or on a node of another architecture
author:
  - impair.testbed contributors (@impair-testbed)
"""

EXAMPLES = r"""
- name: Take the measuring program off the node
  impair.testbed.measure:
    phase: remove
"""

RETURN = r"""
directory:
  description: The run's directory on the controller.
  returned: O(phase=plan)
  type: str
stages:
  description: How many stages the run has; for V(again) the numbers of those to repeat.
  returned: O(phase=plan) and O(phase=again)
  type: raw
nodes:
  description: Nodes that take part.
  returned: O(phase=plan)
  type: list
  elements: str
impaired:
  description: Nodes whose impairments are measured.
  returned: O(phase=plan)
  type: list
  elements: str
unimpaired:
  description: What has to pass each of these nodes unimpaired for as long as the measurement takes.
  returned: O(phase=plan)
  type: dict
rows:
  description: How many rows were judged.
  returned: O(phase=judge) and O(phase=report)
  type: int
failed_rows:
  description: How many rows are not as asked.
  returned: O(phase=report)
  type: int
path:
  description: Where the rows were written.
  returned: O(phase=report)
  type: str
problems:
  description: What went wrong with the measurement itself.
  returned: O(phase=report)
  type: list
  elements: str
"""
