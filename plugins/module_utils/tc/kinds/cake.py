# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cake (linux/pkt_sched.h, net/sched/sch_cake.c, tc-cake(8)).

It keeps what a change leaves out, so every value is always sent. Attributes that a newer kernel adds are not looked at.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ... import units
from ...netlink import attribute, attributes, integer, s32, u32, u64
from ...schema import choice, leaf, whole_number
from .base import Kind
from .fq import COUNT, FLAG, MICROSECONDS, size_between, time_text

(
    TCA_CAKE_BASE_RATE64,
    TCA_CAKE_DIFFSERV_MODE,
    TCA_CAKE_ATM,
    TCA_CAKE_FLOW_MODE,
    TCA_CAKE_OVERHEAD,
    TCA_CAKE_RTT,
    TCA_CAKE_TARGET,
    TCA_CAKE_AUTORATE,
    TCA_CAKE_MEMORY,
    TCA_CAKE_NAT,
    TCA_CAKE_RAW,
    TCA_CAKE_WASH,
    TCA_CAKE_MPU,
    TCA_CAKE_INGRESS,
    TCA_CAKE_ACK_FILTER,
    TCA_CAKE_SPLIT_GSO,
    TCA_CAKE_FWMARK,
) = range(2, 19)
DIFFSERV = ("diffserv3", "diffserv4", "diffserv8", "besteffort", "precedence")  # CAKE_DIFFSERV_*
ISOLATION = (  # CAKE_FLOW_*
    "flowblind",
    "srchost",
    "dsthost",
    "hosts",
    "flows",
    "dual-srchost",
    "dual-dsthost",
    "triple-isolate",
)
FRAMING = ("noatm", "atm", "ptm")  # CAKE_ATM_*
ACK_FILTER = ("no-ack-filter", "ack-filter", "ack-filter-aggressive")  # CAKE_ACK_*


class Cake(NamedTuple):
    """bandwidth in bytes per second (0: unlimited), rtt in us, memlimit in bytes (0: by the kernel).

    raw: packets count as Linux sees them, and overhead is added to that; otherwise it is added to the IP packet.
    """

    bandwidth: int = 0
    autorate_ingress: bool = False
    diffserv: str = DIFFSERV[0]
    isolation: str = ISOLATION[7]
    nat: bool = False
    wash: bool = False
    ack_filter: str = ACK_FILTER[0]
    split_gso: bool = True
    rtt: int = 100_000
    raw: bool = True
    overhead: int = 0
    mpu: int = 0
    framing: str = FRAMING[0]
    ingress: bool = False
    memlimit: int = 0
    fwmark: int = 0
    target: int | None = None  # us; None: a twentieth of rtt, as tc sends it


def _build_cake(overhead: int | None = None, raw: bool | None = None, **given: Any) -> Cake:
    """An overhead counts from the IP packet, as tc(8) has it, unless raw says otherwise."""
    return Cake(overhead=overhead or 0, raw=overhead is None if raw is None else raw, **given)


