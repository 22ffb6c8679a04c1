# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Input that module tc refuses: with the path of the value, what is allowed, and nothing touched."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput, RolledBack
from tests.integration.engine import Bench
from tests.integration.test_tc import TREES
from tests.oracle import tc as oracle

ROOT = {"parent": "root", "handle": "1:", "kind": "htb"}
CLASS = {"parent": "1:", "classid": "1:1", "kind": "htb", "rate": "1mbit"}
FILTER = {"parent": "1:", "prio": 1, "kind": "u32", "match": ["u32 0 0"], "flowid": "1:1"}


def tree(qdiscs: Any = (ROOT,), classes: Any = (CLASS,), filters: Any = (FILTER,)) -> dict[str, Any]:
    return {"qdiscs": list(qdiscs), "classes": list(classes), "filters": list(filters)}


def root(**more: Any) -> dict[str, Any]:
    return tree([{**ROOT, **more}])


def leaf(kind: str, **more: Any) -> dict[str, Any]:
    return tree([ROOT, {"parent": "1:1", "kind": kind, **more}])


def netem(**more: Any) -> dict[str, Any]:
    return leaf("netem", **more)


def class_(**more: Any) -> dict[str, Any]:
    return tree(classes=[{**CLASS, **more}])


def filter_(**more: Any) -> dict[str, Any]:
    return tree(filters=[{**FILTER, **more}])


def match(text: object) -> dict[str, Any]:
    return filter_(match=[text])


def action(*entries: Any) -> dict[str, Any]:
    bare = {key: value for key, value in FILTER.items() if key != "flowid"}
    return tree(filters=[{**bare, "action": list(entries)}])


def gact(**random: Any) -> dict[str, Any]:
    return action({"kind": "gact", "control": "pass", "random": random})


def mirred(**more: Any) -> dict[str, Any]:
    return action({"kind": "mirred", "egress": "redirect", "dev": "lo", **more})


def police(**more: Any) -> dict[str, Any]:
    return action({"kind": "police", "rate": "1mbit", "burst": "5kB", **more})


