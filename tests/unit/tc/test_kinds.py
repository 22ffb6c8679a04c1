# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Codecs against dumps recorded from named kernels (tests/unit/data/record.py says from which tc lines)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.tc.kinds import (
    action,
    bpf,
    cake,
    distribution,
    flower,
    fq,
    fq_codel,
    fw,
    htb,
    matchall,
    netem,
    plain,
    police,
    prio,
    table,
    u32,
)
from plugins.module_utils.tc.kinds.filters import Action
from plugins.module_utils.tc.kinds.ingress import Hook
from plugins.module_utils.tc.kinds.netem_options import UNIFORM
from plugins.module_utils.tc.model import INGRESS, ROOT, Class, Filter, Qdisc, Tree
from plugins.module_utils.tc.observe import Dump, decode

DATA = Path(__file__).parents[1] / "data"
KERNELS = {path.stem: json.loads(path.read_text()) for path in sorted(DATA.glob("linux-*.json"))}
CASES = [(kernel, group) for kernel, recorded in KERNELS.items() for group in recorded["groups"]]


def percent(value: float) -> int:
    return round(value / 100 * 0xFFFFFFFF)


PARENT = Class("htb", 0x10001, 0x10000, htb.HtbClass(1250000, 1250000, 20000, 20000, 125000))
TRUNK = Qdisc("htb", 0x10000, ROOT, htb.Htb(2, 10, 1000))
NETEM = netem.Netem(
    delay=20_000_000,
    jitter=3_000_000,
    delay_correlation=percent(11),
    loss=netem.Chance(percent(1.5), percent(12)),
    duplicate=netem.Chance(percent(2.5), percent(13)),
    corrupt=netem.Chance(percent(3.5), percent(14)),
    reorder=netem.Chance(percent(4.5), percent(15)),
    gap=3,
    rate=6_250_000_000,
    packet_overhead=1,
    cell_size=64,
    cell_overhead=-2,
    slot=netem.Slot(1_000_000, 2_000_000, 7, 8000),
    limit=77,
    ecn=True,
)
U32 = [
    (1, 0x0800, u32.U32(0x10001, (u32.Key(7575, 0xFFFF, 20),), "lo")),
    (1, 0x0800, u32.U32(0x10001, (u32.Key(10 << 24, 0xFF << 24, 12),))),
    (2, 0x0003, u32.U32(0x10001, (u32.Key(0x5254, 0xFFFF, -16),))),
]
GEMODEL = netem.GilbertElliott(percent(10), percent(70), 0xFFFFFFFF - percent(90), percent(0.1))
STATE = netem.FourState(percent(10), percent(70), percent(5), percent(0.5), percent(80))

QUEUES: dict[str, list[Any]] = {
    "prio": [prio.Prio(4, (0, 1, 2, 3) * 4), plain.Fifo(17)],
    "fq": [
        fq.Fq(77, 7, 3000, 9000, False, 125000, 8, 40000, 15, 10000, 4000, 500_000, 2_000_000, False),
    ],
    "fq by default": [fq.Fq(quantum=2 * 1514, initial_quantum=10 * 1514)],
    "fq_codel": [
        fq_codel.FqCodel(99, 17, 300, 7_000_000 >> 10, 83_000_000 >> 10, False, 999_000 >> 10, (1, 3), 1 << 20, 5)
    ],
    "fq_codel by default": [fq_codel.FqCodel(quantum=1514)],
    "cake": [
        cake.Cake(
            625000,
            False,
            "diffserv4",
            "dual-dsthost",
            False,
            True,
            "ack-filter",
            False,
            20000,
            True,
            -4,
            64,
            "atm",
            True,
            4 << 20,
            0xFF00,
        )
    ],
    "cake by default": [cake.Cake()],
    "plug": [prio.Plug()],
    "queue below netem": [
        netem.Netem(delay=20_000_000),
        plain.Tbf(125000, 5000, 30000),
        plain.Fifo(9000),
    ],
}
BELOW = {"prio": [0x10004], "queue below netem": [0x10001, 0x20001]}


ALL = (u32.Key(0, 0, 0),)
LO, STOLEN = 1, 4
POLICED = police.Police(10**6, 156250, 9000, 2, 3, 2 * 10**6, 24)
WIDE = police.Police(5 * 10**9, 125, 2040, 1)
IPV4 = ((40, 0, 0, 12), (21, 0, 1, 2048), (6, 0, 0, 2**32 - 1), (6, 0, 0, 0))
RANGE = [("ip_proto", 17, 255), ("ip_tos", 0xB8, 0xFC), ("ipv4_dst", 10 << 24, 0xFF << 24)]
RANGE += [("dst_port_min", 5000, 65535), ("dst_port_max", 5009, 65535)]
DROP = Action("gact", 0, action.Gact(2))
COPY = Action("mirred", 7)


