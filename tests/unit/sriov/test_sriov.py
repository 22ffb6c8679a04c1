# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs as they are asked for, their bytes, and the steps from what stands to what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.netlink import Socket, attribute, attributes, nested
from plugins.module_utils.sriov import codec, sysfs
from plugins.module_utils.sriov.domain import SriovDomain
from plugins.module_utils.sriov.model import Function, Vf, parse, record, recorded

MAC = "52:54:00:aa:01:00"
WHOLE = {
    "mac": MAC.upper(),
    "vlan": 100,
    "qos": 3,
    "rate": "20mbit",
    "min_rate": "1mbit",
    "spoofchk": True,
    "trust": False,
    "state": "enable",
    "driver": "igbvf",
    "netns": "guest0",
    "name": "eth0",
}
MEANT = Vf(MAC, 100, 3, 1, 20, True, False, "enable", "igbvf", "guest0", "eth0")
STANDING = Vf(MAC, 0, 0, 0, 0, True, False, "auto", "igbvf", "", "eth2")


def test_what_is_asked_is_in_the_kernels_units() -> None:
    asked = [{"name": "eth0", "count": 3, "vfs": [WHOLE, {"rate": "0", "vlan": 0}]}, {"name": "eth1", "count": None}]
    found = parse(asked)
    assert found == (Function("eth0", (MEANT, Vf(vlan=0, qos=0, max_rate=0), Vf())), Function("eth1", ()))
    assert recorded(record(found)) == found


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"vfs": [{"mac": "53:54:00:aa:01:00"}]}, "vfs[0].mac"),  # of a group
    ({"vfs": [{"mac": "00:00:00:00:00:00"}]}, "vfs[0].mac"),
    ({"vfs": [{"mac": MAC}, {"mac": MAC}]}, "vfs[1].mac"),
    ({"vfs": [{}, {"vlan": 4095}]}, "vfs[1].vlan"),
    ({"vfs": [{"vlan": 1, "qos": 8}]}, "vfs[0].qos"),
    ({"vfs": [{"qos": 1}]}, "vfs[0].qos"),
    ({"vfs": [{"rate": 20}]}, "vfs[0].rate"),
    ({"vfs": [{"rate": "1500kbit"}]}, "vfs[0].rate"),
    ({"vfs": [{"rate": "10mbit", "min_rate": "11mbit"}]}, "vfs[0].min_rate"),
    ({"vfs": [{"spoofchk": "on"}]}, "vfs[0].spoofchk"),
    ({"vfs": [{"state": "up"}]}, "vfs[0].state"),
    ({"vfs": [{"driver": "../vfio"}]}, "vfs[0].driver"),
    ({"vfs": [{"driver": "vfio-pci", "netns": "a"}]}, "vfs[0].netns"),
    ({"vfs": [{"netns": "a/b"}]}, "vfs[0].netns"),
    ({"vfs": [{"netns": ".."}]}, "vfs[0].netns"),
    ({"vfs": [{"name": "eth0"}]}, "vfs[0].name"),
    ({"vfs": [{"netns": "a", "name": "sixteen-letters-"}]}, "vfs[0].name"),
    ({"vfs": [{"speed": "1mbit"}]}, "vfs[0].speed"),
    ({"vfs": [{}, {}], "count": 1}, "count"),
    ({"count": 257}, "count"),
]


