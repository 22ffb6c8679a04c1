# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bridge means on this node: the states of links and files that present and absent lead to."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InvalidInput, MissingCapability, TestbedError
from ..programs import find
from . import files, interfaces_file, links, managers, memory, trial
from .files import File
from .interfaces_file import MAIN, Document
from .links import Address, Link, Links
from .memory import Memory
from .model import Bridge
from .plan import LinksDomain, route_key
from .trial import Job


class Change(NamedTuple):
    """Everything between what stands and what is asked."""

    job: Job
    current: Links
    steps: list[str]  # for the live interfaces
    current_files: tuple[File, ...]
    desired_files: tuple[File, ...]
    warnings: list[str]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.steps or self.job.late or self.job.memory_before != self.job.memory_after)


class _Asked(NamedTuple):
    """What is to stand. The stanzas of `trial` interfaces are in trial_text, as /etc still holds those before."""

    desired: Links
    documents: list[Document]
    drop_ins: list[File]
    trial: tuple[str, ...] = ()
    trial_text: str = ""
    memory: Memory | None = None


class _Node(NamedTuple):
    """What was read of the node."""

    documents: list[Document]
    memory: Memory | None
    current: Links
    others: Links


def present(bridge: Bridge, controller: str) -> Change:
    """The change that makes the bridge stand; `controller` is the node's address that the controller talks to."""
    _require_programs()
    node = _read([bridge.name, *bridge.ports])
    _check(bridge, node)
    port = _management_port(bridge, node, controller)
    mac = bridge.hw if ":" in bridge.hw else node.current.get(port).mac
    desired = _desired_links(bridge, mac, node)
    names = [bridge.name, *bridge.ports]
    stanzas = interfaces_file.block(bridge, mac)
    documents = [_with_us(document, names, stanzas) for document in node.documents]
    former = [link.name for link in desired.links if link.name not in names]
    trial_text = stanzas + interfaces_file.stanzas_of(documents, former)
    return _change(
        node,
        _Asked(
            desired=desired,
            documents=documents,
            drop_ins=managers.desired(names),
            trial=(bridge.name, *former),
            trial_text=trial_text,
            memory=_remember(bridge, port, node),
        ),
    )


def absent(name: str) -> Change:
    """The change that gives back what stood before; nothing where nothing of ours stands."""
    node = _read([])
    if node.memory is None:
        return _change(node, _Asked(node.current, node.documents, managers.desired([])))
    if name not in ("", node.memory.name):
        raise InvalidInput("bridge_name", name, f"the bridge of ours on this node is {node.memory.name}")
    documents = [document._replace(text=interfaces_file.original(document.text)) for document in node.documents]
    desired = Links(tuple(_given_back(link, node.current) for link in node.memory.links.links))
    back = tuple(link.name for link in desired.links if link.name != node.memory.name)
    text = interfaces_file.stanzas_of(documents, back)
    return _change(node, _Asked(desired, documents, managers.desired([]), back, text))


def _require_programs() -> None:
    for program, package in (("ifup", "ifupdown"), ("brctl", "bridge-utils"), ("ip", "iproute2")):
        if find(program) is None:
            raise MissingCapability("the bridge", f"the program {program}", f"install {package} on the node")


def _read(names: Sequence[str]) -> _Node:
    documents = interfaces_file.load()
    held = [document.path for document in documents if interfaces_file.managed(document.text)]
    known = memory.load()
    if known and not (held or known.committed or known.boot == memory.boot_id()):
        known = None  # that change was cut off, and the boot since then took it back
    if held and known is None:
        raise TestbedError(
            f"{', '.join(held)} holds a bridge of ours, but {memory.PATH}, which says what stood before, is gone; "
            "remove the marked block and the prefix of the marked lines by hand"
        )
    remembered = [link.name for link in known.links.links] if known else []
    current, others = links.observe(sorted({*names, *remembered}))
    return _Node(documents, known, current, others)