BANDS = {"parent": "root", "handle": "1:", "kind": "prio"}
NAMED = {"kind": "netem", "handle": "5:"}
TBF = {"rate": "1mbit", "burst": "5kB", "limit": "9kB"}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (tree([]), "qdiscs", "exactly one qdisc has parent root"),
    (tree([ROOT, ROOT]), "qdiscs", "exactly one qdisc has parent root"),
    (tree(["root"]), "qdiscs[0]", "write a mapping"),
    (tree([{"parent": "root", "handle": "1:"}]), "qdiscs[0].kind", "required"),
    (root(parent=None), "qdiscs[0].parent", "required"),
    (root(kind="hfsc"), "qdiscs[0].kind", "known kinds of qdisc: htb, netem"),
    (root(kind=["htb"]), "qdiscs[0].kind", "known kinds"),
    (root(handle=None), "qdiscs[0].handle", "needs a handle"),
    (root(handle=1), "qdiscs[0].handle", "hexadecimal, in quotes"),
    (root(handle=70), "qdiscs[0].handle", "without quotes YAML reads 1:10 as the number 70"),
    (root(handle="1"), "qdiscs[0].handle", "write a handle such as"),
    (root(handle="1:1"), "qdiscs[0].handle", "no minor part"),
    (root(handle="g:"), "qdiscs[0].handle", "write a handle such as"),
    (root(handle="12345:"), "qdiscs[0].handle", "write a handle such as"),
    (root(handle="-1:"), "qdiscs[0].handle", "write a handle such as"),
    (root(handle="1_0:"), "qdiscs[0].handle", "write a handle such as"),
    (root(default=10), "qdiscs[0].default", "0xa means class 1:a"),
    (root(default=0x10000), "qdiscs[0].default", "from 0 to 65535"),
    (root(default=True), "qdiscs[0].default", "whole number"),
    (root(r2q=0), "qdiscs[0].r2q", "from 1 to"),
    (root(defualt=1), "qdiscs[0].defualt", "unknown key; allowed: parent, handle, kind, default"),
    (tree([ROOT, {"parent": "1:9", "kind": "pfifo"}]), "qdiscs[1].parent", "a class of this tree"),
    (tree([ROOT, {"parent": "ingress", "kind": "pfifo"}]), "qdiscs[1].parent", "a class of this tree"),
    (tree([ROOT, {"parent": "1:", "kind": "pfifo"}]), "qdiscs[1].parent", "a class of this tree"),
    (tree([ROOT, *[{"parent": "1:1", "kind": "pfifo"}] * 2]), "qdiscs[2].parent", "each once"),
    (tree([ROOT, {"parent": "1:1", "handle": "1:", "kind": "pfifo"}]), "qdiscs[1].handle", "each handle is used once"),
    (tree([ROOT, {"kind": "clsact"}, {"kind": "ingress"}]), "qdiscs", "exactly one qdisc has parent ingress"),
    (tree([ROOT, {"kind": "clsact", "parent": "root"}]), "qdiscs[1].parent", "has the parent ingress"),
    (tree([ROOT, {"kind": "ingress", "handle": "2:"}]), "qdiscs[1].handle", "the handle ffff:"),
    (tree([{"kind": "clsact"}]), "qdiscs", "exactly one qdisc has parent root"),
    (filter_(parent="ingress"), "filters[0].parent", "ingress where the tree has such a qdisc"),
    (tree([ROOT, {"kind": "ingress"}], filters=[{**FILTER, "parent": "egress"}]), "filters[0].parent", "such a qdisc"),
    (tree([ROOT, {"kind": "clsact"}], filters=[{**FILTER, "parent": "ffff:"}]), "filters[0].parent", "such a qdisc"),
    (leaf("pfifo", limit="5kB"), "qdiscs[1].limit", "whole number"),
    (leaf("pfifo", limit=-1), "qdiscs[1].limit", "from 0 to"),
    (leaf("bfifo", limit=5000), "qdiscs[1].limit", "a size with its unit"),
    (leaf("tbf", **{**TBF, "rate": None}), "qdiscs[1]", "tbf needs rate and burst"),
    (leaf("tbf", **{**TBF, "limit": None}), "qdiscs[1]", "one of limit and latency"),
    (leaf("tbf", **TBF, latency="5ms"), "qdiscs[1]", "one of limit and latency"),
    (leaf("tbf", **TBF, peakrate="5mbit"), "qdiscs[1]", "peakrate and mtu need each other"),
    (leaf("tbf", **TBF, peakrate="5kbit", mtu="2kB"), "qdiscs[1]", "must not be below rate"),
    (leaf("prio", bands=1), "qdiscs[1].bands", "from 2 to 16"),
    (leaf("prio", priomap=[0] * 15), "qdiscs[1].priomap", "write 16 bands"),
    (leaf("prio", priomap=[3] * 16), "qdiscs[1]", "3 bands count from 0 to 2"),
    (leaf("fq", quantum="0B"), "qdiscs[1].quantum", "from 1B to 1048576B"),
    (leaf("fq", buckets=1000), "qdiscs[1].buckets", "a power of two"),
    (leaf("fq", maxrate="40gbit"), "qdiscs[1].maxrate", "below 34.3gbit"),
    (leaf("fq", refill_delay="100ns"), "qdiscs[1].refill_delay", "whole microseconds"),
    (leaf("fq", weights=[1, 2]), "qdiscs[1].weights[0]", "from 16384 to"),
    (leaf("fq", priomap=[3] * 16), "qdiscs[1].priomap", "bands 0, 1 and 2"),
    (leaf("fq_codel", target="2200s"), "qdiscs[1].target", "below 2199s"),
    (leaf("fq_codel", flows=0), "qdiscs[1].flows", "from 1 to 65536"),
    (leaf("fq_codel", quantum="255B"), "qdiscs[1].quantum", "from 256B to"),
    (leaf("fq_codel", ce_threshold_selector="3"), "qdiscs[1].ce_threshold_selector", "VALUE/MASK"),
    (leaf("cake", diffserv="diffserv5"), "qdiscs[1].diffserv", "allowed: diffserv3"),
    (leaf("cake", overhead=257), "qdiscs[1].overhead", "from -64 to 256"),
    (leaf("plug", limit=5000), "qdiscs[1].limit", "a size with its unit"),
    (tree([ROOT, {**NAMED, "parent": "1:1"}, {**NAMED, "parent": "5:2"}]), "qdiscs[2].parent", "a place below a prio"),
    (tree([ROOT, {**NAMED, "parent": "5:1"}]), "qdiscs[1].parent", "a place below a prio"),
    (tree([BANDS, {**NAMED, "parent": "1:4"}], ()), "qdiscs[1].parent", "a place below a prio"),
    (netem(delay=50), "qdiscs[1].delay", "with its unit, such as 50ms"),
    (netem(delay="50"), "qdiscs[1].delay", "with its unit"),
    (netem(delay="-5ms"), "qdiscs[1].delay", "0 or more"),
    (netem(delay="5 minutes"), "qdiscs[1].delay", "with its unit"),
    (netem(delay="1e3ms"), "qdiscs[1].delay", "with its unit"),
    (netem(delay="٥ms"), "qdiscs[1].delay", "with its unit"),
    (netem(delay="300000000000s"), "qdiscs[1].delay", "below 292 years"),
    (netem(jitter="5ms"), "qdiscs[1]", "jitter needs a delay"),
    (netem(delay="5ms", delay_correlation="5%"), "qdiscs[1]", "delay_correlation needs a jitter"),
    (netem(loss=0.01), "qdiscs[1].loss", "from 0% to 100%"),
    (netem(loss="101%"), "qdiscs[1].loss", "from 0% to 100%"),
    (netem(loss="-1%"), "qdiscs[1].loss", "from 0% to 100%"),
    (netem(loss={"random": "1%", "burst": 3}), "qdiscs[1].loss.burst", "unknown key"),
    (netem(loss={"gemodel": {"r": "1%"}}), "qdiscs[1].loss.gemodel.p", "required"),
    (netem(loss={"gemodel": {"p": None}}), "qdiscs[1].loss.gemodel.p", "required"),
    (netem(loss={"gemodel": {"p": "1%"}, "state": {"p13": "1%"}}), "qdiscs[1].loss", "one of"),
    (netem(loss={"correlation": "1%"}), "qdiscs[1].loss", "one of random"),
    (netem(reorder="5%"), "qdiscs[1]", "reorder needs a delay"),
    (netem(delay="1ms", reorder={"percent": "5%", "gap": 0}), "qdiscs[1].reorder.gap", "from 1 to"),
    (netem(rate="128kbps"), "qdiscs[1].rate", "write kbit"),
    (netem(rate="0bit"), "qdiscs[1].rate", "the least rate is 8bit"),
    (netem(cell_size=53), "qdiscs[1]", "need a rate"),
    (netem(slot={"max": "1ms"}), "qdiscs[1].slot.min", "required"),
    (netem(slot={"min": "2ms", "max": "1ms"}), "qdiscs[1].slot.max", "not below min"),
    (netem(slot={"min": "0", "packets": 3}), "qdiscs[1].slot.min", "above 0"),
    (netem(slot={"min": "1ms", "packets": 2147483647}), "qdiscs[1].slot.packets", "to 2147483646"),
    (netem(ecn=True), "qdiscs[1]", "ecn needs a loss"),
    (netem(ecn="yes", loss="1%"), "qdiscs[1].ecn", "true or false"),
    (netem(limit=0), "qdiscs[1].limit", "from 1 to"),
    (netem(seed=-1), "qdiscs[1].seed", "from 0 to"),
    (class_(rate=None), "classes[0]", "needs a rate"),
    (class_(rate=1000000), "classes[0].rate", "with its unit"),
    (class_(rate="1mbps"), "classes[0].rate", "write mbit for bits"),
    (class_(rate="2mbit", ceil="1mbit"), "classes[0]", "ceil 1mbit is below rate 2mbit"),
    (class_(prio=8), "classes[0].prio", "from 0 to 7"),
    (class_(burst=1600), "classes[0].burst", "a size with its unit"),
    (class_(quantum=0), "classes[0].quantum", "from 1 to"),
    (class_(mpu=65536), "classes[0].mpu", "from 0 to 65535"),
    (class_(classid="1:"), "classes[0].classid", "needs a minor part"),
    (class_(classid="2:1"), "classes[0].parent", "the same major number"),
    (class_(parent="1:7"), "classes[0].parent", "a class of the same major number"),
    (class_(parent="1:1"), "classes[0].parent", "its own ancestor"),
    (class_(kind="hfsc"), "classes[0].kind", "known kinds of class: htb"),
    (tree(classes=[CLASS, CLASS]), "classes[1].classid", "used once"),
    (tree([{**ROOT, "kind": "tbf", **TBF}]), "classes[0].kind", "the root qdisc is a tbf"),
    (filter_(kind="route"), "filters[0].kind", "known kinds of filter: fw, u32"),
    (filter_(chain=1), "filters[0].chain", "chains of filters are not supported"),
    (filter_(action={"kind": "gact"}), "filters[0].action", "write a list"),
    (action(*[{"kind": "gact", "control": "pipe"}] * 33), "filters[0].action", "32 actions at most"),
    (action("drop"), "filters[0].action[0]", "write a mapping with kind"),
    (action({"kind": "pedit"}), "filters[0].action[0].kind", "known kinds of actions: gact, skbedit, mirred, police"),
    (action({"kind": ["gact"]}), "filters[0].action[0].kind", "known kinds of actions"),
    (action({"kind": "gact"}), "filters[0].action[0]", "gact needs a control"),
    (action({"kind": "gact", "control": "goto chain 7"}), "filters[0].action[0].control", "chains of filters are not"),
    (action({"kind": "gact", "control": "stolen"}), "filters[0].action[0].control", "allowed: pass, reclassify, drop"),
    (action({"kind": "gact", "verdict": "drop"}), "filters[0].action[0].verdict", "unknown key; allowed: kind, index"),
    (action({"kind": "gact", "index": 7}), "filters[0].action[0].index", "make it first, by `tc actions add "),
    (action({"kind": "mirred", "index": 7}), "filters[0].action[0].index", "make it first, by `tc actions add action"),
    (action({"kind": "gact", "index": 0}), "filters[0].action[0].index", "from 1 to"),
    (action({"kind": "gact", "index": 7, "control": "drop"}), "filters[0].action[0]", "exists already"),
    (gact(type="determ", control="drop"), "filters[0].action[0].random.value", "required"),
    (gact(type="each", control="drop", value=3), "filters[0].action[0].random.type", "netrand, determ"),
    (gact(type="determ", control="drop", value=0), "filters[0].action[0].random.value", "from 1 to 10000"),
    (mirred(dev="t99"), "filters[0].action[0].dev", "this node has the interfaces"),
    (mirred(dev=None), "filters[0].action[0]", "mirred needs"),
    (mirred(ingress="mirror"), "filters[0].action[0]", "one of egress and ingress"),
    (mirred(control="pass"), "filters[0].action[0]", "control belongs to mirror"),
    (mirred(egress="copy"), "filters[0].action[0].egress", "redirect, mirror"),
    (action({"kind": "skbedit"}), "filters[0].action[0]", "one of mark, priority"),
    (action({"kind": "skbedit", "mark": "0x10/0xf"}), "filters[0].action[0].mark", "none outside of its mask"),
    (action({"kind": "skbedit", "mark": 2**32}), "filters[0].action[0].mark", "32 bits"),
    (action({"kind": "skbedit", "ptype": "me"}), "filters[0].action[0].ptype", "host, broadcast"),
    (police(burst=None), "filters[0].action[0]", "needs rate and burst"),
    (police(rate="1mbps"), "filters[0].action[0].rate", "write mbit"),
    (police(peakrate="2mbit"), "filters[0].action[0]", "peakrate needs an mtu"),
    (police(peakrate="500kbit", mtu="2kB"), "filters[0].action[0]", "must not be below rate"),
    (police(mtu="255B"), "filters[0].action[0]", "from 256B"),
    (police(exceed="slow"), "filters[0].action[0].exceed", "allowed: pass"),
    (filter_(prio=0), "filters[0].prio", "from 1 to 65535"),
    (filter_(prio=None), "filters[0].prio", "required"),
    (filter_(protocol="ipx"), "filters[0].protocol", "allowed: all, ip"),
    (filter_(handle=1), "filters[0].handle", "leave the handle out"),
    (filter_(flowid=None), "filters[0]", "needs a flowid"),
    (filter_(flowid="1:9"), "filters[0].flowid", "a class of this tree"),
    (filter_(parent="1:1"), "filters[0].parent", "a class with children"),
    (filter_(kind="fw"), "filters[0].match", "unknown key"),
    (tree(filters=[{"parent": "1:", "prio": 1, "kind": "fw", "flowid": "1:1"}]), "filters[0].handle", "the mark"),
    (filter_(match=[]), "filters[0]", "needs a match"),
    (filter_(match="u32 0 0"), "filters[0].match", "write a list"),
    (match("ip dport 65536 0xffff"), "filters[0].match[0]", "must fit 2 bytes"),
    (match("ip dport http 0xffff"), "filters[0].match[0]", "is no number"),
    (match("ip dport 080 0xffff"), "filters[0].match[0]", "is no number"),
    (match("ip dport 80"), "filters[0].match[0]", "write a match of tc-u32(8)"),
    (match("ip dport 80 0xffff 1"), "filters[0].match[0]", "write a match of tc-u32(8)"),
    (match("ip src 10.0.0.1/8"), "filters[0].match[0]", "has host bits set"),
    (match("ip src 10.0.0.0.0"), "filters[0].match[0]", "write a match of tc-u32(8)"),
    (match("ether dst 52:54"), "filters[0].match[0]", "six bytes"),
    (match("mark 4294967296 1"), "filters[0].match[0]", "must fit 4 bytes"),
    (match("mark -1 1"), "filters[0].match[0]", "is no number"),
    (match("u32 1 1 at 99999"), "filters[0].match[0]", "between -32768 and 32767"),
    (match("u32 1 1 at 2"), "filters[0].match[0]", "cross a 32-bit word"),
    (match(""), "filters[0].match[0]", "write a match of tc-u32(8)"),
    (match(None), "filters[0].match[0]", "write a match of tc-u32(8)"),
    (filter_(match=["ip ihl 5 0xf", "ip ihl 6 0xf"]), "filters[0]", "different values at offset 0"),
    (filter_(match=["mark 1 1", "mark 2 2"]), "filters[0]", "only one mark"),
    (tree(filters=[FILTER, {**FILTER, "protocol": "ip"}]), "filters[1].prio", "one kind and one protocol"),
    (tree(filters=[{**FILTER, "indev": "an-interface-with-a-long-name"}]), "filters[0].indev", "15 characters"),
]


