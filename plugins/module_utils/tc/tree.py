# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the user writes for the module tc to a Tree; everything is checked before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .. import schema, units
from ..errors import InvalidInput
from .filters import shared_tables
from .kinds.base import Kind
from .kinds.table import require
from .model import (
    BOTH,
    EGRESS_FILTERS,
    INGRESS,
    INGRESS_FILTERS,
    INGRESS_HANDLE,
    PROTOCOLS,
    ROOT,
    Class,
    Filter,
    Qdisc,
    Tree,
    handle_text,
    parse_handle,
    side,
)
from .observe import ONE_BELOW
from .queues import places_below

_HANDLE = schema.leaf(parse_handle)
_FILTER_PARENT = schema.leaf(lambda value: EGRESS_FILTERS if value == "egress" else parse_handle(value))
_HOOKS = ("ingress", "clsact")
ALONE = ("matchall", "bpf")  # kinds of filters of which a priority holds one
_FILTER_PLACES = {
    "parent": _FILTER_PARENT,
    "prio": schema.whole_number(1, 0xFFFF),
    "protocol": schema.choice(*PROTOCOLS),
    "handle": schema.leaf(units.parse_integer),
    "chain": schema.not_supported("chains of filters are not supported; write priorities"),
}


def build(qdiscs: Sequence[object], classes: Sequence[object], filters: Sequence[object]) -> Tree:
    """The wanted tree. Raises InvalidInput with the path of the first value that cannot be used."""
    tree = Tree(
        tuple(_qdisc(entry, f"qdiscs[{index}]") for index, entry in enumerate(qdiscs)),
        tuple(_class(entry, f"classes[{index}]") for index, entry in enumerate(classes)),
        tuple(_filter(entry, f"filters[{index}]") for index, entry in enumerate(filters)),
    )
    tree = _settle_parents(_settle_ingress(tree))
    _check_handles(tree)
    _check_shape(tree)
    _check_filters(tree)
    return tree


def _split(
    entry: object, role: str, places: Mapping[str, schema.Parser], required: Sequence[str], path: str
) -> tuple[dict[str, Any], Kind, Any]:
    """(where it stands, its kind, its options)."""
    if not isinstance(entry, Mapping):
        raise InvalidInput(path, entry, f"write a mapping with kind, {', '.join(required)} and the options of the kind")
    if "kind" not in entry:
        raise InvalidInput(f"{path}.kind", None, "this key is required")
    kind = require(role, entry["kind"], f"{path}.kind")
    values = _fields(role, kind.name, tuple(places.items()), tuple(required))(entry, path)
    place = {key: values.pop(key) for key in (*places, "kind") if key in values}
    try:
        return place, kind, kind.build(**values)
    except ValueError as error:
        raise InvalidInput(path, dict(entry), str(error)) from None


@lru_cache
def _fields(
    role: str, name: str, places: tuple[tuple[str, schema.Parser], ...], required: Sequence[str]
) -> schema.Parser:
    """The parser of all keys of one kind, made once."""
    parameters = require(role, name, "kind").parameters
    return schema.mapping({**dict(places), "kind": schema.text, **parameters}, required)


def _qdisc(entry: object, path: str) -> Qdisc:
    hook = isinstance(entry, Mapping) and entry.get("kind") in _HOOKS  # these stand in one place only
    required = [] if hook else ["parent"]
    place, kind, options = _split(entry, "qdisc", {"parent": _HANDLE, "handle": _HANDLE}, required, path)
    handle = place.get("handle", 0)
    if hook:
        return _hook(kind.name, place, options, path)
    if place["parent"] == INGRESS:
        allowed = "write root or a class of this tree; at ingress stands a qdisc of kind ingress or clsact"
        raise InvalidInput(f"{path}.parent", "ingress", allowed)
    if handle & 0xFFFF:
        raise InvalidInput(f"{path}.handle", entry["handle"], 'a qdisc\'s handle has no minor part, such as "1:"')  # type: ignore[index]
    return Qdisc(kind.name, handle, place["parent"], options)


def _hook(name: str, place: Mapping[str, int], options: Any, path: str) -> Qdisc:
    for key, only in (("parent", INGRESS), ("handle", INGRESS_HANDLE)):
        if place.get(key, only) != only:
            allowed = f"a qdisc of kind {name} has the parent ingress and the handle ffff:; leave both out"
            raise InvalidInput(f"{path}.{key}", handle_text(place[key]), allowed)
    return Qdisc(name, INGRESS_HANDLE, INGRESS, options)


