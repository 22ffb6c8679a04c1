# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drawings, read by an XML parser: everything is there, nothing lies over anything else."""

from __future__ import annotations

from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest

from plugins.module_utils.lab import addresses, draw, manage

SVG = "{http://www.w3.org/2000/svg}"
POOLS = ["10.0.0.0/16", "fd00:10::/48"]


def drawing(
    links: list[dict[str, Any]], names: list[str], routers: list[str], asked: Any = None
) -> ElementTree.Element:
    plans = {name: addresses.plan(name, links, names, POOLS, routers) for name in names}
    nodes = [
        {"name": name, "kind": "netns", "interfaces": plan.interfaces, "router": name in routers}
        for name, plan in plans.items()
    ]
    return ElementTree.fromstring(draw.svg(manage.parse("drawn", nodes, links), asked))


def link(*ends: str) -> dict[str, Any]:
    named = [dict(zip(("node", "interface"), end.split("."))) for end in ends]
    return {"name": "-".join(end.partition(".")[0] for end in ends), "ends": named}


def boxes(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Upper left corner of each node."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        if rect is not None:
            found[group.attrib["id"]] = (float(rect.attrib["x"]), float(rect.attrib["y"]))
    return found


CHAIN = [link("h1.eth0", "r1.eth0"), link("r1.eth1", "r2.eth1"), link("r2.eth0", "h2.eth0")]
NAMES = ["h1", "r1", "r2", "h2"]


def test_a_chain_is_a_line_with_every_name_and_address() -> None:
    root = drawing(CHAIN, NAMES, ["r1", "r2"], {("r1", "eth1"): {"name": "eth1", "delay": "20ms", "loss": "<1%"}})
    places = boxes(root)
    assert sorted(places, key=lambda name: places[name][0]) in (NAMES, NAMES[::-1])
    assert len({round(y) for _x, y in places.values()}) == 1
    said = [text.text for text in root.iter(f"{SVG}text")]
    for word in ("h1", "10.0.2.4/24", "fd00:10:0:2::4/64", "r1-r2, veth", "netns, router", "delay 20ms loss <1%"):
        assert word in said
    assert len(list(root.iter(f"{SVG}line"))) == 6


STAR = addresses.star("hub", [f"n{number:02}" for number in range(1, 50)])
RING = [link("a.1", "b.0"), link("b.1", "c.0"), link("c.1", "d.0"), link("d.1", "a.0")]
SWITCH = [link("a.0", "b.0", "c.0"), link("c.1", "d.0"), link("x.0", "y.0")]


@pytest.mark.parametrize(
    ("links", "names"),
    [(STAR, ["hub", *(one["name"] for one in STAR)]), (RING, list("abcd")), (SWITCH, list("abcdxy")), ([], ["alone"])],
)
def test_no_node_lies_over_another_and_all_are_in_the_picture(links: list[dict[str, Any]], names: list[str]) -> None:
    root = drawing(links, names, [])
    places = boxes(root)
    assert set(places) == set(names)
    width, height = draw.BOX
    for (one, (x, y)), (other, (u, v)) in combinations(places.items(), 2):
        assert abs(x - u) >= width or abs(y - v) >= height, (one, other)
    left, top, wide, high = (float(number) for number in root.attrib["viewBox"].split())
    for x, y in places.values():
        assert left <= x and x + width <= left + wide
        assert top <= y and y + height <= top + high
    ends = sum(len(one["ends"]) for one in links)
    assert len(list(root.iter(f"{SVG}line"))) == ends
    assert len(list(root.iter(f"{SVG}circle"))) == sum(len(one["ends"]) > 2 for one in links)