def acting(*actions: Action, target: int = 0) -> u32.U32:
    return u32.U32(target, ALL, actions=actions)


FILTERS: dict[str, list[Any]] = {
    "gact": [
        acting(Action("gact", 0, action.Gact(0, (2, 20, 2)))),
        acting(Action("gact", 0, action.Gact(-1))),
    ],
    "mirred": [
        acting(Action("mirred", 0, action.Mirred(1, LO, STOLEN))),
        acting(Action("mirred", 0, action.Mirred(4, LO, 2))),
    ],
    "skbedit": [
        acting(
            Action("skbedit", 0, action.Skbedit(0x10002, 3, 5, 0xFF, 3)),
            Action("skbedit", 0, action.Skbedit(mark=7, control=-1)),
            target=0x10001,
        )
    ],
    "police": [acting(Action("police", 0, POLICED)), acting(Action("police", 0, WIDE))],
    "shared": [acting(COPY), u32.U32(0, (u32.Key(1, 1, 0),), actions=(COPY,))],
    "flower": [
        flower.Flower(0x10001, tuple(flower.Key(*key) for key in RANGE), "", 0x0800),
        flower.Flower(
            0x10001, (flower.Key("vlan_id", 7, 4095), flower.Key("vlan_prio", 5, 7)), "", 0x8100, actions=(DROP,)
        ),
    ],
    "matchall": [matchall.Matchall(0x10001, (DROP,))],
    "bpf": [bpf.Bpf(0x10001, IPV4), bpf.Bpf(0, ((6, 0, 0, 2),), direct=True)],
}


def seedless(tree: Tree) -> list[Any]:
    return [qdisc.options._replace(seed=None) for qdisc in tree.qdiscs]


def expected(group: str, tree: Tree, kernel: str) -> None:
    """What the lines of the group ask for."""
    if group == "htb":
        assert tree.qdiscs == (TRUNK,)
        inner, lane, wide = sorted(tree.classes, key=lambda entry: entry.handle)
        assert inner._replace(options=inner.options._replace(quantum=125000)) == PARENT
        assert (lane.handle, lane.parent) == (0x10002, 0x10001)
        assert lane.options._replace(buffer=0, cbuffer=0) == htb.HtbClass(125000, 625000, 0, 0, 3000, 3, 24, 64)
        assert lane.options.buffer == 1600 * 10**9 // 125000 // 64
        assert (wide.options.rate, wide.options.ceil) == (5 * 10**9, 10**10)
    elif group == "queues":
        assert tree.qdiscs[1].options == plain.Tbf(125000, 5000, 30000, 250000, 2000)
        assert [entry.handle for entry in tree.classes] == [0x10001]  # tbf's own class is none of ours
    elif group in ("pfifo", "bfifo"):
        limit = {"pfifo": 17, "bfifo": 9000}[group]
        assert tree.qdiscs == (Qdisc(group, 0x10000, ROOT, plain.Fifo(limit)),)
    elif group == "u32":
        assert [(entry.priority, entry.protocol, entry.options) for entry in tree.filters] == U32
    elif group == "u32 mark":
        (only,) = tree.filters
        assert only.options.mark == (None if kernel == "linux-6.18" else (2, 255))  # that one lacks CLS_U32_MARK
    elif group == "fw":
        assert tree.filters == (Filter("fw", 0x10000, 3, 0x0003, 2, fw.Fw(0x10001, 0xFF, "lo")),)
    elif group == "netem":
        assert seedless(tree) == [NETEM]
    elif group == "netem gemodel":
        assert seedless(tree) == [netem.Netem(loss=GEMODEL)]
    elif group in FILTERS:
        assert [entry.options for entry in tree.filters] == FILTERS[group]
    elif group in QUEUES:
        assert unseeded(tree) == [shown(options, kernel) for options in QUEUES[group]]
        assert [qdisc.parent for qdisc in tree.qdiscs] == [ROOT, *BELOW.get(group, [])]
    elif group in ("ingress", "clsact"):
        assert tree.qdiscs == (Qdisc(group, 0xFFFF0000, INGRESS, Hook()),)
        places = [(entry.parent, entry.options.keys[0].value) for entry in tree.filters]
        assert places == [(0xFFFFFFF2, 7575), (0xFFFFFFF3, 7576)][: len(tree.filters)]
        assert len(tree.filters) == (1 if group == "ingress" else 2)
    elif group == "netem normal":  # made by tc: no dump shows which distribution it has
        assert seedless(tree) == [netem.Netem(delay=20_000_000, jitter=3_000_000)]
    elif group == "netem slots":
        unknown = netem.Slot(0, 0, 7, 0, 20_000_000, 3_000_000, distribution.known(0))
        assert seedless(tree) == [netem.Netem(slot=unknown)]
    elif group == "netem state":
        assert seedless(tree) == [netem.Netem(loss=STATE)]
    else:
        assert tree.qdiscs[0].options == netem.Netem(delay=10**6, loss=netem.Chance(percent(1)), seed=2**64 - 1)