def _class(entry: object, path: str) -> Class:
    place, kind, options = _split(entry, "class", {"parent": _HANDLE, "classid": _HANDLE}, ["parent", "classid"], path)
    if not place["classid"] & 0xFFFF:
        raise InvalidInput(f"{path}.classid", entry["classid"], 'a class needs a minor part, such as "1:1"')  # type: ignore[index]
    return Class(kind.name, place["classid"], place["parent"], options)


def _filter(entry: object, path: str) -> Filter:
    place, kind, options = _split(entry, "filter", _FILTER_PLACES, ["parent", "prio"], path)
    handle = place.get("handle", 0)
    if kind.name == "fw" and not handle:
        raise InvalidInput(f"{path}.handle", handle, "a fw filter's handle is the mark, from 1 on")
    if kind.name != "fw" and handle:
        raise InvalidInput(f"{path}.handle", handle, f"the kernel numbers {kind.name} filters; leave the handle out")
    protocol = PROTOCOLS[place.get("protocol", "all")]
    if kind.name in ALONE:
        handle = 1
    if kind.name == "flower":
        options = _place_flower(options, protocol, entry, path)
    return Filter(kind.name, place["parent"], place["prio"], protocol, handle, options)


def _place_flower(options: Any, protocol: int, entry: Any, path: str) -> Any:
    from .kinds import flower

    try:
        return flower.place(options, protocol)
    except ValueError as error:
        raise InvalidInput(path, dict(entry), str(error)) from None


def _settle_ingress(tree: Tree) -> Tree:
    """One name for the place of a filter at ingress: `ingress`, `ffff:fff2` and, but not of clsact, `ffff:`."""
    names = {INGRESS, INGRESS_HANDLE} if tree.ingress and tree.ingress.kind == "ingress" else {INGRESS}
    filters = (entry._replace(parent=INGRESS_FILTERS) if entry.parent in names else entry for entry in tree.filters)
    return tree._replace(filters=tuple(filters))


def _settle_parents(tree: Tree) -> Tree:
    """`10:` and `10:1` both name the place below a netem or tbf 10:."""
    single = {qdisc.handle for qdisc in tree.qdiscs if qdisc.handle and qdisc.kind in ONE_BELOW}
    if not single:
        return tree
    return tree._replace(
        qdiscs=tuple(
            qdisc._replace(parent=qdisc.parent | 1) if qdisc.parent in single else qdisc for qdisc in tree.qdiscs
        )
    )


def _check_tops(tree: Tree) -> None:
    """One root and one ingress at most, and one of both; what has classes or queues has a root."""
    for parent, name in ((ROOT, "root"), (INGRESS, "ingress")):
        found = [index for index, qdisc in enumerate(tree.qdiscs) if qdisc.parent == parent]
        needed = parent == ROOT and (ROOT in tree.sides or tree.classes or not tree.ingress)
        if len(found) > 1 or (needed and not found):
            raise InvalidInput("qdiscs", f"{len(found)} with parent {name}", f"exactly one qdisc has parent {name}")
        if found and not tree.qdiscs[found[0]].handle:
            raise InvalidInput(f"qdiscs[{found[0]}].handle", None, 'the root qdisc needs a handle such as "1:"')


def _check_handles(tree: Tree) -> None:
    """Every parent exists: HTB silently puts a class with an unknown parent below the root."""
    _check_tops(tree)
    roots = {tree.root.handle} if tree.root else set()
    handles = {entry.handle for entry in tree.classes}
    above = handles | roots
    seen = set(roots)
    for index, entry in enumerate(tree.classes):
        path = f"classes[{index}]"
        if entry.handle in seen:
            raise InvalidInput(f"{path}.classid", handle_text(entry.handle), "each classid is used once")
        if entry.handle >> 16 != entry.parent >> 16 or entry.parent not in above:
            allowed = "write the qdisc or a class of the same major number in this tree"
            raise InvalidInput(f"{path}.parent", handle_text(entry.parent), allowed)
        seen.add(entry.handle)
    _check_queues(tree, handles)
    _check_loops(tree)


def _check_queues(tree: Tree, handles: set[int]) -> None:
    """Every queue has a place of its own, and a way from there up to the root."""
    above = {place: qdisc for qdisc in tree.qdiscs if qdisc.handle for place in places_below(qdisc)}
    ends = handles | BOTH
    parents: set[int] = set()
    for index, qdisc in enumerate(tree.qdiscs):
        at, steps = qdisc.parent, 0
        while at in above and steps < len(above):
            at, steps = above[at].parent, steps + 1
        if qdisc.parent in parents or at not in ends:
            allowed = "write root, a class of this tree, or a place below a prio, netem or tbf of this tree, each once"
            raise InvalidInput(f"qdiscs[{index}].parent", handle_text(qdisc.parent), allowed)
        parents.add(qdisc.parent)