def _check(bridge: Bridge, node: _Node) -> None:
    """What can be told only on the node."""
    if node.memory and node.memory.name != bridge.name:
        allowed = f"this node's bridge is {node.memory.name}; clear it first (playbooks/clear.yml)"
        raise InvalidInput("bridge_name", bridge.name, allowed)
    now = node.current.get(bridge.name)
    if now.exists and not now.bridge:
        raise InvalidInput("bridge_name", bridge.name, "the node has an interface of this name that is no bridge")
    known = [*node.current.links, *node.others.links]
    usable = [link.name for link in known if link.exists and not link.bridge and link.name != "lo"]
    for index, port in enumerate(bridge.ports):
        _check_port(f"bridge_ports[{index}]", node.current.get(port), bridge.name, usable)
    address = bridge.address.partition("/")[0]
    for link in node.others.links:
        if address and links.inside(address, link):
            raise InvalidInput("bridge_address", bridge.address, f"the node has this address on {link.name} already")


def _check_port(path: str, link: Link, bridge: str, usable: Sequence[str]) -> None:
    if not link.exists:
        raise InvalidInput(path, link.name, f"the node has no such interface; it has {', '.join(sorted(usable))}")
    if link.bridge:
        raise InvalidInput(path, link.name, "it is a bridge itself, and bridges do not nest")
    if link.master not in ("", bridge):
        raise InvalidInput(path, link.name, f"it belongs to {link.master} already; take it out of there first")
    if os.path.exists(f"/sys/class/net/{link.name}/phy80211"):
        raise InvalidInput(path, link.name, "it is a wireless interface, which cannot carry other stations' frames")


def _management_port(bridge: Bridge, node: _Node, controller: str) -> str:
    """The port whose MAC the bridge takes, and keeps taking: other hosts know the node's address by it."""
    if bridge.hw in bridge.ports:
        return bridge.hw
    if node.memory and node.memory.hw_port in bridge.ports:
        return node.memory.hw_port
    for port in bridge.ports:
        if links.inside(controller, node.current.get(port)):
            return port
    mac = node.current.get(bridge.name).mac
    return next((port for port in bridge.ports if node.current.get(port).mac == mac), bridge.ports[0])


def _desired_links(bridge: Bridge, mac: str, node: _Node) -> Links:
    desired = node.current.put(_desired_bridge(bridge, mac, node))
    for name in bridge.ports:
        now = node.current.get(name)
        desired = desired.put(
            now._replace(
                up=True,
                master=bridge.name,
                addresses=(),
                routes=(),
                addrgenmode="none" if now.addrgenmode else "",
                # what brought it up before has to end once, when it becomes a port; at boot our own stanza does it
                configured=now.configured and now.master == bridge.name,
            )
        )
    former = node.memory.ports if node.memory else ()
    for name in former:
        if name not in bridge.ports and node.memory:
            desired = desired.put(_given_back(node.memory.links.get(name), node.current))
    return desired


def _desired_bridge(bridge: Bridge, mac: str, node: _Node) -> Link:
    now = node.current.get(bridge.name)
    ours = {node.memory.address} if node.memory else set()
    addresses = tuple(one for one in now.addresses if one.cidr == bridge.address or one.cidr not in ours)
    if bridge.address and bridge.address not in {one.cidr for one in addresses}:
        addresses = (*addresses, _with_broadcast(bridge.address))
    return Link(
        name=bridge.name,
        bridge=True,
        mac=mac,
        master=now.master,
        stp=bridge.stp,
        forward_delay=bridge.forward_delay * 100,
        addrgenmode=now.addrgenmode,
        configured=now.configured if now.exists else True,
        addresses=addresses,
        routes=_desired_routes(bridge, now, node.memory.gateway if node.memory else ""),
    )


def _with_broadcast(cidr: str) -> Address:
    """The address as ifupdown adds it."""
    interface = ipaddress.ip_interface(cidr)
    broad = interface.version == 4 and interface.network.prefixlen < 31
    return Address(cidr, broadcast=str(interface.network.broadcast_address) if broad else "")


def _desired_routes(bridge: Bridge, now: Link, gateway_before: str) -> tuple[tuple[str, ...], ...]:
    def default(gateway: str) -> tuple[str, ...]:
        family = "-6" if ":" in gateway else "-4"
        return (family, "default", "via", gateway, "dev", bridge.name, "onlink")

    away = {route_key(default(gateway_before))} if gateway_before not in ("", bridge.gateway) else set()
    routes = tuple(route for route in now.routes if route_key(route) not in away)
    if bridge.gateway and route_key(default(bridge.gateway)) not in {route_key(route) for route in routes}:
        routes = (*routes, default(bridge.gateway))
    return routes


