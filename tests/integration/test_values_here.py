# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary on this machine's own kernel: what it carries, by packets, and what it lacks, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from plugins.module_utils.capabilities import load
from plugins.module_utils.errors import MissingCapability
from plugins.module_utils.impairment import engine
from tests.integration.engine import inside
from tests.integration.places import Netns
from tests.integration.wire import AT_ONCE, FULL, SLOW, Wire, numbers, sh


@pytest.fixture
def place(netns: Netns) -> Iterator[Netns]:
    for name in (netns.device, netns.peer):
        netns.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"])
    with inside(netns):
        yield netns
        engine.clear()


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize(
    ("buffer", "fits"),
    [({"queue": "9084B"}, 6), ({"queue": "5p"}, 5), ({"discipline": {"kind": "bfifo", "limit": "10kB"}}, 6)],
    ids=["bytes", "packets", "bfifo"],
)
def test_a_rate_and_its_buffer(place: Netns, direction: str, buffer: dict[str, Any], fits: int) -> None:
    asked = [{"name": place.device, "direction": direction, **SLOW[FULL], **buffer}]
    engine.apply(asked, [])
    assert not engine.apply(asked, []).report.changed
    wire = Wire(place.device, place.peer)
    wire.send(200, at=place.device if direction == "egress" else place.peer)
    (device,) = re.findall(r"htb 7e57: dev (\S+)", place.run(["tc", "qdisc", "show"]).stdout)
    assert max(map(int, re.findall(r" backlog \d+b (\d+)p", sh(f"tc -s class show dev {device}")))) == fits
    came = wire.receive(at=place.peer if direction == "egress" else place.device, quiet=0.3)
    assert numbers(came) == list(range(AT_ONCE[FULL] + fits))


def test_clear_leaves_no_link_and_no_ingress(place: Netns) -> None:
    before = place.run(["sh"], stdin="tc qdisc show; ip -o link show; tc actions list action mirred").stdout
    engine.apply([{"name": place.device, "direction": "both", "rate": "1mbit"}], [])
    shown = place.run(["sh"], stdin="tc qdisc show; ip -o link show").stdout
    assert shown.count("qdisc htb 7e57:") == 2 and "clsact" in shown and " imp" in shown
    engine.clear()
    assert place.run(["sh"], stdin="tc qdisc show; ip -o link show; tc actions list action mirred").stdout == before


NEEDS = [
    ("qdisc.netem", {"delay": "1ms"}, "delay", "CONFIG_NET_SCH_NETEM"),
    ("qdisc.fq_codel", {"discipline": "fq_codel"}, "discipline", "CONFIG_NET_SCH_FQ_CODEL"),
    ("qdisc.fq", {"discipline": "fq"}, "discipline", "CONFIG_NET_SCH_FQ"),
    ("qdisc.cake", {"discipline": "cake"}, "discipline", "CONFIG_NET_SCH_CAKE"),
    ("qdisc.plug", {"discipline": "plug"}, "discipline", "CONFIG_NET_SCH_PLUG"),
    ("action.gact_determ", {"direction": "ingress", "drop": {"every": 5}}, "drop", "CONFIG_GACT_PROB"),
]


@pytest.mark.parametrize(("feature", "keys", "key", "option"), NEEDS, ids=[row[0] for row in NEEDS])
def test_what_the_kernel_lacks_is_named(
    place: Netns, feature: str, keys: dict[str, Any], key: str, option: str
) -> None:
    asked = [{"name": place.device, **keys}]
    if load().ok(feature):
        assert engine.apply(asked, []).report.changed
        return
    before = place.run(["tc", "qdisc", "show"]).stdout
    with pytest.raises(MissingCapability, match=rf"^impairment_interfaces\[0\]\.{key} needs {option}"):
        engine.apply(asked, [])
    assert place.run(["tc", "qdisc", "show"]).stdout == before
