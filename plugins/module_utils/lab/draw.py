# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A topology as a drawing (SVG 1.1): the node in the middle of the lab in the middle, the others in rings around it.

Each node has a part of its ring as wide as what hangs on it, so a chain becomes a line and a star a circle.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from .model import Link, Node, Topology

BOX = (96, 44)  # width and height of a node, in pixels
RING = 270  # from one ring to the next, at least
ROOM = 112  # along a ring, from the middle of one node to the next
MARGIN = 120
COLOURS = {"uml": "#dbe9f6", "qemu": "#e3d9f0", "netns": "#dff0d8", "board": "#fbe6cf"}
STYLE = (
    "text{font:12px sans-serif;text-anchor:middle} .small{font-size:10px;fill:#444} .impaired{fill:#b00}"
    " line{stroke:#555;stroke-width:1.5} rect{stroke:#333} .router rect{stroke-width:3} circle{fill:#555}"
)


class Point(NamedTuple):
    x: float
    y: float


def layout(members: Mapping[str, Sequence[str]]) -> dict[str, Point]:
    """Where each thing stands; `members` are the neighbours of each, in order. Parts that nothing joins stand below."""
    places: dict[str, Point] = {}
    below = 0.0
    for thing in members:
        if thing in places:
            continue
        tree = _tree(_middle(thing, members), members)
        part = _rings(tree)
        low = min(point.y for point in part.values())
        shift = below - low if places else 0.0
        places |= {name: Point(point.x, point.y + shift) for name, point in part.items()}
        below = max(point.y for point in places.values()) + RING
    return places


def _tree(root: str, members: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """What hangs on each, by the shortest ways from the root, which comes first."""
    tree: dict[str, list[str]] = {root: []}
    queue = collections.deque([root])
    while queue:
        thing = queue.popleft()
        for other in members[thing]:
            if other not in tree:
                tree[other] = []
                tree[thing].append(other)
                queue.append(other)
    return tree


def _depth(root: str, members: Mapping[str, Sequence[str]]) -> int:
    depths = {root: 0}
    for thing, hanging in _tree(root, members).items():
        depths |= dict.fromkeys(hanging, depths[thing] + 1)
    return max(depths.values())


def _middle(start: str, members: Mapping[str, Sequence[str]]) -> str:
    """That from which the farthest is nearest."""
    return min(_tree(start, members), key=lambda name: _depth(name, members))


def _rings(tree: dict[str, list[str]]) -> dict[str, Point]:
    root = next(iter(tree))
    leaves: dict[str, int] = {}
    for thing in reversed(tree):
        leaves[thing] = sum(leaves[other] for other in tree[thing]) or 1
    # The first ring is as long as all that hangs on it needs; the others are longer by themselves.
    first = max(RING, leaves[root] * ROOM / math.tau)
    spans = {root: (math.pi, math.tau)}  # where its part begins, and how wide it is, in radians
    rings, places = {root: 0}, {root: Point(0.0, 0.0)}
    for thing in tree:
        begin, width = spans[thing]
        for other in tree[thing]:
            share = width * leaves[other] / leaves[thing]
            rings[other] = rings[thing] + 1
            angle = begin + share / 2 - (math.tau / leaves[root] / 2 if thing == root else 0)
            spans[other] = (angle - share / 2, share)
            begin += share
            distance = first + (rings[other] - 1) * RING
            places[other] = Point(distance * math.cos(angle), distance * math.sin(angle))
    return places


def svg(topology: Topology, impairments: Mapping[tuple[str, str], Any] | None = None) -> str:
    """The whole drawing; `impairments` of interfaces by (node, interface), as the inventory says them."""
    members: dict[str, list[str]] = {node.name: [] for node in topology.nodes}
    for link in topology.links:
        # A name of a link that stands for itself, as a switch does, cannot be a node's: those have no slash.
        hub = f"/{link.name}"
        ends = [end.node for end in link.ends]
        if len(ends) > 2:
            members[hub] = ends
        for place, name in enumerate(ends):
            members[name].append(hub if len(ends) > 2 else ends[1 - place])
    places = layout(members)
    left, top = (min(point[axis] for point in places.values()) - MARGIN for axis in (0, 1))
    width, height = (max(point[axis] for point in places.values()) + MARGIN - (left, top)[axis] for axis in (0, 1))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" height="{height:.0f}">',
        f"<title>{escape(topology.lab)}</title><style>{STYLE}</style>",
    ]
    twins: dict[frozenset[str], int] = {}
    for link in topology.links:
        lines += _link(link, topology, places, impairments or {}, twins)
    lines += [line for node in topology.nodes for line in _node(node, places[node.name])]
    return "\n".join([*lines, "</svg>", ""])


