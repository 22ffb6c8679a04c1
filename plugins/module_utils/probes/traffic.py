# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of traffic control and links: each object is made in the namespace of the caller, and read back where
kernels are known to accept what they ignore. Layouts: linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/*.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

from .. import netlink as nl
from ..capabilities import Finding
from ..programs import find, run
from . import programs

_MISSING = {errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT, errno.ENOSYS}
_CREATE = nl.NLM_F_CREATE | nl.NLM_F_EXCL
_KIND, _OPTIONS, _LINKINFO, _IFNAME = 1, 2, 18, 3
_STATS2, _STATS_QUEUE = 7, 3
_ROOT, _INGRESS, _HANDLE = 0xFFFFFFFF, 0xFFFFFFF1, 0x10000
_SEED = 0x1122334455667788
_NETEM = struct.pack("=6I", 0, 1000, 0, 0, 0, 0)  # tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
_RATE = struct.pack("=BBHhHI", 0, 1, 0, -1, 0, 125000)  # tc_ratespec for ethernet: no rate table needed
_NO_RATE = bytes(12)
_HTB = nl.nested(_OPTIONS, nl.attribute(2, struct.pack("=5I", 3, 10, 0, 0, 0)))
_HTB_CLASS = nl.nested(_OPTIONS, nl.attribute(1, _RATE + _RATE + struct.pack("=5I", 1000, 1000, 0, 0, 0)))

QDISCS = {
    "htb": ("CONFIG_NET_SCH_HTB", _HTB),
    "netem": ("CONFIG_NET_SCH_NETEM", nl.attribute(_OPTIONS, _NETEM)),
    "tbf": (
        "CONFIG_NET_SCH_TBF",
        nl.nested(_OPTIONS, nl.attribute(1, _RATE + _NO_RATE + struct.pack("=3I", 3000, 1000, 0))),
    ),
    "pfifo": ("CONFIG_NET_SCHED", b""),
    "bfifo": ("CONFIG_NET_SCHED", b""),
    "prio": ("CONFIG_NET_SCH_PRIO", nl.attribute(_OPTIONS, struct.pack("=i16B", 3, *[1] * 16))),
    "fq": ("CONFIG_NET_SCH_FQ", b""),
    "fq_codel": ("CONFIG_NET_SCH_FQ_CODEL", b""),
    "cake": ("CONFIG_NET_SCH_CAKE", b""),
    "plug": ("CONFIG_NET_SCH_PLUG", b""),
    "ingress": ("CONFIG_NET_SCH_INGRESS", b""),
    "clsact": ("CONFIG_NET_CLS_ACT and CONFIG_NET_SCH_INGRESS", b""),
}
LINKS = {"veth": "CONFIG_VETH", "ifb": "CONFIG_IFB", "bridge": "CONFIG_BRIDGE", "dummy": "CONFIG_DUMMY"}

_U32_ALL = nl.attribute(5, struct.pack("=BBBxHHhhIIIii", 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0))  # tc_u32_sel, one key
_CLASS = nl.u32(_HANDLE | 1)
_U32 = nl.attribute(1, _CLASS) + _U32_ALL
_RETURN_ALL = struct.pack("=HBBI", 6, 0, 0, _ROOT)  # classic BPF: ret -1

# name: kernel option, kind, handle, options, and the option to find again when the filter is read back
FILTERS = {
    "fw": ("CONFIG_NET_CLS_FW", "fw", 1, nl.attribute(1, _CLASS), None),
    "u32": ("CONFIG_NET_CLS_U32", "u32", 0, _U32, None),
    "u32_mark": ("CONFIG_CLS_U32_MARK", "u32", 0, _U32 + nl.attribute(10, struct.pack("=3I", 2, 0xFF, 0)), 10),
    "u32_indev": ("CONFIG_NET_CLS_U32 with indev", "u32", 0, _U32 + nl.attribute(8, nl.string("lo")), 8),
    "flower": ("CONFIG_NET_CLS_FLOWER", "flower", 0, nl.attribute(1, _CLASS), None),
    "matchall": ("CONFIG_NET_CLS_MATCHALL", "matchall", 0, nl.attribute(1, _CLASS), None),
    "bpf": (
        "CONFIG_NET_CLS_BPF",
        "bpf",
        0,
        nl.attribute(3, _CLASS) + nl.attribute(4, struct.pack("=H", 1)) + nl.attribute(5, _RETURN_ALL),
        None,
    ),
}


def _generic(action: int) -> bytes:
    return struct.pack("=IIiii", 0, 0, action, 0, 0)  # tc_gen: index, capab, action, refcnt, bindcnt


_OK, _SHOT, _PIPE, _STOLEN = 0, 2, 3, 4
ACTIONS = {
    "gact": ("CONFIG_NET_ACT_GACT", "gact", nl.attribute(2, _generic(_SHOT)), None),
    "gact_determ": (
        "CONFIG_GACT_PROB",
        "gact",
        nl.attribute(2, _generic(_OK)) + nl.attribute(3, struct.pack("=HHi", 2, 20, _SHOT)),
        3,
    ),
    "mirred": ("CONFIG_NET_ACT_MIRRED", "mirred", nl.attribute(2, _generic(_STOLEN) + struct.pack("=iI", 1, 1)), None),
    "skbedit": (
        "CONFIG_NET_ACT_SKBEDIT",
        "skbedit",
        nl.attribute(2, _generic(_PIPE)) + nl.attribute(5, nl.u32(1)),
        None,
    ),
    "police": (
        "CONFIG_NET_ACT_POLICE",
        "police",
        nl.attribute(1, struct.pack("=IiIII", 0, _SHOT, 0, 0, 0) + _NO_RATE * 2 + bytes(12)),
        None,
    ),
}


def probe(kernel: nl.Socket) -> dict[str, Finding]:
    """Try everything on the loopback interface and with links of the present (throwaway) namespace."""
    _load_quietly()
    index = socket.if_nametoindex("lo")
    found = {f"link.{kind}": _link(kernel, kind, option) for kind, option in LINKS.items()}
    for kind, (option, payload) in QDISCS.items():
        found[f"qdisc.{kind}"] = _qdisc(kernel, index, kind, option, payload)
    found["netem.seed"] = _seed(kernel, index)
    found["netem.child"] = _child(kernel, index, found["qdisc.netem"])
    found |= _filters(kernel, index, found["qdisc.htb"])
    found |= {f"action.{name}": _action(kernel, *row) for name, row in ACTIONS.items()}
    found |= programs.probe(index, found["filter.bpf"])
    return found


def _load_quietly() -> None:
    """Loaded on demand, ifb and dummy would leave ifb0, ifb1 and dummy0 in the node's own namespace."""
    modules = f"/lib/modules/{os.uname().release}"
    for module, parameter in (("ifb", "numifbs=0"), ("dummy", "numdummies=0")):
        if not os.path.exists(f"/sys/module/{module}") and os.path.isdir(modules) and find("modprobe"):
            run(["modprobe", "-q", module, parameter])


def _try(kernel: nl.Socket, option: str, messages: Sequence[nl.Message]) -> Finding:
    """Send messages up to the first refusal, and say what that means."""
    for refusal in kernel.send(messages):
        return Finding(f"{option} (the kernel says: {refusal.reason})", refusal.errno in _MISSING)
    return Finding(True)


def _link(kernel: nl.Socket, kind: str, option: str) -> Finding:
    name = nl.attribute(_IFNAME, nl.string(f"probe-{kind}"))
    info = nl.nested(_LINKINFO, nl.attribute(1, nl.string(kind)))
    return _try(kernel, option, [nl.link_message(nl.RTM_NEWLINK, _CREATE, 0, name + info)])


def _qdisc(kernel: nl.Socket, index: int, kind: str, option: str, payload: bytes) -> Finding:
    place = (0xFFFF0000, _INGRESS) if kind in ("ingress", "clsact") else (_HANDLE, _ROOT)
    name = nl.attribute(_KIND, nl.string(kind))
    finding = _try(kernel, option, [nl.tc_message(nl.RTM_NEWQDISC, _CREATE, index, *place, payload=name + payload)])
    if finding.result is True:
        kernel.request(nl.tc_message(nl.RTM_DELQDISC, 0, index, *place))
    return finding


def _seed(kernel: nl.Socket, index: int) -> Finding:
    """netem's seed came with kernel 6.6; older kernels ignore it."""
    option = "CONFIG_NET_SCH_NETEM of kernel 6.6 or later (seed)"
    payload = nl.attribute(_KIND, nl.string("netem")) + nl.attribute(
        _OPTIONS, _NETEM + nl.attribute(14, struct.pack("=Q", _SEED))
    )
    finding = _try(kernel, option, [nl.tc_message(nl.RTM_NEWQDISC, _CREATE, index, _HANDLE, _ROOT, payload=payload)])
    if finding.result is not True:
        return finding
    seeds = [
        nl.attributes(options, len(_NETEM)).get(14) for options in _dumped(kernel, nl.RTM_GETQDISC, index, 0, "netem")
    ]
    kernel.request(nl.tc_message(nl.RTM_DELQDISC, 0, index, _HANDLE, _ROOT))
    return Finding(seeds == [struct.pack("=Q", _SEED)] or f"{option}: it is accepted and ignored")


def _child(kernel: nl.Socket, index: int, netem: Finding) -> Finding:
    """Whether netem counts what the queue below it holds; before, its parent forgets that something waits there.

    A packet on the way to nowhere moves into the lower one of two netems, and waits there for an hour.
    """
    if netem.result is not True:
        return netem
    option = "CONFIG_NET_SCH_NETEM of Linux 6.13, or of a stable kernel of 2025 (it counts what waits below it)"
    name = nl.attribute(_KIND, nl.string("netem"))
    hour = nl.attribute(_OPTIONS, _NETEM + nl.attribute(10, struct.pack("=q", 3600 * 10**9)))  # TCA_NETEM_LATENCY64
    upper = nl.tc_message(
        nl.RTM_NEWQDISC, _CREATE, index, _HANDLE, _ROOT, payload=name + nl.attribute(_OPTIONS, _NETEM)
    )
    lower = nl.tc_message(nl.RTM_NEWQDISC, _CREATE, index, 2 * _HANDLE, _HANDLE | 1, payload=name + hour)
    finding = _try(kernel, option, [nl.link_message(nl.RTM_NEWLINK, 0, index, up=True), upper, lower])
    if finding.result is not True:
        return finding
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((socket.if_indextoname(index), 0))
        sender.send(bytes(60))
    waiting = [
        nl.integer(nl.attributes(nl.attributes(body, nl.TCMSG.size)[_STATS2])[_STATS_QUEUE][:4])
        for body in kernel.dump(nl.tc_message(nl.RTM_GETQDISC, 0, index, 0, 0))
        if nl.tc_header(body).handle == _HANDLE and nl.tc_header(body).ifindex == index
    ]
    kernel.request(nl.tc_message(nl.RTM_DELQDISC, 0, index, _HANDLE, _ROOT))
    return Finding(waiting == [1] or f"{option}: it does not")


def _filters(kernel: nl.Socket, index: int, htb: Finding) -> dict[str, Finding]:
    """Filters need a qdisc with classes; ours always stand on HTB."""
    if htb.result is not True:
        return {f"filter.{name}": Finding(f"qdisc htb to try it on: {htb.result}", htb.certain) for name in FILTERS}
    name = nl.attribute(_KIND, nl.string("htb"))
    kernel.request(nl.tc_message(nl.RTM_NEWQDISC, _CREATE, index, _HANDLE, _ROOT, payload=name + _HTB))
    kernel.request(nl.tc_message(nl.RTM_NEWTCLASS, _CREATE, index, _HANDLE | 1, _HANDLE, payload=name + _HTB_CLASS))
    found = {
        f"filter.{name}": _filter(kernel, index, priority, *row)
        for priority, (name, row) in enumerate(FILTERS.items(), start=1)
    }
    kernel.request(nl.tc_message(nl.RTM_DELQDISC, 0, index, _HANDLE, _ROOT))
    return found


def _filter(
    kernel: nl.Socket, index: int, priority: int, option: str, kind: str, handle: int, options: bytes, echo: int | None
) -> Finding:
    info = priority << 16 | socket.htons(3)  # ETH_P_ALL
    payload = nl.attribute(_KIND, nl.string(kind)) + nl.nested(_OPTIONS, options)
    message = nl.tc_message(nl.RTM_NEWTFILTER, _CREATE, index, handle, _HANDLE, info, payload)
    finding = _try(kernel, option, [message])
    if finding.result is True and echo is not None:
        dumped = _dumped(kernel, nl.RTM_GETTFILTER, index, _HANDLE, kind, priority)
        if not any(echo in nl.attributes(each) for each in dumped):
            return Finding(f"{option}: it is accepted and ignored")
    return finding


def _dumped(kernel: nl.Socket, request: int, index: int, parent: int, kind: str, priority: int = 0) -> list[bytes]:
    """Options of the qdiscs or filters of one kind (and priority) that stand on the interface."""
    found = []
    for body in kernel.dump(nl.tc_message(request, 0, index, 0, parent)):
        _family, ifindex, _handle, _parent, info = nl.TCMSG.unpack_from(body)
        attributes = nl.attributes(body, nl.TCMSG.size)
        if ifindex != index or nl.text(attributes[_KIND]) != kind or (priority and info >> 16 != priority):
            continue
        found.append(attributes.get(_OPTIONS, b""))
    return found


def _action(kernel: nl.Socket, option: str, kind: str, options: bytes, echo: int | None) -> Finding:
    name = nl.attribute(_KIND, nl.string(kind))
    body = bytes(4) + nl.nested(1, nl.nested(1, name, nl.nested(_OPTIONS, options)))  # tcamsg, TCA_ACT_TAB
    finding = _try(kernel, option, [nl.Message(nl.RTM_NEWACTION, _CREATE, body)])
    if finding.result is True and echo is not None:
        request = nl.Message(nl.RTM_GETACTION, 0, bytes(4) + nl.nested(1, nl.nested(1, name)))
        if not any(echo in options for answer in kernel.dump(request) for options in _action_options(answer)):
            return Finding(f"{option}: it is accepted and ignored")
    return finding


def _action_options(body: bytes) -> list[dict[int, bytes]]:
    table = nl.attributes(body, 4).get(1, b"")
    return [nl.attributes(nl.attributes(row).get(_OPTIONS, b"")) for _number, row in nl.each_attribute(table)]
