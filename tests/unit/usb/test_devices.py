# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices, what is asked of them, and the chain: on a made-up /sys. Real kernels are in the integration tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput, MissingCapability
from plugins.module_utils.usb import access, agent, client, drivers, exports, host, service, sysfs
from plugins.module_utils.usb.client import Wanted
from plugins.module_utils.usb.sysfs import Device, Selector
from plugins.module_utils.usb.vhci import Port


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(sysfs, "BUS", tmp_path / "bus")
    monkeypatch.setattr(sysfs, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(host, "OURS", tmp_path / "ours")
    (tmp_path / "mounts").write_text("")
    (tmp_path / "bus/devices").mkdir(parents=True)
    for name in ("usb", "usbip-host"):
        (tmp_path / "bus/drivers" / name).mkdir(parents=True)
    return tmp_path / "bus"


def plug(bus: Path, busid: str, product: str = "0d28:0204", place: str = "pci", **more: str) -> Path:
    folder = bus.parent / place / busid
    folder.mkdir(parents=True)
    vendor, _colon, number = product.partition(":")
    values = {"bDeviceClass": "00", "idVendor": vendor, "idProduct": number, **more}
    for name, text in values.items():
        (folder / name).write_text(f"{text}\n")
    (folder / "driver").symlink_to(bus / "drivers/usb")
    (bus / "devices" / busid).symlink_to(folder)
    return folder


def test_hubs_interfaces_and_attached_devices_are_not_exported(bus: Path) -> None:
    plug(bus, "1-1", serial="A1", product="0d28:0204")
    plug(bus, "1-2", bDeviceClass="09")
    plug(bus, "1-1:1.0")
    plug(bus, "3-1.4", place="platform/vhci_hcd.0/usb3")
    assert [(one.busid, one.remote) for one in sysfs.devices()] == [("1-1", False), ("3-1.4", True)]
    assert sysfs.devices()[0] == Device("1-1", "0d28:0204", "A1", "", "usb")
    assert [one.busid for one in host.wanted([Selector(product="0d28:0204")])] == ["1-1"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        (Selector(busid="1-1"), True),
        (Selector(product="0d28:0204", serial="A1"), True),
        (Selector(product="0d28:0204", serial="B2"), False),
        (Selector(busid="1-1.1"), False),
    ],
)
def test_all_keys_have_to_fit(selector: Selector, found: bool) -> None:
    assert selector.matches(Device("1-1", "0d28:0204", "A1")) == found


def test_a_mounted_disk_is_not_taken_away(bus: Path) -> None:
    folder = plug(bus, "1-1")
    (folder / "1-1:1.0/block/sda/sda1").mkdir(parents=True)
    (bus.parent / "class/block").mkdir(parents=True)
    for place in ("1-1:1.0/block/sda", "1-1:1.0/block/sda/sda1"):
        (folder / place / "subsystem").symlink_to(bus.parent / "class/block")
    assert sysfs.offers("1-1") == {"block": ["sda", "sda1"]}
    assert sysfs.in_use("1-1") == ""
    sysfs.MOUNTS.write_text("/dev/sda1 /mnt ext4 rw 0 0\n")
    assert sysfs.in_use("1-1") == "its disk /dev/sda1 is mounted"
    assert host.settle([Selector(busid="1-1")]) == ["1-1 0d28:0204 is not exported, as its disk /dev/sda1 is mounted"]


def test_binding_writes_what_usbip_writes(bus: Path) -> None:
    plug(bus, "1-1")
    assert host.settle([Selector(busid="1-1")]) == []
    assert (bus / "drivers/usb/unbind").read_text() == "1-1"
    assert (bus / "drivers/usbip-host/match_busid").read_text() == "add 1-1"
    assert (bus / "drivers/usbip-host/bind").read_text() == "1-1"
    assert host.ours() == {"1-1"}


def test_what_else_is_plugged_into_our_socket_is_given_back(bus: Path) -> None:
    """The kernel binds whatever appears at a bus id that it was told."""
    folder = plug(bus, "1-1", "dead:beef")
    (folder / "driver").unlink()
    (folder / "driver").symlink_to(bus / "drivers/usbip-host")
    (bus / "drivers/usbip-host/1-1").symlink_to(folder)
    host.OURS.write_text('["1-1"]')
    assert host.settle([Selector(product="0d28:0204")]) == []
    assert (bus / "drivers/usbip-host/match_busid").read_text() == "del 1-1"
    assert (bus / "drivers/usbip-host/rebind").read_text() == "1-1"
    assert not host.OURS.exists()