@pytest.fixture
def standing(benches: list[Bench]) -> Bench:
    benches[0].run(TREES["leaves"])
    return benches[0]


def test_refused_with_path_and_remedy_and_nothing_touched(standing: Bench) -> None:
    before = (standing.state(), standing.show())
    wrong = []
    for asked, path, allowed in REFUSED:
        try:
            standing.run(asked)
            wrong.append(f"{path} ({allowed}): taken")
        except InvalidInput as refusal:
            if refusal.path != path or allowed not in str(refusal) or not str(refusal).startswith(f"{path}: "):
                wrong.append(f"{path} ({allowed}): {refusal}")
        except Exception as error:  # the user would see a traceback
            wrong.append(f"{path} ({allowed}): {error!r}")
    assert not wrong, "\n".join(wrong)
    assert (standing.state(), standing.show()) == before


@pytest.mark.parametrize("kind", ["netem", "prio", "fq", "fq_codel", "cake", "plug", "tbf"])
def test_a_kind_that_the_kernel_lacks_is_refused_by_its_option(standing: Bench, kind: str) -> None:
    before = (standing.state(), standing.show())
    asked = tree([{"parent": "root", "handle": "1:", "kind": kind, **(TBF if kind == "tbf" else {})}], (), ())
    words = oracle.commands("lo", asked)[0].removeprefix("qdisc")
    tried = standing.place.run(["tc", "qdisc", *words.split()], check=False)
    standing.place.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=False)
    if tried.returncode == 0:
        assert standing.run(asked).changed
        return
    assert "unknown" in tried.stderr
    with pytest.raises(RolledBack, match=f"needs CONFIG_NET_SCH_{kind.upper()} .*the state before was restored"):
        standing.run(asked)
    assert (standing.state(), standing.show()) == before


