# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a USB device, as files of configfs, and the steps to them."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput, MissingCapability, TestbedError
from plugins.module_utils.usb import device, fat
from plugins.module_utils.usb.gadget import GadgetDomain, State

ASKED: dict[str, Any] = {
    "name": "probe",
    "id": "0d28:0204",
    "serial": "",
    "manufacturer": "us",
    "product": "it",
    "functions": [{"kind": "mass_storage", "contents": {"A.TXT": "a"}}, {"kind": "acm"}, {"kind": "hid"}],
    "udc": "",
}
FREE = {"dummy_udc.0": "", "musb-hdrc.1.auto": ""}


def asked(**other: Any) -> device.Asked:
    return device.parse({**ASKED, **other})


def steps(current: State, desired: State) -> list[str]:
    planned = GadgetDomain("probe").plan(current, desired)
    return [str(step).replace("/sys/kernel/config/usb_gadget/impair-probe", "G") for step in planned]


def test_a_device_is_made_in_the_order_that_the_kernel_wants() -> None:
    planned = steps(State(None, ready=False, mounted=False), State(asked(udc="dummy_udc.0").gadget))
    verbs = [step.partition(" ")[0] for step in planned]
    assert planned[:3] == ["modprobe dummy_hcd", "modprobe libcomposite", "mount -t configfs none /sys/kernel/config"]
    assert planned[-4:] == [
        "ln -s G/functions/mass_storage.0 G/configs/c.1/mass_storage.0",
        "ln -s G/functions/acm.1 G/configs/c.1/acm.1",
        "ln -s G/functions/hid.2 G/configs/c.1/hid.2",
        "echo dummy_udc.0 > G/UDC",
    ]
    assert "echo 0x0d28 > G/idVendor" in planned
    assert verbs.index("echo") > verbs.index("mkdir") > verbs.index("mount")


def test_a_real_controller_is_taken_first_and_the_present_one_is_kept() -> None:
    gadget = asked().gadget
    assert steps(State(None, controllers=FREE), State(gadget))[-1] == "echo musb-hdrc.1.auto > G/UDC"
    held = {**FREE, "dummy_udc.0": "impair-probe"}
    assert steps(State(gadget._replace(udc="dummy_udc.0"), controllers=held), State(gadget)) == []


def test_only_an_ejected_medium_and_the_controller_change_without_making_it_anew() -> None:
    gadget = asked(udc="dummy_udc.0").gadget
    medium = "functions/mass_storage.0/lun.0/file"
    empty = gadget._replace(values={**gadget.values, medium: b""})
    held = {"dummy_udc.0": "impair-probe", "other": ""}
    file = gadget.values[medium].decode()
    assert steps(State(empty, controllers=held), State(gadget)) == [f"echo {file} > G/{medium}"]
    assert steps(State(gadget, controllers=held), State(gadget._replace(udc="other"))) == [
        "echo '' > G/UDC  # disruptive: the host sees the device unplugged",
        "wait until nobody has hid.2 open",
        "echo other > G/UDC",
    ]
    another = asked(udc="dummy_udc.0", functions=[{"kind": "acm"}]).gadget
    planned = steps(State(gadget, controllers=held), State(another))
    assert planned[0] == "echo '' > G/UDC  # disruptive: the host sees the device unplugged"
    assert planned[1] == "wait until nobody has hid.2 open"
    assert planned.index("rmdir G") < planned.index("mkdir G")


def test_removing_goes_the_other_way_round() -> None:
    gadget = asked(functions=[{"kind": "acm"}]).gadget
    assert steps(State(gadget), State(None)) == [
        "rm G/configs/c.1/acm.0",
        "rmdir G/configs/c.1",
        "rmdir G/functions/acm.0",
        "rmdir G/strings/0x409",
        "rmdir G",
    ]
    assert steps(State(None), State(None)) == []