def shown(options: Any, kernel: str) -> Any:
    """As this kernel shows it: fq has bands from 6.7 on."""
    if isinstance(options, fq.Fq) and kernel != "linux-6.1":
        return options._replace(priomap=prio.PRIOMAP, weights=fq.DEFAULT_WEIGHTS)
    return options


def unseeded(tree: Tree) -> list[Any]:
    found = [qdisc.options for qdisc in tree.qdiscs]
    return [options._replace(seed=None) if isinstance(options, netem.Netem) else options for options in found]


@pytest.mark.parametrize(("kernel", "group"), CASES)
def test_what_a_kernel_dumped_decodes_to_what_tc_asked_for(kernel: str, group: str) -> None:
    recorded = KERNELS[kernel]["groups"][group]
    dump = {part: tuple(map(bytes.fromhex, bodies)) for part, bodies in recorded.items()}
    expected(group, decode(Dump(**dump)), kernel)


@pytest.mark.parametrize("kind", ["netem", "fq", "fq_codel", "cake", "tbf", "htb"])
def test_attributes_of_kernels_to_come_change_nothing(kind: str) -> None:
    codec = table.require("qdisc", kind, "kind")
    options = codec.build(**({"rate": 1000, "burst": 5000, "limit": 9000} if kind == "tbf" else {}))
    if codec.settle:
        options = codec.settle(options, 1000, 1514)
    data = codec.encode(options)
    assert codec.same(codec.decode(data), codec.decode(data + struct.pack("=HHI", 8, 200, 7)))


def test_every_group_was_recorded_from_some_kernel() -> None:
    needed = {"htb", "queues", "u32", "fw", "netem", "netem seed", "ingress", "clsact", *QUEUES, *FILTERS}
    assert {group for _kernel, group in CASES} >= needed


WORD, COUNT = st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1)
SIGNED, TIME = st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**63 - 1)
CHANCE = st.builds(netem.Chance, WORD, WORD)
NAMED = st.sampled_from([distribution.named(word) for word in distribution.WORDS])
NETEMS = st.builds(
    netem.Netem,
    delay=TIME,
    jitter=TIME,
    delay_correlation=WORD,
    loss=CHANCE | st.builds(netem.GilbertElliott, *[WORD] * 4) | st.builds(netem.FourState, *[WORD] * 5),
    duplicate=CHANCE,
    reorder=CHANCE,
    gap=WORD,
    corrupt=CHANCE,
    rate=st.integers(0, 2**63),
    packet_overhead=SIGNED,
    cell_size=WORD,
    cell_overhead=SIGNED,
    slot=st.builds(netem.Slot, TIME, TIME, COUNT, COUNT, TIME, st.just(0), st.just(UNIFORM))
    | st.builds(netem.Slot, st.just(0), st.just(0), COUNT, COUNT, TIME, st.integers(1, 2**31 - 1), NAMED),
    limit=WORD,
    ecn=st.booleans(),
    seed=st.none() | st.integers(0, 2**64 - 1),
    distribution=st.just(UNIFORM) | NAMED,
)


def told(options: netem.Netem) -> netem.Netem:
    """As a kernel can show it: the correlation of the first chance of 0 tells which distribution stands."""
    for place in ("corrupt", "reorder", "duplicate", "loss"):
        found = getattr(options, place)
        if isinstance(found, netem.Chance) and not found.probability:
            free: dict[str, Any] = {place: netem.Chance()}
            return options._replace(**free)
    return options._replace(distribution=UNIFORM)