def _node(node: Node, point: Point) -> list[str]:
    width, height = BOX
    kind = f"{node.kind}, router" if node.router else node.kind
    shown = "node router" if node.router else "node"
    return [
        f'<g class="{shown}" id={quoteattr(node.name)}>'
        f'<rect x="{point.x - width / 2:.1f}" y="{point.y - height / 2:.1f}" width="{width}" height="{height}" rx="6"'
        f' fill="{COLOURS.get(node.kind, "#eee")}"/>'
        f"{_text(point.x, point.y - 3, node.name)}{_text(point.x, point.y + 14, kind, 'small')}</g>"
    ]


def _text(x: float, y: float, text: str, shown: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{f" class={quoteattr(shown)}" if shown else ""}>{escape(text)}</text>'


def _between(here: Point, there: Point, part: float) -> Point:
    return Point(here.x + (there.x - here.x) * part, here.y + (there.y - here.y) * part)


def _link(
    link: Link,
    topology: Topology,
    places: Mapping[str, Point],
    impairments: Mapping[tuple[str, str], Any],
    twins: dict[frozenset[str], int],
) -> list[str]:
    ends = [places[end.node] for end in link.ends]
    pair = frozenset(end.node for end in link.ends)
    shift = 40.0 * twins.get(pair, 0)  # the second link between the same two is bent, so that both are seen
    twins[pair] = twins.get(pair, 0) + 1
    middle = places[f"/{link.name}"] if len(ends) > 2 else _between(ends[0], ends[1], 0.5)
    middle = Point(middle.x, middle.y + shift)
    words = [link.name, link.kind] + ([f"MTU {link.mtu}"] if link.mtu else [])
    lines = [f'<g class="link" id={quoteattr("link " + link.name)}>']
    nodes = {node.name: node for node in topology.nodes}
    for end, point in zip(link.ends, ends):
        lines.append(f'<line x1="{point.x:.1f}" y1="{point.y:.1f}" x2="{middle.x:.1f}" y2="{middle.y:.1f}"/>')
        place = _between(point, middle, 0.62)
        interface = next(one for one in nodes[end.node].interfaces if one.name == end.interface)
        for number, text in enumerate((end.interface, *interface.addresses)):
            lines.append(_text(place.x, place.y + 12 + 11 * number, text, "small"))
        asked = impairments.get((end.node, end.interface))
        if asked:
            lines.append(_text(place.x, place.y - 16, _words(asked), "small impaired"))
    if len(ends) > 2:
        lines.append(f'<circle cx="{middle.x:.1f}" cy="{middle.y:.1f}" r="7"/>')
    return [*lines, _text(middle.x, middle.y - 5, ", ".join(words), "small"), "</g>"]


def _words(asked: Mapping[str, Any]) -> str:
    """What is asked for, in a few words."""
    if asked.get("classes"):
        return f"{len(asked['classes'])} classes"
    return " ".join(f"{key} {_value(value)}" for key, value in asked.items() if key != "name")


def _value(value: Any) -> str:
    return " ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, Mapping) else str(value)
