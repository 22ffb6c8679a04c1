# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain sriov: how many VFs the named interfaces have, their settings, drivers, and where their interfaces are.

A setting that nobody asks for stays. The address of a VF is set before a driver takes it: a driver reads it once
(drivers/net/ethernet/intel/igbvf/netdev.c, igbvf_reset).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..converge import Step
from ..errors import StepFailed
from ..netlink import RTM_NEWLINK, Socket, link_message
from . import codec, model, places, sysfs
from .model import Function, Vf

GONE = (
    "disruptive: all VFs of {interface} go, and what uses them loses its network; their number changes only by way of 0"
)
REBOUND = "disruptive: the VF's interface goes and comes again, without addresses"


class SriovDomain:
    """Observe, plan and apply."""

    name = "sriov"

    def __init__(self, rtnetlink: Socket, interfaces: Sequence[str]) -> None:
        self._rtnetlink = rtnetlink
        self._interfaces = interfaces

    def observe(self) -> tuple[Function, ...]:
        known = {codec.name(link): link for _index, link in codec.links(self._rtnetlink)}
        found = []
        for interface in self._interfaces:
            settings = codec.settings(known.get(interface, {}))
            numbers = range(sysfs.count(interface) or 0)
            found.append(Function(interface, tuple(_held(interface, n, settings.get(n, Vf())) for n in numbers)))
        return tuple(found)

    def plan(self, current: Sequence[Function], desired: Sequence[Function]) -> list[Step]:
        standing = {one.interface: one.vfs for one in current}
        steps: list[Step] = []
        for interface, vfs in desired:
            now = standing.get(interface, ())
            if len(now) != len(vfs):
                steps += self._new(interface, len(now), vfs)
            else:
                for number, (have, want) in enumerate(zip(now, vfs)):
                    steps += self._changed(interface, number, have, want)
        return steps

    def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            try:
                step.payload()
            except OSError as error:
                raise StepFailed(step.command, _reason(error)) from error

    def describe(self, state: Sequence[Function]) -> list[str]:
        lines = []
        for interface, vfs in state:
            lines.append(f"{interface}: {len(vfs)} VFs")
            lines += [f"{interface} vf {number} {model.words(vf)}".rstrip() for number, vf in enumerate(vfs)]
        return lines

    def _new(self, interface: str, now: int, vfs: Sequence[Vf]) -> Iterator[Step]:
        """Other VFs than there were: none at first, then as many as wanted, then their settings, then their drivers."""
        path = sysfs.count_file(interface)
        if now:
            yield Step(f"echo 0 > {path}", partial(sysfs.write, path, "0"), caution=GONE.format(interface=interface))
        if not vfs:
            return
        yield Step(f"echo {len(vfs)} > {path}", partial(_create, interface, len(vfs)))
        for number, want in enumerate(vfs):
            asked = model.words(want._replace(driver=None, space=None, name=None))
            if asked:
                words = f"ip link set dev {interface} vf {number} {asked}"
                yield Step(words, partial(self._settle, interface, number, want))
        if sysfs.autoprobe_file(interface) is None:
            return
        yield from self._rise(interface)
        for number, want in enumerate(vfs):
            if want.driver or (want.driver is None and _probed(interface)):
                yield _driver_step(interface, number, want.driver)
            yield from _moves(interface, number, Vf(space=""), want)

    def _changed(self, interface: str, number: int, have: Vf, want: Vf) -> Iterator[Step]:
        """A driver that is bound is given up for another one, or for another address of the VF."""
        bound = have.driver or ""
        other = want.driver is not None and want.driver != bound
        readdressed = want.mac not in (None, have.mac) and bound not in ("", "vfio-pci")
        if bound and (other or readdressed):
            words = f"echo $VF > {sysfs.PCI}/drivers/{bound}/unbind  # VF={_shown(interface, number)}"
            yield Step(words, partial(_with_address, interface, number, sysfs.unbind), caution=REBOUND)
        yield from self._settings(interface, number, have, want)
        if want.driver if other else readdressed or (want.space is not None and not bound):
            yield from self._rise(interface)
            yield _driver_step(interface, number, want.driver)
            if want.space is None and have.space:  # where it was
                want = want._replace(space=have.space, name=have.name)
            have = Vf(space="")
        yield from _moves(interface, number, have, want)

    def _settings(self, interface: str, number: int, have: Vf, want: Vf) -> Iterator[Step]:
        """What the kernel sets by itself stays where nobody asks."""

        def differs(*names: str) -> bool:
            return any(getattr(want, one) not in (None, getattr(have, one)) for one in names)

        def step(words: str, part: bytes) -> Step:
            return Step(f"ip link set dev {interface} vf {number} {words}", partial(self._change, interface, part))

        if differs("mac"):
            yield step(f"mac {want.mac}", codec.mac(number, want.mac or ""))
        if differs("vlan", "qos"):
            tag, qos = want.vlan or 0, want.qos or 0
            yield step(f"vlan {tag} qos {qos}", codec.vlan(number, tag, qos))
        if differs("min_rate", "max_rate"):  # one message has both
            least = (have.min_rate if want.min_rate is None else want.min_rate) or 0
            most = (have.max_rate if want.max_rate is None else want.max_rate) or 0
            yield step(f"max_tx_rate {most} min_tx_rate {least}", codec.rate(number, least, most))
        if differs("spoofchk"):
            yield step(f"spoofchk {model.switch(bool(want.spoofchk))}", codec.spoofchk(number, bool(want.spoofchk)))
        if differs("trust"):
            yield step(f"trust {model.switch(bool(want.trust))}", codec.trust(number, bool(want.trust)))
        if differs("state"):
            yield step(f"state {want.state}", codec.state(number, want.state or ""))

    def _rise(self, interface: str) -> Iterator[Step]:
        """A driver that asks a function which is down for the VF's address takes one by chance (igbvf_probe)."""
        if sysfs.down(interface):
            yield Step(f"ip link set dev {interface} up", partial(self._up, interface))

    def _up(self, interface: str) -> None:
        self._rtnetlink.request(link_message(RTM_NEWLINK, 0, places.index(interface), up=True))

    def _settle(self, interface: str, number: int, want: Vf) -> None:
        """What a new VF has by itself depends on its driver; netdevsim's have what the last ones had."""
        link = next(link for _index, link in codec.links(self._rtnetlink) if codec.name(link) == interface)
        for step in self._settings(interface, number, codec.settings(link).get(number, Vf()), want):
            self.apply([step])

    def _change(self, interface: str, part: bytes) -> None:
        self._rtnetlink.request(codec.change(places.index(interface), part))


