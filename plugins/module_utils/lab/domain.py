# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual lab as something that converges: observe what runs, plan from there to the topology, apply."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import programs
from ..converge import Step
from ..errors import StepFailed
from . import access, bridged, control, image, links, model
from .kinds import netns
from .kinds.base import Place
from .kinds.table import DRIVERS, LIVE
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
        source = image.identity(Path(node.card)) if node.card else DRIVERS[node.kind].image_identity(self.cache)
        made_from = (node, plugged, source)
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
        spaces = {name: pid for name in tags if f"node {name}" in alive and (pid := self._space(name))}
        answering = self._answering([name for name in tags if {f"node {name}", f"ssh {name}"} <= alive])
        settled = {name for name in spaces if (self.directory / name / access.SETTLED).exists()}
        nodes = [NodeState(name, tag, name in answering or name in settled) for name, tag in tags.items()]
        inside = {name: access.interfaces(pid) for name, pid in spaces.items()}
        plugged = tuple(link for link in known if link.name in status["links"] and self._carried(link, alive, inside))
        return LabState(True, keyed, True, plugged, tuple(sorted(nodes)))

    def _answering(self, names: Sequence[str]) -> set[str]:
        # Whoever ends the lab does not wait for a node that hangs.
        return access.answering(self.directory, names, HANGS_AFTER) if self.topology else set(names)

    def _space(self, name: str) -> int | None:
        """Where a node that is namespaces lives: its first process, as the host sees it."""
        return control.living(self.directory / name / access.SPACE)

    def _carried(self, link: Link, alive: set[str], inside: Mapping[str, Collection[str]]) -> bool:
        if link.kind == "socket":
            return f"wire {link.name}" in alive
        # A node on the host's kernel takes its ends of links with it; one that died has no interfaces here.
        if not set(links.ports_of(link)) <= set(access.interfaces(control.recorded(self.directory) or 0)):
            return False
        live = [end for end in link.ends if end.node in inside or self._live(end.node)]
        if link.kind == bridged.KIND and not {links.attach(link, end).id for end in link.ends[1:]} <= set(
            inside.get(link.ends[0].node, ())
        ):
            return False
        return all(end.interface in inside.get(end.node, ()) for end in live)

    def _live(self, name: str) -> bool:
        return name in self.nodes and self.nodes[name].kind in LIVE

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
        stop: list[Step] = []
        for name, node in found.items():
            if name not in wanted:
                stop.append(Step(f"stop {name} and delete its disk", ("delete", name)))
            elif wanted[name].tag != node.tag:
                stop.append(
                    Step(f"stop {name} and delete its disk", ("delete", name), caution="its definition changed")
                )
            elif node.alive and not wanted[name].alive:
                stop.append(Step(f"stop {name}", ("stop", name)))
        return stop + unplug + (self._plan_start(current, desired) if desired.running else [])

    def _plan_start(self, current: LabState, desired: LabState) -> list[Step]:
        """Nodes on the host's kernel, links, nodes that have their links from the start, addresses."""
        found = {node.name: node for node in current.nodes if node in desired.nodes}
        rising = {node.name for node in desired.nodes if node.alive and node.name not in found}
        new = [
            link
            for link in desired.links
            if link not in current.links or any(end.node in rising and self._live(end.node) for end in link.ends)
        ]
        cut = {end.node for link in new for end in link.ends}
        known = {node.name: node.tag for node in current.nodes}
        first: list[Step] = []
        last: list[Step] = []
        for node in desired.nodes:
            start = first if self._live(node.name) else last
            if known.get(node.name) != node.tag:
                start.append(Step(f"make {node.name}: {self._made_of(node.name)}", ("create", node.name)))
            if node.name in rising:
                start.append(Step(f"start {node.name}", ("boot", node.name)))
            elif node.alive and node.name in cut and not self._live(node.name):
                start.append(Step(f"start {node.name} again", ("boot", node.name), caution="its link had died"))
        plug = [Step(f"plug {_text(link)}", ("link", link)) for link in new]
        changed = [name for name in self.nodes if self._live(name) and name in rising | cut]
        return (
            first
            + plug
            + last
            + [Step(f"give {name} its addresses and routes", ("configure", name)) for name in changed]
        )

    def _made_of(self, name: str) -> str:
        return "namespaces" if self._live(name) else "keys, names, addresses, an empty disk over the shared image"

    # apply -----------------------------------------------------------------------------------------------------------
    def apply(self, steps: Sequence[Step]) -> None:
        booted = []
        for verb, group in itertools.groupby(steps, key=lambda step: step.payload[0]):
            payloads = [step.payload[1:] for step in group]
            if verb == "link":  # all that stand together at once
                self._link([link for (link,) in payloads])
                continue
            action: Callable[..., None] = getattr(self, f"_do_{verb}")
            for values in payloads:
                action(*values)
            if verb == "boot":
                booted += [name for (name,) in payloads if not self._live(name)]
        if self.topology is not None and self.directory.is_dir():
            access.write_config(self.directory, self.topology)
        if booted:
            access.wait_for_ssh(self.directory, booted, self.ready_within, self._dead)

    def _do_make(self) -> None:
        access.make_directory(self.directory)
        access.make_key(self.directory)

    def _take(self, port: str) -> None:
        """Move one of this machine's interfaces into the lab's namespace."""
        keeper = control.recorded(self.directory) or 0
        if port not in access.interfaces(keeper):
            _must(["ip", "link", "set", "dev", port, "netns", str(keeper)])

    def _give_back(self, *wanted: Link) -> None:
        """Ports to where they came from: where we are. The kernel itself would only save hardware, to its first one."""
        keeper = control.recorded(self.directory) or 0
        held = access.interfaces(keeper)
        for port in [port for link in wanted for port in links.ports_of(link) if port in held]:
            ip = ["nsenter", f"--net=/proc/{keeper}/ns/net", "ip", "link", "set", "dev", port]
            _must([*ip, "nomaster", "down"])
            _must([*ip, "netns", str(os.getpid())])

    def _do_start(self) -> None:
        self._do_end()  # one whose program is not this version's
        control.start(self.directory)

    def _do_end(self) -> None:
        self._give_back(*access.read_links(self.directory))
        control.end(self.directory)

    def _do_remove(self) -> None:
        self._do_end()
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

    def _link(self, wanted: Sequence[Link]) -> None:
        for port in [port for link in wanted for port in links.ports_of(link)]:
            self._take(port)
        requests = [links.link_request(link, self._inside(link, wait=True)) for link in wanted]
        with control.session(self.directory) as ask:
            ask("link", links=requests)
        access.write_links(self.directory, [*access.read_links(self.directory), *wanted])

    def _do_unlink(self, link: Link) -> None:
        with control.session(self.directory) as ask:
            ask("unlink", **links.link_request(link, self._inside(link, wait=False)))
        self._give_back(link)
        access.write_links(self.directory, [other for other in access.read_links(self.directory) if other != link])

    def _inside(self, link: Link, wait: bool) -> list[links.Inside]:
        """The link's ends in nodes on the host's kernel; those that run, or all where somebody waits for them."""
        found = []
        for end in link.ends:
            pid = self._wait_for_space(end.node) if wait and self._live(end.node) else self._space(end.node)
            if pid:
                (self.directory / end.node / access.SETTLED).unlink(missing_ok=True)
                mac = model.mac_of(self.nodes[end.node], end.interface) if wait else ""
                found.append(links.Inside(links.attach(link, end, live=True).id, pid, end.interface, mac))
        return found

    def _wait_for_space(self, name: str) -> int:
        """Its pid. Raises StepFailed with what it said where it does not come up in time."""
        deadline = time.monotonic() + self.ready_within
        while (pid := self._space(name)) is None:
            if self._dead(name) or time.monotonic() > deadline:
                raise StepFailed(f"start {name}", f"it did not come up: {access.console(self.directory, name)}")
            time.sleep(0.01)
        return pid

    def _do_configure(self, name: str) -> None:
        pid = self._wait_for_space(name)
        with control.session(self.directory) as ask:
            batch = netns.network_batch(self.nodes[name]) + bridged.batch(self._links(), self.nodes, name)
            ask("configure", pid=pid, batch=batch)
        (self.directory / name / access.SETTLED).touch()

    def _do_create(self, name: str) -> None:
        node, place = self.nodes[name], self._place(name)
        shutil.rmtree(place.directory, ignore_errors=True)
        place.directory.mkdir(mode=0o700)
        DRIVERS[node.kind].prepare(node, place)
        (place.directory / TAG).write_text(self.tag(node), encoding="ascii")
        if not self._live(name):
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
                ask("link", links=[request])
            ask(
                "spawn",
                name=f"node {name}",
                argv=self._beside(name) + list(process.argv),
                env=dict(process.env),
                ends=process.ends,
                log=str(place.directory / "console.log"),
            )
            if process.sshd:
                ask("spawn", **access.relay_request(name, place.directory, process.sshd))

    def _beside(self, name: str) -> list[str]:
        """What stands before the program of a node whose TAPs are in another node's network namespace."""
        host = bridged.host_of(self._links(), name)
        return ["nsenter", f"--net=/proc/{self._wait_for_space(host)}/ns/net"] if host else []

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
        nodes = {name.removeprefix("node "): p["pid"] for name, p in processes.items() if name.startswith("node ")}
        return {name: self._space(name) or pid for name, pid in nodes.items()}


def _must(argv: list[str]) -> None:
    done = programs.run(argv)
    if done.returncode != 0:
        raise StepFailed(" ".join(argv), done.stderr.strip())


def _text(link: Link) -> str:
    return f"{link.name} ({link.kind}): " + " — ".join(f"{end.node} {end.interface}" for end in link.ends)
