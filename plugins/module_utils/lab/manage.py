# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module `lab` calls: from raw values to a report."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..converge import Target, converge
from . import access, control, host, image, links, model
from .domain import LabDomain
from .kinds import board
from .kinds.table import DRIVERS, LIVE

STATES = ("checked", "image", "present", "absent")


class Request(NamedTuple):
    """The module's options. `ready_within` in seconds; `cache_dir` None for the default."""

    state: str
    name: str
    run_dir: Path
    cache_dir: Path | None
    nodes: Sequence[Any]
    links: Sequence[Any]
    ready_within: int


def parse(lab: str, nodes: Sequence[Any], wired: Sequence[Any]) -> model.Topology:
    """The topology, checked against the kinds of nodes and links that there are. Raises InvalidInput."""
    kinds = (*DRIVERS, model.REAL)
    topology = model.parse(lab, nodes, wired, kinds, functools.partial(links.choose, live=LIVE))
    for node in topology.nodes:
        if node.kind == "board":
            board.check(node)
    return topology


def manage(request: Request, check: bool) -> dict[str, Any]:
    """Do what is asked; everything is checked before anything is touched. Raises TestbedError."""
    cache = request.cache_dir or image.cache_directory()
    if request.state == "absent":  # a lab can be ended whatever the inventory says by now
        access.check_directory(request.run_dir, [])
        return _converge(LabDomain(request.run_dir, cache, None), check)
    topology = model.virtual(parse(request.name, request.nodes, request.links))
    access.check_directory(request.run_dir, [node.name for node in topology.nodes])
    if request.state == "checked":
        return _checked(topology, cache)
    host.check(topology, cache)
    host.check_ports(topology, access.interfaces(control.recorded(request.run_dir) or 0))
    built = _images(topology, cache, check)
    if request.state == "image":
        return {"changed": bool(built), "before": [], "after": [], "steps": built}
    result = _converge(LabDomain(request.run_dir, cache, topology, request.ready_within), check)
    return {**result, "steps": built + result["steps"], "changed": bool(built) or result["changed"]}


def _drivers(topology: model.Topology) -> list[str]:
    """Kinds whose image is needed: a node with a card of its own starts from that."""
    return sorted({node.kind for node in topology.nodes if not node.card})


def _checked(topology: model.Topology, cache: Path) -> dict[str, Any]:
    missing = host.missing_packages(topology, cache)
    # Without its kernel an image has no identity yet; it is then missing for sure.
    unbuilt = bool(missing) or any(DRIVERS[kind].image_missing(cache) for kind in _drivers(topology))
    empty: dict[str, Any] = {"changed": False, "before": [], "after": [], "steps": []}
    return {**empty, "missing_packages": missing, "image_missing": unbuilt}


def _images(topology: model.Topology, cache: Path, check: bool) -> list[str]:
    """Steps that were needed so that every kind of node has something to start from."""
    steps = []
    for kind in _drivers(topology):
        if DRIVERS[kind].image_missing(cache):
            steps.append(f"build the root file system for nodes of kind {kind} in {cache}")
            if not check:
                DRIVERS[kind].image(cache)
    return steps


def _converge(domain: LabDomain, check: bool) -> dict[str, Any]:
    if check:  # reads only, so that not even the lock's folder is made
        report = converge([Target(domain, domain.desired())], check=True)
        return {**_result(report), "pids": domain.pids()}
    with access.locked(domain.directory):
        report = converge([Target(domain, domain.desired())])
        return {**_result(report), "pids": domain.pids()}


def _result(report: Any) -> dict[str, Any]:
    return {"changed": report.changed, "before": report.before, "after": report.after, "steps": report.steps}
