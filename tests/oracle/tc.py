# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic control judged by tc: trees become command lines, and what the kernel holds is read by tc and as raw bytes.

Imports nothing of the collection. A tree is what the module `tc` takes, as {"qdiscs": …, "classes": …, "filters": …}.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tests.oracle import queues

Tree = Mapping[str, Sequence[Mapping[str, Any]]]
NOTHING: Tree = {"qdiscs": [], "classes": [], "filters": []}

DUMPS = {"qdisc": 38, "class": 42, "filter": 46}  # RTM_GET* (linux/rtnetlink.h)
KIND, OPTIONS = 1, 2  # TCA_*
HOOKS = ("ingress", "clsact")
FILTER_PLACE = {"kind", "parent", "prio", "protocol", "handle", "mask", "match", "indev", "flowid", "action"}
ACTIONS = {"u32": 7, "fw": 4, "flower": 3, "matchall": 2, "bpf": 1}  # TCA_*_ACT
VOLATILE = {("filter", "u32"): {9}, ("filter", "matchall"): {4}}  # TCA_*_PCNT count packets


# --- trees as commands ------------------------------------------------------------------------------------------------


def commands(device: str, tree: Tree) -> list[str]:
    """Lines for `tc -batch` that make the tree on an interface that has none: classes before leaves before filters."""
    hooks = [entry["kind"] for entry in tree["qdiscs"] if entry["kind"] in HOOKS]
    roots = [entry for entry in tree["qdiscs"] if entry.get("parent") == "root"]
    leaves = [entry for entry in tree["qdiscs"] if entry["kind"] not in HOOKS and entry["parent"] != "root"]
    lines = [f"qdisc add dev {device} {kind}" for kind in hooks] + [_qdisc(device, entry) for entry in roots]
    for entry in tree.get("classes", ()):
        place = f"parent {entry['parent']} classid {entry['classid']}"
        lines.append(f"class add dev {device} {place} {_words(entry, {'parent', 'classid'})}")
    lines += [_qdisc(device, entry) for entry in leaves]
    return lines + [_filter(device, entry) for entry in tree.get("filters", ())]


def _qdisc(device: str, entry: Mapping[str, Any]) -> str:
    place = "root" if entry["parent"] == "root" else f"parent {entry['parent']}"
    handle = f" handle {entry['handle']}" if "handle" in entry else ""
    if entry["kind"] == "netem":
        words = netem_words(entry)
    elif entry["kind"] in queues.KINDS:
        words = queues.words(entry, _size)
    else:
        words = _words(entry, {"parent", "handle"})
    return f"qdisc add dev {device} {place}{handle} {words}"


def _filter(device: str, entry: Mapping[str, Any]) -> str:
    place = entry["parent"] if entry["parent"] in ("ingress", "egress") else f"parent {entry['parent']}"
    line = f"filter add dev {device} {place} protocol {entry.get('protocol', 'all')} prio {entry['prio']}"
    if "handle" in entry:
        mask = f"/{entry['mask']}" if "mask" in entry else ""
        line += f" handle {entry['handle']}{mask}"
    line += f" {entry['kind']}"
    matches = list(entry.get("match", ()))
    if entry["kind"] == "u32" and not [word for word in matches if not word.startswith("mark")]:
        matches.insert(0, "u32 0 0 at 0")  # tc makes no filter without a key
    line += "".join(f" match {word}" for word in matches)
    indev = f" indev {entry['indev']}" if "indev" in entry else ""
    keys = "".join(
        f" {key}" if value is True else f" {key} {value}" for key, value in entry.items() if key not in FILTER_PLACE
    )
    if entry["kind"] == "bpf":
        keys = f" bytecode '{entry['bytecode']}'" if "bytecode" in entry else f" object-pinned {entry['object_pinned']}"
        keys += " direct-action" * entry.get("direct_action", False)
    flowid = f" flowid {entry['flowid']}" if "flowid" in entry else ""
    return f"{line}{indev}{keys}{flowid}" + "".join(f" action {_action(one)}" for one in entry.get("action", ()))


def _action(entry: Mapping[str, Any]) -> str:
    """An action in the words of tc(8)."""
    words = [entry["kind"]]
    verdict = entry.get("control", "")
    if entry["kind"] == "gact" and verdict:
        chance = entry.get("random")
        words += [verdict, *(["random", *(str(chance[key]) for key in ("type", "control", "value"))] if chance else [])]
        return " ".join(words)
    if entry["kind"] == "police" and "exceed" in entry:
        words += ["conform-exceed", "/".join(entry[key] for key in ("exceed", "conform") if key in entry)]
    places = {"kind", "control", "exceed", "conform"}
    words += [word for key, value in entry.items() if key not in places for word in (key, _size(value))]
    return " ".join([*words, verdict]).rstrip()


def _words(entry: Mapping[str, Any], besides: set[str]) -> str:
    words = [entry["kind"]]
    for key, value in entry.items():
        if key not in {*besides, "kind"}:
            words += [key, f"{value:#x}" if key == "default" and isinstance(value, int) else _size(value)]
    return " ".join(words)