@pytest.mark.parametrize(("asked", "path"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_is_refused_with_its_path(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse([{"name": "eth0", **asked}])
    assert refused.value.path == f"interfaces[0].{path}"


def test_an_interface_stands_once() -> None:
    with pytest.raises(InvalidInput, match=r"interfaces\[1\]\.name"):
        parse([{"name": "eth0"}, {"name": "eth0"}])


def test_bytes_read_back_as_what_was_written() -> None:
    parts = [
        codec.mac(5, MAC),
        codec.vlan(5, 100, 3),
        codec.rate(5, 1, 20),
        codec.spoofchk(5, True),
        codec.trust(5, False),
        codec.state(5, "enable"),
    ]
    link = attributes(nested(codec.IFLA_VFINFO_LIST, nested(codec.IFLA_VF_INFO, *parts)))
    assert codec.settings(link) == {5: MEANT._replace(driver=None, space=None, name=None)}
    silent = attribute(codec.IFLA_VF_SPOOFCHK, b"\5\0\0\0\xff\xff\xff\xff")
    link = attributes(nested(codec.IFLA_VFINFO_LIST, nested(codec.IFLA_VF_INFO, *parts[:2], silent)))
    assert codec.settings(link) == {5: Vf(MAC, 100, 3, 0, 0)}


@pytest.fixture
def pci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device of PCI that has VFs, as far as planning asks."""
    monkeypatch.setattr(sysfs, "NET", tmp_path)
    (tmp_path / "eth0/device").mkdir(parents=True)
    (tmp_path / "eth0/device/sriov_drivers_autoprobe").write_text("1\n")
    return tmp_path / "eth0/device"


def plan(current: tuple[Vf, ...], desired: tuple[Vf, ...]) -> list[str]:
    with Socket() as unused:
        steps = SriovDomain(unused, ["eth0"]).plan((Function("eth0", current),), (Function("eth0", desired),))
    return [f"{'! ' * step.disruptive}{step.command.partition('  #')[0]}" for step in steps]


def test_a_number_changes_by_way_of_none_and_drivers_come_after_addresses(pci: Path) -> None:
    steps = plan((STANDING,), (Vf(mac=MAC), Vf(driver="vfio-pci")))
    assert steps == [
        f"! echo 0 > {pci}/sriov_numvfs",
        f"echo 2 > {pci}/sriov_numvfs",
        f"ip link set dev eth0 vf 0 mac {MAC}",
        "echo $VF > /sys/bus/pci/drivers_probe",
        "echo vfio-pci > /sys/bus/pci/devices/$VF/driver_override; echo $VF > /sys/bus/pci/drivers_probe",
    ]
    assert plan((STANDING,), ()) == [f"! echo 0 > {pci}/sriov_numvfs"]
    (pci / "sriov_drivers_autoprobe").write_text("0\n")
    assert plan((), (Vf(),)) == [f"echo 1 > {pci}/sriov_numvfs"]


def test_a_function_that_is_down_rises_before_a_driver_asks_it(pci: Path) -> None:
    """Else the driver takes an address by chance."""
    (pci.parent / "flags").write_text("0x1002\n")
    rise = "ip link set dev eth0 up"
    assert plan((), (Vf(mac=MAC),))[1:] == [f"ip link set dev eth0 vf 0 mac {MAC}", rise, BOUND]
    assert plan((STANDING,), (Vf(mac=OTHER),))[1:] == [f"ip link set dev eth0 vf 0 mac {OTHER}", rise, BOUND]
    assert not plan((STANDING,), (STANDING,))
    (pci.parent / "flags").write_text("0x1003\n")
    assert rise not in plan((), (Vf(mac=MAC),))


def test_what_is_not_asked_stays(pci: Path) -> None:
    assert not plan((STANDING,), (Vf(),))
    assert not plan((STANDING,), (STANDING,))
    assert plan((STANDING._replace(min_rate=5),), (Vf(max_rate=20),)) == [
        "ip link set dev eth0 vf 0 max_tx_rate 20 min_tx_rate 5"
    ]
    assert plan((STANDING,), (Vf(vlan=7, qos=0, trust=True),)) == [
        "ip link set dev eth0 vf 0 vlan 7 qos 0",
        "ip link set dev eth0 vf 0 trust on",
    ]


OTHER = "52:54:00:aa:01:99"
UNBOUND, BOUND = "! echo $VF > /sys/bus/pci/drivers/igbvf/unbind", "echo $VF > /sys/bus/pci/drivers_probe"


def test_another_address_takes_the_driver_away_for_a_moment(pci: Path) -> None:
    """And the interface goes back to where it was."""
    asked = Vf(mac=OTHER)
    steps = [UNBOUND, f"ip link set dev eth0 vf 0 mac {OTHER}", BOUND]
    assert plan((STANDING,), (asked,)) == steps
    moved = STANDING._replace(space="guest0", name="vf0")
    assert plan((moved,), (asked,)) == [*steps, "ip link set dev $IF netns guest0 name vf0"]
    for_machines = STANDING._replace(driver="vfio-pci", space=None, name=None)
    assert plan((for_machines,), (asked,)) == steps[1:2]


def test_another_driver_and_another_place(pci: Path) -> None:
    override = "echo vfio-pci > /sys/bus/pci/devices/$VF/driver_override; "
    assert plan((STANDING,), (Vf(driver="vfio-pci"),)) == [UNBOUND, override + BOUND]
    assert plan((STANDING,), (Vf(driver=""),)) == [UNBOUND]
    assert plan((STANDING,), (Vf(space="guest0", name="eth0"),)) == ["ip link set dev $IF netns guest0 name eth0"]
    held = STANDING._replace(driver="vfio-pci", space=None, name=None)
    steps = plan((held,), (Vf(driver="igbvf", space="guest0"),))
    assert len(steps) == 3 and steps[0].endswith("vfio-pci/unbind") and steps[2] == "ip link set dev $IF netns guest0"
    free = STANDING._replace(driver="", space=None, name=None)
    assert plan((free,), (Vf(space="guest0"),)) == [BOUND, "ip link set dev $IF netns guest0"]
    assert not plan((STANDING._replace(space="guest0"),), (Vf(space="guest0"),))