def _given_back(before: Link, current: Links) -> Link:
    """The link as it was; without an interface to give it back to (unplugged), nothing."""
    if before.exists and not before.bridge and not current.get(before.name).exists:
        return links.absent(before.name)
    return before


def _with_us(document: Document, names: Sequence[str], stanzas: str) -> Document:
    text = interfaces_file.retire(interfaces_file.original(document.text), names)
    return document._replace(text=interfaces_file.with_block(text, stanzas) if document.path == MAIN else text)


def _remember(bridge: Bridge, port: str, node: _Node) -> Memory:
    """The memory after this change: what stood before the first one, and for new ports before this one."""
    before = node.memory.links if node.memory else Links(())
    known = {link.name for link in before.links}
    kept = before.put(*(node.current.get(name) for name in (bridge.name, *bridge.ports) if name not in known))
    absent_files = tuple(document.path for document in node.documents if not os.path.lexists(document.path))
    return Memory(
        name=bridge.name,
        ports=bridge.ports,
        address=bridge.address,
        gateway=bridge.gateway,
        hw_port=port,
        links=kept,
        missing=node.memory.missing if node.memory else absent_files,
        boot=node.memory.boot if node.memory else memory.boot_id(),
        committed=True,
    )


def _change(node: _Node, asked: _Asked) -> Change:
    paths = [document.path for document in asked.documents] + [one.path for one in asked.drop_ins]
    current_files = tuple(files.read(path) for path in paths)
    desired_files = tuple(
        _desired_file(now, document, node.memory, asked.memory) for now, document in zip(current_files, asked.documents)
    ) + tuple(_rights(one, files.read(one.path)) for one in asked.drop_ins)
    late = files.differing(current_files, desired_files)
    drop_ins = [one for one in late if one.path in managers.PATHS]
    early, undo = _early(drop_ins, clearing=asked.memory is None)
    domain = LinksDomain([link.name for link in asked.desired.links], trial.TRIAL_FILE, asked.trial)
    job = Job(
        domain=domain,
        desired=asked.desired,
        trial_text=asked.trial_text,
        early=tuple(early),
        undo_early=tuple(undo),
        late=tuple(late),
        originals=current_files,
        memory_before=node.memory,
        memory_during=_during(node.memory, asked.memory),
        memory_after=asked.memory,
    )
    steps = [step.command for step in domain.plan(node.current, asked.desired)]
    return Change(job, node.current, steps, current_files, desired_files, _warnings(node, asked.desired))


def _during(before: Memory | None, after: Memory | None) -> Memory | None:
    """What is remembered while the change is on trial: new ports are known, nothing that was known is lost."""
    if after is None or before == after:
        return before
    return after._replace(committed=before is not None and before.committed)


def _desired_file(now: File, document: Document, known: Memory | None, after: Memory | None) -> File:
    created = known is not None and document.path in known.missing
    if after is None and created and not document.text:
        return File(now.path, None)
    if now.text is None and not document.text:
        return now
    return now._replace(text=document.text)


def _rights(file: File, now: File) -> File:
    """Drop-ins are root's and readable; one that is not there has no rights."""
    return now if file.text is None and now.text is None else file


def _early(changed: Sequence[File], clearing: bool) -> tuple[list[File], list[File]]:
    """What the managers are told on trial, and what takes it back."""
    if clearing:
        return list(changed), [files.read(one.path) for one in changed]
    early = managers.runtime([one for one in changed if one.text is not None])
    return early, [one._replace(text=None) for one in early]


def _warnings(node: _Node, desired: Links) -> list[str]:
    """Routes of the ports that nobody takes over."""
    found = []
    taken = {route[:2] for link in desired.links if link.bridge for route in link.routes}
    for link in desired.links:
        for route in node.current.get(link.name).routes if link.master else ():
            if route[:2] not in taken:
                found.append(f"the route `{' '.join(route)}` ends, as {link.name} becomes a port; see bridge_gateway")
    return found