FILTER_KINDS: dict[str, dict[str, Any]] = {
    "fw": {"handle": 1},
    "u32": {"match": ["u32 0 0"]},
    "flower": {"protocol": "ip", "dst_ip": "10.0.0.7"},
    "matchall": {},
    "bpf": {"bytecode": "1,6 0 0 4294967295"},
}
ACTION_KINDS: dict[str, dict[str, Any]] = {
    "gact": {"control": "drop"},
    "mirred": {"egress": "redirect", "dev": "lo"},
    "skbedit": {"mark": 1},
    "police": {"rate": "1mbit", "burst": "5kB"},
}


@pytest.mark.parametrize("kind", [*FILTER_KINDS, *ACTION_KINDS])
def test_a_filter_that_the_kernel_lacks_is_refused_by_its_option(standing: Bench, kind: str) -> None:
    before = (standing.state(), standing.show())
    if kind in FILTER_KINDS:
        asked = tree(filters=[{"parent": "1:", "prio": 1, "kind": kind, "flowid": "1:1", **FILTER_KINDS[kind]}])
    else:
        passed = {"kind": "mirred", "egress": "mirror", "dev": "lo"}
        asked = action(passed, {"kind": kind, **ACTION_KINDS[kind]})
    standing.place.run(["tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb"])
    words = shlex.split(oracle.commands("lo", asked)[-1])
    tried = standing.place.run(["tc", *words], check=False)
    standing.place.run(["tc", "qdisc", "del", "dev", "lo", "root"])
    if tried.returncode == 0:
        assert standing.run(asked).changed
        return
    assert "TC classifier not found" in tried.stderr or "Failed to load TC action module" in tried.stderr
    option = f"CONFIG_NET_{'CLS' if kind in FILTER_KINDS else 'ACT'}_{kind.upper()}"
    with pytest.raises(RolledBack, match=f"needs {option} .*the state before was restored"):
        standing.run(asked)
    assert (standing.state(), standing.show()) == before


def test_an_interface_that_is_not_there(standing: Bench) -> None:
    standing.device = "t99"
    with pytest.raises(InvalidInput, match=r"^interface: 't99' is refused; this node has the interfaces .*t0"):
        standing.run(TREES["quantum"])
