# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the filters at an interface's ends (linux/pkt_cls.h, linux/tc_act/tc_mirred.h)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ..netlink import attribute, attributes, each_attribute, nested, string, u32
from .kinds import u32 as selector
from .kinds.bpf import ACT_DIRECT, FD, FLAGS, ID, NAME
from .kinds.filters import GACT, TCA_ACT_KIND, TCA_ACT_OPTIONS

TCA_BPF_ID = ID
EGRESS_HANDLE = 1  # what the kernel gives the first filter of a priority
TCA_MIRRED_PARMS, TCA_EGRESS_REDIR, TC_ACT_STOLEN = 2, 1, 4
MIRRED = struct.Struct("=iI")  # the rest of tc_mirred: eaction, ifindex


def redirect_options(to: int) -> bytes:
    """A u32 filter that takes everything, and sends it to the interface of this index."""
    parameters = GACT.pack(0, 0, TC_ACT_STOLEN, 0, 0) + MIRRED.pack(TCA_EGRESS_REDIR, to)
    action = attribute(TCA_ACT_KIND, string("mirred"))
    action += nested(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, parameters))
    everything = selector.SELECTOR.pack(selector.TERMINAL, 0, 1, 0, 0, 0, 0, 0)
    everything += selector.KEY.pack(bytes(4), bytes(4), 0, 0)
    return attribute(selector.TCA_U32_SEL, everything) + nested(selector.TCA_U32_ACT, nested(1, action))


def target(options: Mapping[int, bytes]) -> int:
    """Where such a filter redirects to; 0 of the other messages that the kernel sends for a u32 priority."""
    for _order, entry in each_attribute(options.get(selector.TCA_U32_ACT, b"")):
        parameters = attributes(attributes(entry).get(TCA_ACT_OPTIONS, b"")).get(TCA_MIRRED_PARMS, b"")
        if len(parameters) >= GACT.size + MIRRED.size:
            return int(MIRRED.unpack_from(parameters, GACT.size)[1])
    return 0


def program_options(descriptor: int, name: str) -> bytes:
    """A bpf filter whose program says what becomes of a packet."""
    return attribute(FD, u32(descriptor)) + attribute(NAME, string(name)) + attribute(FLAGS, u32(ACT_DIRECT))