def test_an_empty_socket_stays_ours(bus: Path) -> None:
    host.OURS.write_text('["1-1"]')
    assert host.settle([]) == []
    assert host.ours() == {"1-1"}
    assert not (bus / "drivers/usbip-host/rebind").exists(), "the kernel would use the device that has gone"


def test_a_device_that_goes_while_it_is_looked_at_ends_nothing(bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """posixpath.realpath() finds the link by lstat, and readlink does not any more."""
    plug(bus, "1-1")
    monkeypatch.setattr(Path, "resolve", gone)
    assert sysfs.devices() == []
    assert sysfs.without_driver("1-1") == []
    assert sysfs.offers("1-1") == {}
    monkeypatch.setattr(client, "settle", gone)
    (said,) = agent._settle("client", {"devices": [], "timeout": 15})
    assert "has gone" in said


def gone(*_arguments: object, **_options: object) -> None:
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({}, "say which device"),
        ({"busid": "usb1"}, "1-1.4"),
        ({"product": "0d28"}, "0d28:0204"),
        ({"product": "0d28:0204:0001"}, "0d28:0204"),
    ],
)
def test_malformed_devices_are_refused_with_their_path(device: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=rf"devices\[1\].*{said}"):
        exports.selectors([{"busid": "1-1"}, device])


def test_products_are_compared_as_the_kernel_writes_them() -> None:
    assert exports.selectors([{"product": "0D28:ABCD", "busid": None}]) == (Selector(product="0d28:abcd"),)


PROBE = Wanted("a", 7575, product="0d28:0204")


@pytest.mark.parametrize(
    ("port", "held"),
    [
        (Port(0, 6, "1-1", "a", 7575, "1-1"), True),
        (Port(0, 5, "0-0", "a", 7575, "1-1"), True),
        (Port(0, 6, "1-1", "a", 3240, "1-1"), False),
        (Port(0, 6, "1-1", "b", 7575, "1-1"), False),
        (Port(0, 6, "1-1"), False),
    ],
)
def test_ports_hold_what_was_written_down(bus: Path, port: Port, held: bool) -> None:
    plug(bus, "1-1")
    assert client.missing([PROBE], [port]) == ([] if held else [PROBE])
    assert client.surplus([], [port], [PROBE]) == ([port] if held else [])
    assert client.surplus([PROBE], [port], [PROBE]) == []


def test_another_product_is_not_what_was_wanted(bus: Path) -> None:
    plug(bus, "1-1", "dead:beef")
    assert client.missing([PROBE], [Port(0, 6, "1-1", "a", 7575, "1-1")]) == [PROBE]


def test_everybody_but_the_clients_is_dropped() -> None:
    clients = access.parse(["192.168.1.147", "fd00::/64", "192.168.1.147/32"])
    assert clients == ("192.168.1.147/32", "fd00::/64")
    ((chain,), (jump,)) = access.desired(7575, clients, 4)[:2]
    port = ("-p", "tcp", "--dport", "7575")
    assert chain.rules == (
        ("-i", "lo", "-j", "RETURN"),
        ("-s", "192.168.1.147/32", *port, "-j", "RETURN"),
        (*port, "-j", "DROP"),
    )
    assert (jump.hook, jump.place) == ("INPUT", 0)
    with pytest.raises(InvalidInput, match=r"clients\[0\].*192\.168\.1\.0/24"):
        access.parse(["192.168.1.7/24"])


def test_a_kernel_without_the_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "there", lambda module: module == "usbmon")
    assert drivers.capabilities()["usb.usbmon"] is True
    with pytest.raises(
        MissingCapability, match=r"exporting USB devices needs CONFIG_USBIP_HOST \(kernel module usbip-host\)"
    ):
        service.require_driver("server")


def test_another_configuration_is_another_service() -> None:
    one, same, other = (service.desired("client", {"timeout": seconds}) for seconds in (15, 15, 16))
    assert one == same
    assert one.running != other.running
    assert one.files[-1].path == "/etc/impair.testbed/usb-client.json"
    assert one.files[-1].mode == 0o600


def test_the_service_ends_before_its_work_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "status", lambda side: {"pid": 1, "ready": True})
    domain = service.ServiceDomain("client")
    now = service.desired("client", {"timeout": 15})
    steps = domain.plan(now, service.absent("client", now))
    assert steps[0].payload == "stop"
    assert not any(step.retire for step in steps), "what is retired comes later"
    assert {step.command.split()[0] for step in steps[1:]} == {"rm"}
    assert domain.plan(now, now) == []
