# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probe of BPF: a map and a program such as ours, made, put where packets leave, and let go."""

from __future__ import annotations

import os
import struct

from ..bpf import syscall, tcx
from ..capabilities import Finding
from ..errors import TestbedError

_CODE = (  # linux/bpf.h: code, registers (source, destination), offset, immediate
    (0xB7, 0x01, 0, 1),  # r1 = 1
    (0x7B, 0x1A, -8, 0),  # *(u64 *)(r10 - 8) = r1
    (0xDB, 0x1A, -8, 1),  # r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)
    (0xB7, 0x00, 0, -1),  # r0 = TC_ACT_UNSPEC
    (0x95, 0x00, 0, 0),  # exit
)
_NO_PREALLOC = 1


def probe(index: int, classifier: Finding) -> dict[str, Finding]:
    """At the interface of this index; `classifier`: whether the kernel has cls_bpf."""
    if classifier.result is not True:
        return {"bpf.program": classifier, "bpf.tcx": classifier}
    option = "CONFIG_BPF_SYSCALL"
    try:
        os.close(syscall.create_map(syscall.HASH, 4, 8, 1, _NO_PREALLOC))
        option = "BPF of Linux 5.12 or later (additions that are atomic and return a value)"
        code = b"".join(struct.pack("=BBhi", *instruction) for instruction in _CODE)
        program = syscall.load(syscall.SCHED_CLS, code, "GPL")
    except TestbedError as error:
        missing = Finding(f"{option} (the kernel says: {error})")
        return {"bpf.program": missing, "bpf.tcx": missing}
    try:
        tcx.attach(index, program)
        tcx.detach(index, program)
    except TestbedError as error:
        missing = Finding(f"TCX of Linux 6.6 or later, CONFIG_NET_XGRESS (the kernel says: {error})")
        return {"bpf.program": Finding(True), "bpf.tcx": missing}
    finally:
        os.close(program)
    return {"bpf.program": Finding(True), "bpf.tcx": Finding(True)}