@pytest.mark.parametrize(
    ("controllers", "udc", "error", "said"),
    [
        ({}, "", MissingCapability, "a free USB device controller in /sys/class/udc"),
        ({"x": "g1"}, "", MissingCapability, "x is held by g1"),
        ({"x": "g1"}, "x", TestbedError, "usb_gadget_udc: x is held by g1"),
        ({"x": ""}, "y", TestbedError, "there is no USB device controller y; this node has x"),
        ({"dummy_udc.0": ""}, "dummy_udc.1", TestbedError, "there is no USB device controller dummy_udc.1"),
    ],
)
def test_a_controller_that_cannot_be_had_is_told(
    controllers: dict[str, str], udc: str, error: type[TestbedError], said: str
) -> None:
    with pytest.raises(error, match=said):
        steps(State(None, controllers=controllers), State(asked(udc=udc).gadget))


@pytest.mark.parametrize(
    ("other", "path"),
    [
        ({"name": "Probe"}, "usb_gadget_name"),
        ({"id": "d28:204"}, "usb_gadget_id"),
        ({"serial": "µ"}, "usb_gadget_serial"),
        ({"product": "x" * 127}, "usb_gadget_product"),
        ({"udc": "../x"}, "usb_gadget_udc"),
        ({"functions": []}, "usb_gadget_functions"),
        ({"functions": [{"kind": "acm"}, {"kind": "rndis"}]}, "usb_gadget_functions[1].kind"),
        ({"functions": [{"kind": "acm", "size": "1MiB"}]}, "usb_gadget_functions[0].size"),
        ({"functions": [{"kind": "mass_storage", "size": "1GiB"}]}, "usb_gadget_functions[0].size"),
        ({"functions": [{"kind": "mass_storage", "file": "/none"}]}, "usb_gadget_functions[0].file"),
        ({"functions": [{"kind": "mass_storage", "file": "/dev/null"}]}, "usb_gadget_functions[0].file"),
        (
            {"functions": [{"kind": "mass_storage", "contents": {"a.txt": ""}}]},
            "usb_gadget_functions[0].contents.a.txt",
        ),
        ({"functions": [{"kind": "mass_storage", "label": "much too long"}]}, "usb_gadget_functions[0].label"),
        (
            {"functions": [{"kind": "mass_storage", "size": "64KiB", "contents": {"A": "x" * 65536}}]},
            "usb_gadget_functions[0].contents",
        ),
        ({"functions": [{"kind": "hid", "report_length": 0}]}, "usb_gadget_functions[0].report_length"),
        ({"functions": [{"kind": "hid", "report_descriptor": "xyz"}]}, "usb_gadget_functions[0].report_descriptor"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(other: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        asked(**other)
    assert refused.value.path == path


def test_another_definition_is_another_volume() -> None:
    (first,) = asked().volumes
    (second,) = asked(functions=[{"kind": "mass_storage", "contents": {"A.TXT": "b"}}]).volumes
    assert first != second
    assert first.startswith("probe-")


@pytest.mark.parametrize("size", [fat.SMALLEST, 3 << 20, fat.LARGEST])
def test_a_volume_says_what_it_is(size: int) -> None:
    """Offsets by Microsoft's specification; whether Linux reads it is tested where Linux is (test_usb_gadget.py)."""
    made = fat.volume(size, "LABEL", {"A.TXT": b"a" * 5000, "EMPTY": b""})
    number = {at: int.from_bytes(made[at : at + 2], "little") for at in (11, 14, 17, 19, 22)}
    total = number[19] or int.from_bytes(made[32:36], "little")
    assert len(made) == size == total * number[11]
    assert (made[510:512], made[38], made[54:62]) == (b"\x55\xaa", 0x29, b"FAT12   ")
    root = (number[14] + made[16] * number[22]) * 512
    data = root + number[17] * 32
    assert (total - data // 512) // made[13] <= 4084
    names = [made[root + at : root + at + 11] for at in (0, 32, 64, 96)]
    assert names == [b"LABEL      ", b"A       TXT", b"EMPTY      ", bytes(11)]
    assert made[data : data + 5000] == b"a" * 5000