def _target(options: Cake) -> int:
    return max(options.rtt // 20, 1) if options.target is None else options.target


def _change_cake(options: Cake, old: Cake) -> bytes:
    """nat is named where it is, or was, on only: a kernel without conntrack refuses even to switch it off."""
    numbers = {
        TCA_CAKE_DIFFSERV_MODE: DIFFSERV.index(options.diffserv),
        TCA_CAKE_FLOW_MODE: ISOLATION.index(options.isolation),
        TCA_CAKE_ATM: FRAMING.index(options.framing),
        TCA_CAKE_MPU: options.mpu,
        TCA_CAKE_RTT: options.rtt,
        TCA_CAKE_TARGET: _target(options),
        TCA_CAKE_AUTORATE: options.autorate_ingress,
        TCA_CAKE_MEMORY: options.memlimit,
        TCA_CAKE_WASH: options.wash,
        TCA_CAKE_INGRESS: options.ingress,
        TCA_CAKE_ACK_FILTER: ACK_FILTER.index(options.ack_filter),
        TCA_CAKE_SPLIT_GSO: options.split_gso,
        TCA_CAKE_FWMARK: options.fwmark,
    }
    if options.nat or old.nat:
        numbers[TCA_CAKE_NAT] = options.nat
    if options.raw:
        numbers[TCA_CAKE_RAW] = 0
    data = b"".join(attribute(kind, u32(number)) for kind, number in numbers.items())
    data += attribute(TCA_CAKE_OVERHEAD, s32(options.overhead))
    return data + attribute(TCA_CAKE_BASE_RATE64, u64(options.bandwidth))


def _decode_cake(data: bytes) -> Cake:
    raw = attributes(data)
    found = {kind: integer(value) for kind, value in raw.items()}
    options = Cake(
        bandwidth=found[TCA_CAKE_BASE_RATE64],
        autorate_ingress=bool(found[TCA_CAKE_AUTORATE]),
        diffserv=DIFFSERV[found[TCA_CAKE_DIFFSERV_MODE]],
        isolation=ISOLATION[found[TCA_CAKE_FLOW_MODE]],
        nat=bool(found.get(TCA_CAKE_NAT, 0)),
        wash=bool(found[TCA_CAKE_WASH]),
        ack_filter=ACK_FILTER[found[TCA_CAKE_ACK_FILTER]],
        split_gso=bool(found[TCA_CAKE_SPLIT_GSO]),
        rtt=found[TCA_CAKE_RTT],
        raw=TCA_CAKE_RAW in found,
        overhead=struct.unpack("=i", raw[TCA_CAKE_OVERHEAD])[0],
        mpu=found[TCA_CAKE_MPU],
        framing=FRAMING[found[TCA_CAKE_ATM]],
        ingress=bool(found[TCA_CAKE_INGRESS]),
        memlimit=found[TCA_CAKE_MEMORY],
        fwmark=found.get(TCA_CAKE_FWMARK, 0),
    )
    target = found[TCA_CAKE_TARGET]
    return options if target == _target(options) else options._replace(target=target)


def _same_cake(desired: Cake, observed: Cake) -> bool:
    """With autorate_ingress the kernel finds the bandwidth itself, from the one that is given."""
    if desired.autorate_ingress and observed.bandwidth:
        observed = observed._replace(bandwidth=desired.bandwidth)
    return desired == observed


def _render_cake(options: Cake) -> str:
    flags = [
        "autorate-ingress" if options.autorate_ingress else "",
        options.diffserv,
        options.isolation,
        "nat" if options.nat else "nonat",
        "wash" if options.wash else "nowash",
        options.ack_filter,
        "split-gso" if options.split_gso else "no-split-gso",
    ]
    line = f"bandwidth {units.rate_text(options.bandwidth)}" if options.bandwidth else "unlimited"
    line += "".join(f" {flag}" for flag in flags if flag) + f" rtt {time_text(options.rtt)}"
    line += " raw" * options.raw + (f" overhead {options.overhead}" if options.overhead or not options.raw else "")
    line += f" {options.framing}" + (f" mpu {options.mpu}" if options.mpu else "")
    line += " ingress" if options.ingress else " egress"
    line += f" memlimit {units.size_text(options.memlimit)}" if options.memlimit else ""
    return line + (f" fwmark {options.fwmark:#x}" if options.fwmark else "")


CAKE_KIND = Kind(
    "cake",
    {
        "bandwidth": leaf(units.parse_rate),
        "autorate_ingress": FLAG,
        "diffserv": choice(*DIFFSERV),
        "isolation": choice(*ISOLATION),
        "nat": FLAG,
        "wash": FLAG,
        "ack_filter": choice(*ACK_FILTER),
        "split_gso": FLAG,
        "rtt": MICROSECONDS,
        "raw": FLAG,
        "overhead": whole_number(-64, 256),
        "mpu": whole_number(0, 256),
        "framing": choice(*FRAMING),
        "ingress": FLAG,
        "memlimit": size_between(0, 2**32 - 1),
        "fwmark": COUNT,
    },
    _build_cake,
    lambda options: _change_cake(options, Cake()),
    _decode_cake,
    _render_cake,
    _same_cake,
    change=_change_cake,
)