SHORT = st.integers(0, 2**16 - 1)
RATE = st.integers(1, 2**63)
HTB_CLASSES = st.builds(htb.HtbClass, RATE, RATE, WORD, WORD, WORD, st.integers(0, 7), SHORT, SHORT, st.just(1))
CONTROL, BYTE = st.sampled_from([-1, 0, 1, 2, 3, 8]), st.integers(0, 255)
OWN = {
    "gact": st.builds(action.Gact, CONTROL, st.none() | st.tuples(st.integers(1, 2), SHORT, CONTROL)),
    "mirred": st.builds(action.Mirred, st.integers(1, 4), WORD, CONTROL),
    "skbedit": st.builds(
        action.Skbedit,
        *(st.none() | of for of in (WORD, SHORT, WORD, WORD, SHORT)),
        CONTROL,
        st.none() | RATE,
        st.none() | SHORT,
    ),
    "police": st.builds(
        police.Police, RATE, WORD, st.integers(256, 2**32 - 1), CONTROL, CONTROL, st.just(0) | RATE, SHORT, SHORT, BYTE
    ),
}
SHARED = st.builds(Action, st.sampled_from(list(OWN)), st.integers(1, 2**32 - 1), st.none())
ANY = st.one_of(SHARED, *(st.builds(Action, st.just(kind), st.just(0), made) for kind, made in OWN.items()))
ACTIONS = st.lists(ANY, max_size=3).map(tuple)
NAME = st.sampled_from(["", "eth0", "enx8cae4cf5b7ae"])
KEYS = st.lists(st.builds(u32.Key, WORD, WORD, st.integers(-64, 64), st.sampled_from([0, -1])), max_size=5).map(tuple)
U32S = st.builds(u32.U32, WORD, KEYS, NAME, st.none() | st.tuples(WORD, WORD), ACTIONS)


@given(NETEMS.map(told))
def test_netem_decodes_what_it_encodes(options: netem.Netem) -> None:
    assert netem.decode(netem.encode(options)) == options


@given(HTB_CLASSES)
def test_htb_class_decodes_what_it_encodes(options: htb.HtbClass) -> None:
    assert htb.CLASS.decode(htb.CLASS.encode(options)) == options


@given(U32S)
def test_u32_decodes_what_it_encodes(options: u32.U32) -> None:
    assert u32.decode(u32.encode(options)) == options


@given(st.builds(matchall.Matchall, WORD, ACTIONS))
def test_matchall_decodes_what_it_encodes(options: matchall.Matchall) -> None:
    assert matchall.MATCHALL.decode(matchall.MATCHALL.encode(options)) == options


@given(st.builds(fw.Fw, WORD, WORD, NAME, ACTIONS))
def test_fw_decodes_what_it_encodes(options: fw.Fw) -> None:
    assert fw.FW.decode(fw.FW.encode(options)) == options


FLAG = st.booleans()
FQS = st.builds(
    fq.Fq,
    *[WORD] * 4,
    FLAG,
    *[WORD] * 8,
    FLAG,
    st.lists(st.integers(0, 2), min_size=16, max_size=16).map(tuple),
    st.tuples(*[st.integers(2**14, 2**31 - 1)] * 3),
)
TICKS = st.integers(0, fq_codel.NO_TIME - 1)
FQ_CODELS = st.builds(fq_codel.FqCodel, WORD, WORD, WORD, TICKS, TICKS, FLAG, TICKS, st.tuples(BYTE, BYTE), WORD, WORD)
CAKES = st.builds(
    cake.Cake,
    st.integers(0, 2**63),
    FLAG,
    st.sampled_from(cake.DIFFSERV),
    st.sampled_from(cake.ISOLATION),
    FLAG,
    FLAG,
    st.sampled_from(cake.ACK_FILTER),
    FLAG,
    WORD,
    FLAG,
    SIGNED,
    WORD,
    st.sampled_from(cake.FRAMING),
    FLAG,
    WORD,
    WORD,
    st.none(),
)


@given(FQS)
def test_fq_decodes_what_it_encodes(options: fq.Fq) -> None:
    assert fq.FQ_KIND.decode(fq.FQ_KIND.encode(options)) == options


@given(CAKES)
def test_cake_decodes_what_it_encodes(options: cake.Cake) -> None:
    assert cake.CAKE_KIND.decode(cake.CAKE_KIND.encode(options)) == options


@given(FQ_CODELS)
def test_fq_codel_decodes_what_the_kernel_makes_of_what_it_encodes(options: fq_codel.FqCodel) -> None:
    """Times come as microseconds, are held in units of 1024 ns, and are shown in microseconds cut once more."""
    data = bytearray(fq_codel.FQ_CODEL_KIND.encode(options))
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if kind in (1, 3, 7):  # TCA_FQ_CODEL_TARGET, _INTERVAL, _CE_THRESHOLD
            (asked,) = struct.unpack_from("=I", data, at + 4)
            struct.pack_into("=I", data, at + 4, ((asked * 1000 >> 10) << 10) // 1000)
        at += length + 3 & ~3
    assert fq_codel.FQ_CODEL_KIND.decode(bytes(data)) == options


@given(st.builds(prio.Prio, st.integers(2, 16), st.lists(st.integers(0, 15), min_size=16, max_size=16).map(tuple)))
def test_prio_decodes_what_it_encodes(options: prio.Prio) -> None:
    assert prio.PRIO_KIND.decode(prio.PRIO_KIND.encode(options)) == options
