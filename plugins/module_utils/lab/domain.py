# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual lab as something that converges: observe what runs, plan from there to the topology, apply."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..converge import Step
from . import access, control, links
from .kinds.base import Place
from .kinds.table import DRIVERS
from .model import Link, Node, Topology

TAG = "tag"
HANGS_AFTER = 10.0  # seconds without a greeting from sshd, after which a node counts as dead


class NodeState(NamedTuple):
    """`tag` hashes everything the node was made from; `alive`: its ssh answers."""

    name: str
    tag: str
    alive: bool


class LabState(NamedTuple):
    """`present`: there is a run directory; `keyed`: with the key that logs in; `running`: with a living keeper."""

    present: bool
    keyed: bool
    running: bool
    links: tuple[Link, ...]
    nodes: tuple[NodeState, ...]


ABSENT = LabState(False, False, False, (), ())


class LabDomain:
    """The lab in one run directory. The caller holds the directory's lock (access.locked)."""

    name = "lab"

    def __init__(self, directory: Path, cache: Path, topology: Topology | None, ready_within: float = 60) -> None:
        self.directory = directory
        self.cache = cache
        self.topology = topology
        self.ready_within = ready_within
        self.nodes: Mapping[str, Node] = {node.name: node for node in topology.nodes} if topology else {}

    # desired and observed --------------------------------------------------------------------------------------------
    def desired(self) -> LabState:
        """Every node of the topology alive, every link in place."""
        if self.topology is None:
            return ABSENT
        nodes = tuple(NodeState(node.name, self.tag(node), True) for node in self.topology.nodes)
        return LabState(True, True, True, self.topology.links, nodes)

    def tag(self, node: Node) -> str:
        """What the node is made from, hashed: where it differs, the node is made anew."""
        plugged = [link for link in self._links() if node.name in (end.node for end in link.ends)]
        made_from = (node, plugged, DRIVERS[node.kind].image_identity(self.cache))
        return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]

    def _links(self) -> tuple[Link, ...]:
        return self.topology.links if self.topology else ()

    def observe(self) -> LabState:
        if not self.directory.is_dir():
            return ABSENT
        tags = {path.parent.name: path.read_text(encoding="ascii") for path in self.directory.glob(f"*/{TAG}")}
        keyed = access.has_key(self.directory)
        if control.recorded(self.directory) is None or not control.current(self.directory):
            dead = tuple(NodeState(name, tag, False) for name, tag in sorted(tags.items()))
            return LabState(True, keyed, False, (), dead)
        with control.session(self.directory) as ask:
            status = ask("status")
        known = access.read_links(self.directory)
        alive = {name for name, process in status["processes"].items() if process["exit"] is None}
        answering = self._answering([name for name in tags if {f"node {name}", f"ssh {name}"} <= alive])
        nodes = [NodeState(name, tag, name in answering) for name, tag in tags.items()]
        plugged = tuple(link for link in known if link.name in status["links"] and self._carried(link, alive))
        return LabState(True, keyed, True, plugged, tuple(sorted(nodes)))

    def _answering(self, names: Sequence[str]) -> set[str]:
        # Whoever ends the lab does not wait for a node that hangs.
        return access.answering(self.directory, names, HANGS_AFTER) if self.topology else set(names)

    @staticmethod
    def _carried(link: Link, alive: set[str]) -> bool:
        return link.kind != "socket" or f"wire {link.name}" in alive

    # plan ------------------------------------------------------------------------------------------------------------
    def plan(self, current: LabState, desired: LabState) -> list[Step]:
        if not desired.present:
            return [Step(f"end the lab and remove {self.directory}", ("remove",))] if current.present else []
        steps: list[Step] = []
        if desired.keyed and not current.keyed:
            steps.append(Step(f"make {self.directory} and the key that logs in", ("make",)))
        if current.running and not desired.running:
            steps.append(Step("end the keeper", ("end",)))
        if desired.running and not current.running:
            steps.append(Step("start the keeper: own network and process namespace", ("start",)))
            current = current._replace(links=(), nodes=tuple(node._replace(alive=False) for node in current.nodes))
        return steps + self._plan_nodes(current, desired)

    def _plan_nodes(self, current: LabState, desired: LabState) -> list[Step]:
        wanted = {node.name: node for node in desired.nodes}
        found = {node.name: node for node in current.nodes}
        unplug = [
            Step(f"unplug {_text(link)}", ("unlink", link)) for link in current.links if link not in desired.links
        ]
        new = [link for link in desired.links if link not in current.links]
        plug = [Step(f"plug {_text(link)}", ("link", link)) for link in new] if desired.running else []
        cut = {end.node for link in new for end in link.ends}
        stop, start = [], []
        for name, node in found.items():
            if name not in wanted:
                stop.append(Step(f"stop {name} and delete its disk", ("delete", name)))
            elif wanted[name].tag != node.tag:
                stop.append(
                    Step(f"stop {name} and delete its disk", ("delete", name), caution="its definition changed")
                )
            elif node.alive and not wanted[name].alive:
                stop.append(Step(f"stop {name}", ("stop", name)))
        for name, node in wanted.items():
            old = found.get(name)
            if old is None or old.tag != node.tag:
                start.append(
                    Step(f"make {name}: keys, names, addresses, an empty disk over the shared image", ("create", name))
                )
                old = None
            if node.alive and (old is None or not old.alive):
                start.append(Step(f"start {name}", ("boot", name)))
            elif node.alive and name in cut:
                start.append(Step(f"start {name} again", ("boot", name), caution="its link had died"))
        return stop + unplug + plug + start

    # apply -----------------------------------------------------------------------------------------------------------
    def apply(self, steps: Sequence[Step]) -> None:
        booted = []
        for step in steps:
            verb, *values = step.payload
            action: Callable[..., None] = getattr(self, f"_do_{verb}")
            action(*values)
            if verb == "boot":
                booted.append(values[0])
        if booted:
            access.wait_for_ssh(self.directory, booted, self.ready_within, self._dead)

    def _do_make(self) -> None:
        access.make_directory(self.directory)
        access.make_key(self.directory)

    def _do_start(self) -> None:
        control.end(self.directory)  # one whose program is not this version's
        control.start(self.directory)

    def _do_end(self) -> None:
        control.end(self.directory)

    def _do_remove(self) -> None:
        control.end(self.directory)
        access.remove_directory(self.directory)

    def _do_delete(self, name: str) -> None:
        self._do_stop(name)
        shutil.rmtree(self.directory / name)
        access.write_known_hosts(self.directory)

    def _do_stop(self, name: str) -> None:
        if control.recorded(self.directory) is None:
            return
        with control.session(self.directory) as ask:
            ask("stop", name=f"ssh {name}")
            ask("stop", name=f"node {name}")

    def _do_link(self, link: Link) -> None:
        with control.session(self.directory) as ask:
            ask("link", **links.link_request(link))
        access.write_links(self.directory, [*access.read_links(self.directory), link])

    def _do_unlink(self, link: Link) -> None:
        with control.session(self.directory) as ask:
            ask("unlink", **links.link_request(link))
        access.write_links(self.directory, [other for other in access.read_links(self.directory) if other != link])

    def _do_create(self, name: str) -> None:
        node, place = self.nodes[name], self._place(name)
        shutil.rmtree(place.directory, ignore_errors=True)
        place.directory.mkdir(mode=0o700)
        DRIVERS[node.kind].prepare(node, place)
        (place.directory / TAG).write_text(self.tag(node), encoding="ascii")
        access.write_known_hosts(self.directory)

    def _do_boot(self, name: str) -> None:
        node, place = self.nodes[name], self._place(name)
        data = {
            end.interface: links.attach(link, end) for link in self._links() for end in link.ends if end.node == name
        }
        process = DRIVERS[node.kind].process(node, place, links.management(node), data)
        request = links.management_request(node)
        with control.session(self.directory) as ask:
            if links.management(node).id in process.ends and request["name"] not in ask("status")["links"]:
                ask("link", **request)
            ask(
                "spawn",
                name=f"node {name}",
                argv=process.argv,
                env=dict(process.env),
                ends=process.ends,
                log=str(place.directory / "console.log"),
            )
            ask("spawn", **access.relay_request(name, place.directory, process.sshd))

    def _place(self, name: str) -> Place:
        return Place(self.directory / name, self.cache, access.public_key(self.directory))

    def _dead(self, name: str) -> bool:
        with control.session(self.directory) as ask:
            return bool(ask("status")["processes"][f"node {name}"]["exit"] is not None)

    # words -----------------------------------------------------------------------------------------------------------
    def describe(self, state: LabState) -> list[str]:
        if not state.present:
            return []
        lines = [f"lab in {self.directory}: {'running' if state.running else 'not running'}"]
        lines += [f"link {_text(link)}" for link in state.links]
        return lines + [f"node {node.name} ({node.tag}): {'up' if node.alive else 'down'}" for node in state.nodes]

    def pids(self) -> dict[str, Any]:
        """The process of each node, for whoever wants to look at it or to kill it."""
        if control.recorded(self.directory) is None:
            return {}
        with control.session(self.directory) as ask:
            processes = ask("status")["processes"]
        return {name.removeprefix("node "): p["pid"] for name, p in processes.items() if name.startswith("node ")}


def _text(link: Link) -> str:
    here, there = link.ends
    return f"{link.name} ({link.kind}): {here.node} {here.interface} — {there.node} {there.interface}"