def _size(value: object) -> str:
    """tc's letters for sizes: kB and KiB mean the same to it, so bytes are written out."""
    found = re.fullmatch(r"(\d+)(B|kB|KiB|MB|MiB)", str(value))
    scale = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 2**20}
    return f"{int(found[1]) * scale[found[2]]}b" if found else str(value)


def netem_words(entry: Mapping[str, Any]) -> str:
    """The parameters of a netem in the words of tc-netem(8)."""
    words: list[object] = ["netem"]
    for key in ("limit", "seed"):
        if key in entry:
            words += [key, entry[key]]
    if "delay" in entry:
        words += ["delay", entry["delay"]]
        words += [entry[key] for key in ("jitter", "delay_correlation") if key in entry]
        words += ["distribution", entry["distribution"]] if entry.get("distribution", "uniform") != "uniform" else []
    words += _loss_words(entry.get("loss"))
    for key in ("duplicate", "corrupt", "reorder"):
        value = entry.get(key)
        if isinstance(value, Mapping):
            words += [key, value["percent"], *([value["correlation"]] if "correlation" in value else [])]
            words += ["gap", value["gap"]] if "gap" in value else []
        elif value is not None:
            words += [key, value]
    if "rate" in entry:
        words += ["rate", entry["rate"]]
        words += [entry.get(key, 0) for key in ("packet_overhead", "cell_size", "cell_overhead")]
    if "slot" in entry:
        slot = entry["slot"]
        if "distribution" in slot:
            words += ["slot", "distribution", slot["distribution"], slot["delay"], slot["jitter"]]
        else:
            words += ["slot", slot["min"], *([slot["max"]] if "max" in slot else [])]
        for key in ("packets", "bytes"):
            words += [key, slot[key]] if key in slot else []
    if entry.get("ecn"):
        words.append("ecn")
    return " ".join(map(str, words))


def _loss_words(loss: object) -> list[object]:
    if loss is None:
        return []
    if not isinstance(loss, Mapping):
        return ["loss", loss]
    if "random" in loss:
        return ["loss", "random", loss["random"], *([loss["correlation"]] if "correlation" in loss else [])]
    ((name, model),) = loss.items()
    order = {"gemodel": ("p", "r", "1-h", "1-k"), "state": ("p13", "p31", "p32", "p23", "p14")}[name]
    return ["loss", name, *(model[key] for key in order if key in model)]


# --- what the kernel holds, in tc's words -----------------------------------------------------------------------------


def show_commands(device: str, parents: Sequence[str] = ()) -> list[str]:
    """Lines for `tc -d -batch` that show everything; `parents`: classes whose filters are shown too."""
    places = ["root", *(f"parent {parent}" for parent in parents)]
    shown = [f"{what} show dev {device}" for what in ("qdisc", "class")]
    return shown + [f"filter show dev {device} {place}" for place in places]


def normalise(text: str, device: str) -> list[str]:
    """Lines of tc's output that say the same when the state is the same: qdiscs and classes sorted, filters in order.

    Without counters and seeds; handles that the kernel chose become `auto:`, the interface `DEV`.
    """
    for pattern, by in (
        (r"refcnt \d+ |direct_packets_stat \d+ ", ""),
        (r"filter parent ffff: ", "filter ingress "),
        (r" seed \d+", ""),  # from Linux 6.6 on each netem has one, of its own choice where nobody asks
        (r"\b[89a-f][0-9a-f]{3}:(?=\s|1\b)", "auto:"),
        (r"fh [0-9a-f]+:[^ ]* order \d+ key ht [0-9a-f]+ bkt 0", "fh"),
        (r"index \d+ (?=ref 1 bind 1)|(?<=police )0x[0-9a-f]+ ", ""),  # of an action of the filter's own
        (rf"\b{re.escape(device)}\b", "DEV"),
    ):
        text = re.sub(pattern, by, text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if " fh 8" not in line and "ht divisor" not in line]
    first = [line for line in lines if line.startswith(("qdisc", "class"))]
    return sorted(first) + [line for line in lines if not line.startswith(("qdisc", "class"))]


# --- what the kernel holds, byte for byte -----------------------------------------------------------------------------