def _check_shape(tree: Tree) -> None:
    """What the kernel would refuse halfway, or take and then ignore."""
    inner = {entry.parent for entry in tree.classes}
    handles: set[int] = set()
    for index, qdisc in enumerate(tree.qdiscs):
        if qdisc.handle and qdisc.handle in handles:
            raise InvalidInput(f"qdiscs[{index}].handle", handle_text(qdisc.handle), "each handle is used once")
        if qdisc.parent in inner:
            allowed = "write a class without children: only these have a queue"
            raise InvalidInput(f"qdiscs[{index}].parent", handle_text(qdisc.parent), allowed)
        handles.add(qdisc.handle)
    if tree.root:
        _check_root(tree, tree.root, inner)


def _check_root(tree: Tree, root: Qdisc, inner: set[int]) -> None:
    for index, entry in enumerate(tree.classes):
        if entry.kind != root.kind:
            raise InvalidInput(f"classes[{index}].kind", entry.kind, f"the root qdisc is a {root.kind}")
    default = getattr(root.options, "default", 0)
    if default and root.handle | default not in {entry.handle for entry in tree.classes} - inner:
        allowed = (
            f"{default:#x} means class {handle_text(root.handle | default)}; name a class of this tree without children"
        )
        raise InvalidInput(f"qdiscs[{tree.qdiscs.index(root)}].default", default, allowed)


def _check_loops(tree: Tree) -> None:
    parents = {entry.handle: entry.parent for entry in tree.classes}
    for index, entry in enumerate(tree.classes):
        at, steps = entry.handle, 0
        while at in parents:
            at, steps = parents[at], steps + 1
            if steps > len(parents):
                raise InvalidInput(
                    f"classes[{index}].parent", handle_text(entry.parent), "a class cannot be its own ancestor"
                )


def _leads(entry: Filter, targets: set[int]) -> bool:
    """Whether the filter names a class that it can lead to, or none since its actions do the work."""
    acts = entry.options.actions or getattr(entry.options, "direct", False)
    return entry.options.target in targets or bool(not entry.options.target and acts)


def _check_filters(tree: Tree) -> None:
    bands = [qdisc for qdisc in tree.qdiscs if qdisc.kind == "prio" and qdisc.handle]
    targets = {entry.handle for entry in tree.classes}.union(*map(places_below, bands))
    places = {entry.parent for entry in tree.classes}  # the kernel looks at the filters of no other class
    places |= {qdisc.handle for qdisc in bands}
    if tree.ingress:
        places |= {INGRESS_FILTERS} if tree.ingress.kind == "ingress" else {INGRESS_FILTERS, EGRESS_FILTERS}
    kinds: dict[tuple[int, int], tuple[str, int]] = {}
    shapes: dict[tuple[int, int], object] = {}
    marks: set[tuple[int, int, int]] = set()
    for index, entry in enumerate(tree.filters):
        path = f"filters[{index}]"
        if entry.parent not in places:
            allowed = "write a qdisc with classes, a class with children, or ingress where the tree has such a qdisc"
            raise InvalidInput(f"{path}.parent", handle_text(entry.parent), allowed)
        if side(entry.parent) == ROOT and not _leads(entry, targets):  # at ingress there are no classes
            allowed = "write a class of this tree, or a band of its prio"
            raise InvalidInput(f"{path}.flowid", handle_text(entry.options.target), allowed)
        place = (entry.parent, entry.priority)
        if kinds.setdefault(place, (entry.kind, entry.protocol)) != (entry.kind, entry.protocol):
            raise InvalidInput(
                f"{path}.prio", entry.priority, "a priority of one parent holds one kind and one protocol"
            )
        if entry.kind == "flower" and shapes.setdefault(place, entry.options.shape) != entry.options.shape:
            allowed = "flower filters of one priority have the same keys and masks: which comes first is not said"
            raise InvalidInput(f"{path}.prio", entry.priority, allowed)
        if entry.handle and (*place, entry.handle) in marks:
            if entry.kind in ALONE:
                raise InvalidInput(f"{path}.prio", entry.priority, f"a priority holds one {entry.kind}")
            raise InvalidInput(f"{path}.handle", entry.handle, "two filters of one priority have the same mark")
        marks.add((*place, entry.handle))
    for priority in shared_tables(tree.filters):
        raise InvalidInput(
            "filters",
            priority,
            "u32 filters below different parents need different priorities: the kernel mixes them up",
        )