def _held(interface: str, number: int, vf: Vf) -> Vf:
    """With driver, place and name of the VF's own device, where it has one."""
    address = sysfs.address(interface, number)
    if address is None:
        return vf
    bound = sysfs.driver(address)
    place = places.find(address) if bound and bound != "vfio-pci" else None
    return vf._replace(driver=bound, space=place.space if place else None, name=place.name if place else None)


def _create(interface: str, count: int) -> None:
    """Make VFs that no driver takes yet; afterwards drivers may again, if they might before."""
    path, autoprobe = sysfs.count_file(interface), sysfs.autoprobe_file(interface)
    if autoprobe is None:
        sysfs.write(path, str(count))
        return
    before = autoprobe.read_text(encoding="ascii").strip()
    sysfs.write(autoprobe, "0")
    try:
        sysfs.write(path, str(count))
    finally:
        sysfs.write(autoprobe, before)


def _probed(interface: str) -> bool:
    path = sysfs.autoprobe_file(interface)
    return path is not None and path.read_text(encoding="ascii").strip() == "1"


def _driver_step(interface: str, number: int, driver: str | None) -> Step:
    override = f"echo {driver} > {sysfs.PCI}/devices/$VF/driver_override; " if driver else ""
    words = f"{override}echo $VF > {sysfs.PCI}/drivers_probe  # VF={_shown(interface, number)}"
    return Step(words, partial(_with_address, interface, number, partial(sysfs.bind, wanted=driver)))


def _moves(interface: str, number: int, have: Vf, want: Vf) -> Iterator[Step]:
    if want.space is None or (want.space, want.name or have.name) == (have.space, have.name):
        return
    words = f"ip link set dev $IF netns {want.space}" + (f" name {want.name}" if want.name else "")
    action = partial(places.move, space=want.space, name=want.name)
    yield Step(f"{words}  # IF of VF {_shown(interface, number)}", partial(_with_address, interface, number, action))


def _with_address(interface: str, number: int, action: Callable[[str], None]) -> None:
    address = sysfs.address(interface, number)
    if address is None:
        raise OSError(errno.ENODEV, f"{interface} has no VF {number}")
    action(address)


def _shown(interface: str, number: int) -> str:
    """A VF's address, or where it will stand."""
    return sysfs.address(interface, number) or f"$(basename $(readlink {sysfs.device(interface)}/virtfn{number}))"


def _reason(error: OSError) -> str:
    """The kernel's word, and what it means here."""
    hints = {
        errno.EOPNOTSUPP: "the driver of this device cannot set it",
        errno.EBUSY: "something uses it",
        errno.ERANGE: "the device has not so many",
    }
    said = error.strerror or os.strerror(error.errno or 0)
    return f"{said} ({hints[error.errno]})" if error.errno in hints else said