def bodies(what: str, ifindex: int, parent: int = 0) -> list[bytes]:
    """What follows nlmsghdr in each answer to a dump of qdiscs, classes or filters of one interface."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as rtnetlink:
        request = struct.pack("=BxxxiIII", 0, ifindex, 0, parent, 0)
        rtnetlink.send(struct.pack("=IHHII", 16 + len(request), DUMPS[what], 0x301, 1, 0) + request)
        found: list[bytes] = []
        while True:
            data = rtnetlink.recv(1 << 20)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (2, 3):  # an error means: a qdisc that has no such thing
                    return [body for body in found if struct.unpack_from("=i", body, 4)[0] == ifindex]
                found.append(data[16:length])
                data = data[length + 3 & ~3 :]


def attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[length + 3 & ~3 :]
    return found


def state(ifindex: int) -> list[tuple[Any, ...]]:
    """Everything that was set on the interface, comparable byte by byte between interfaces.

    Handles of 8000: and above were chosen by the kernel; u32 filters keep only their order.
    """
    qdiscs = [_entry("qdisc", body) for body in bodies("qdisc", ifindex)]
    qdiscs = [entry for entry in qdiscs if entry[2]]
    classes = [_entry("class", body) for body in bodies("class", ifindex)] if qdiscs else []
    filters = []
    for place in {entry[2] for entry in (*qdiscs, *classes)} | _hook_places(qdiscs):
        filters += [_entry("filter", body) for body in bodies("filter", ifindex, place)]
    real = [entry for entry in filters if entry[2] and entry[5] and not (entry[1] == "u32" and not entry[2] & 0xFFF)]
    by_place: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    for entry in real:
        handle = "auto" if entry[1] in ("u32", "flower") else entry[2]
        place = 0xFFFFFFF2 if entry[3] == 0xFFFF0000 else entry[3]  # two names of ingress: the kernel shows the last
        by_place.setdefault((place, entry[4]), []).append((entry[1], handle, entry[5]))
    chosen: list[tuple[Any, ...]] = [
        (role, kind, _chosen(handle), parent, options) for role, kind, handle, parent, _info, options in qdiscs
    ]
    chosen += [
        (role, kind, _chosen(handle), _chosen(parent), options)
        for role, kind, handle, parent, _info, options in classes
        if kind not in ("netem", "tbf", "prio")  # these come with their qdisc
    ]
    for entries in by_place.values():
        if entries[0][0] == "flower":  # a hash table has no order
            entries.sort()
    return sorted(chosen, key=repr) + sorted(by_place.items())


def _netem_without_what_does_nothing(options: dict[int, bytes]) -> dict[int, bytes]:
    """Without seeds that the kernel chose, correlations of what never happens, and bounds of slots that have a table.

    tc shows none of them either (tc/q_netem.c, netem_print_opt).
    """
    options = {key: value for key, value in options.items() if key != 14}
    delay, loss, duplicate = struct.unpack("=3I", options[1])
    options[1] = struct.pack("=3I", delay, loss * any(options[0][8:12]), duplicate * any(options[0][16:20]))
    for key in (3, 4):  # reorder and corrupt
        options[key] = options[key] if any(options[key][:4]) else bytes(8)
    if 12 in options and any(options[12][32:40]):
        options[12] = bytes(16) + options[12][16:]
    return options


def _hook_places(qdiscs: Sequence[tuple[Any, ...]]) -> set[int]:
    """TC_H_MIN_INGRESS and TC_H_MIN_EGRESS, where a clsact has its filters."""
    return {0xFFFFFFF2, 0xFFFFFFF3} if any(entry[1] == "clsact" for entry in qdiscs) else set()


def _chosen(handle: int) -> int | str:
    return "auto" if 0x80000000 <= handle < 0xFFFF0000 else handle


def _settled_actions(data: bytes) -> bytes:
    """Without times, counters, and the index that the kernel chose for an action of the filter's own."""
    settled = []
    for order, entry in attributes(data).items():
        found = attributes(entry)
        kind = found[KIND].rstrip(b"\0").decode()
        options = attributes(found[OPTIONS])
        options.pop(6 if kind == "police" else 1, None)  # TCA_*_TM
        parameters, counts = (1, 44) if kind == "police" else (2, 12)
        values = options[parameters]
        own = struct.unpack_from("=2i", values, counts) == (1, 1)
        options[parameters] = (bytes(4) if own else values[:4]) + values[4:counts] + values[counts + 8 :]
        settled.append((order, kind, sorted((key, value.hex()) for key, value in options.items())))
    return repr(settled).encode()


def _entry(role: str, body: bytes) -> tuple[str, str, int, int, int, tuple[tuple[int, str], ...]]:
    _ifindex, handle, parent, info = struct.unpack_from("=iIII", body, 4)
    found = attributes(body[20:])
    kind = found[KIND].rstrip(b"\0").decode()
    data = found.get(OPTIONS, b"")
    options: dict[int, bytes] = {}
    if data:
        fixed = 24 if kind == "netem" else len(data) if kind in ("pfifo", "bfifo", "prio") else 0
        options = {0: data[:fixed], **attributes(data[fixed:])}
        for volatile in VOLATILE.get((role, kind), ()):
            options.pop(volatile, None)
        if (role, kind) == ("qdisc", "htb"):
            options[2] = options[2][:12]  # without the count of direct packets
        if (role, kind) == ("class", "htb") and any(options[1][36:40]):  # its level: tc shows neither prio nor quantum
            options[1] = options[1][:32] + bytes(4) + options[1][36:40] + bytes(4)  # of a class with children
        if (role, kind) == ("qdisc", "netem"):
            options = _netem_without_what_does_nothing(options)
        if role == "filter" and ACTIONS.get(kind) in options:
            options[ACTIONS[kind]] = _settled_actions(options[ACTIONS[kind]])
        if (role, kind) == ("filter", "u32"):
            options.pop(2, None)  # the hash table's number
    return (
        role,
        kind,
        handle,
        parent,
        info,
        tuple((key, value.hex()) for key, value in sorted(options.items()) if value),
    )
