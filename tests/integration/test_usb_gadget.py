# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node under QEMU that is a USB device and, by dummy_hcd, its own host: judged by sysfs, mounts and bytes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.places import Lab
from tests.integration.usb import PATIENT

pytestmark = [pytest.mark.lab, pytest.mark.usb]
VARIABLES = {
    "lab_node_kind": "qemu",
    "usb_gadget_name": "probe",
    "usb_gadget_id": "0d28:0204",
    "usb_gadget_serial": "0240000033514e45",
    "usb_gadget_udc": "dummy_udc.0",
    "usb_gadget_functions": [
        {"kind": "mass_storage", "label": "DAPLINK", "contents": {"DETAILS.TXT": "Unique ID: 0240\n"}},
        {"kind": "acm"},
        {"kind": "hid"},
    ],
}
DRIVERS = ["modprobe", "-a", "usb-storage", "sd_mod", "cdc-acm", "usbhid", "hid-generic", "vfat", "loop"]

# Runs on the node as the USB host: python3 - WHAT
HOST = r"""
import os, select, subprocess, sys, time, tty

def wait(what, seconds=60):
    end = time.monotonic() + seconds
    while True:
        got = what()
        if got:
            return got
        assert time.monotonic() < end, what
        select.select([], [], [], 0.02)

def opened(path):
    wait(lambda: os.path.exists(path))
    port = os.open(path, os.O_RDWR | os.O_NOCTTY)
    if os.isatty(port):
        tty.setraw(port)
    return port

def echo(path, sent, size):
    port, got = opened(path), b""
    os.write(port, sent)
    while len(got) < size:
        assert select.select([port], [], [], 60)[0], (got, "no more came")
        got += os.read(port, 4096)
    return got

def medium():
    try:
        os.close(os.open("/dev/sda", os.O_RDONLY))
    except OSError:
        return False
    return True

if sys.argv[1] == "acm":
    text = bytes(range(256)) * 20
    assert echo("/dev/ttyACM0", text, len(text)) == text
elif sys.argv[1] == "hid":
    report = bytes(range(64))
    assert echo("/dev/hidraw0", b"\0" + report, 64) == report
elif sys.argv[1] == "disk":
    wait(medium)
elif sys.argv[1] == "eject":
    asking = "mount -t vfat /dev/sda /mnt/disk; : > /mnt/disk/REFRSH.ACT; umount /mnt/disk"
    subprocess.run(["sh", "-ec", asking], check=True)
    wait(lambda: not medium())
    wait(medium)
print("done")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    inventory = tmp_path_factory.mktemp("inventory") / "usb.yml"
    inventory.write_text(json.dumps({"testbed": {"hosts": {"slave": VARIABLES}}}))
    made = Lab(f"gadgettest-{os.getpid()}", inventory, extra=[PATIENT])
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def site(lab: Lab, *arguments: str, check: bool = True) -> str:
    return lab.playbook("site", "-l", "slave", "--tags", "usb_gadget", *arguments, check=check).stdout


def changed(said: str) -> int:
    found = re.search(r"^slave .*changed=(\d+) ", said, re.MULTILINE)
    assert found, said
    return int(found[1])


def ask(lab: Lab, asked: dict[str, Any], *options: str) -> str:
    """What ansible prints, on one line: it folds long ones."""
    said = lab.module("slave", "impair.testbed.usb_gadget", json.dumps(asked), *options, check=False).stdout
    return " ".join(said.split())


def host(lab: Lab, what: str) -> None:
    assert lab.run("slave", ["python3", "-", what], HOST).stdout == "done\n"


def shell(lab: Lab, script: str) -> str:
    return lab.run("slave", ["sh", "-ec", script]).stdout


def test_site_makes_the_device_and_then_nothing_more(own: Lab) -> None:
    own.run("slave", DRIVERS)
    assert changed(site(own)) == 1
    device = "/sys/bus/usb/devices/1-1"
    told = shell(own, f"cd {device}; cat idVendor idProduct serial product; cat 1-1:*/bInterfaceClass | tr '\\n' ' '")
    assert told.split("\n") == ["0d28", "0204", "0240000033514e45", "Testbed probe", "08 02 0a 03 "]
    assert changed(site(own)) == 0


def test_the_host_reads_and_writes_the_disk_and_gets_bytes_and_reports_back(own: Lab) -> None:
    host(own, "disk")
    mounted = "mkdir -p /mnt/disk; mount -t vfat /dev/sda /mnt/disk; cd /mnt/disk"
    assert shell(own, f"{mounted}; cat *; cd /; umount /mnt/disk") == "Unique ID: 0240\n"
    written = shell(
        own, f"{mounted}; head -c 300000 /dev/urandom > NEW.BIN; sha256sum < NEW.BIN; cd /; umount /mnt/disk"
    )
    # Both ends of the wire, neither out of a cache: the host's after it forgot, the device's own file by another mount.
    again = f"echo 3 > /proc/sys/vm/drop_caches; {mounted}; sha256sum < NEW.BIN; cd /; umount /mnt/disk"
    assert shell(own, again) == written
    image = "mount -t vfat -o loop,ro /var/lib/impair.testbed/usb_gadget/probe-*.img /mnt/disk"
    assert shell(own, f"{image}; sha256sum < /mnt/disk/NEW.BIN; umount /mnt/disk") == written
    host(own, "acm")
    host(own, "hid")


def test_the_disk_goes_and_comes_back_when_the_host_asks(own: Lab) -> None:
    """As DAPLink's: the file that asked is gone, the others are there."""
    host(own, "eject")
    assert shell(own, "mount -t vfat /dev/sda /mnt/disk; ls /mnt/disk; umount /mnt/disk") == "DETAILS.TXT\nNEW.BIN\n"


def test_usb_stress_asks_the_device_in_a_loop(own: Lab) -> None:
    asked = json.dumps({"product": "0d28:0204", "loops": {"remount": 1, "cdc": 3, "hid": 3}})
    said = own.module("slave", "impair.testbed.usb_stress", asked, "-o").stdout
    found = json.loads(said[said.index("=>") + 2 :])
    assert found["first_connect"] is None
    assert {test: [loop["failed"] for loop in loops] for test, loops in found["tests"].items()} == {
        "remount": [""],
        "cdc": ["", "", ""],
        "hid": ["", "", ""],
    }
    assert found["tests"]["remount"][0]["seconds"] >= 3.0  # 0.5 to the eject, 2.5 to the return
    assert shell(own, "mount -t vfat /dev/sda /mnt/disk; ls /mnt/disk; umount /mnt/disk") == "DETAILS.TXT\nNEW.BIN\n"


def test_a_changed_device_is_plugged_in_anew_with_its_process(own: Lab) -> None:
    number = "cat /sys/bus/usb/devices/1-1/devnum"
    before, process = shell(own, number), shell(own, "cat /run/impair.testbed/usb-impair-probe.pid")
    other = {key.removeprefix("usb_gadget_"): value for key, value in VARIABLES.items() if key != "lab_node_kind"}
    other["product"] = "Other"
    assert "CHANGED" in ask(own, other)
    host(own, "acm")
    host(own, "hid")
    assert shell(own, "cat /sys/bus/usb/devices/1-1/product") == "Other\n"
    assert shell(own, number) != before
    assert shell(own, "cat /run/impair.testbed/usb-impair-probe.pid") == process
    host(own, "disk")
    assert shell(own, "mount -t vfat /dev/sda /mnt/disk; ls /mnt/disk; umount /mnt/disk") == "DETAILS.TXT\nNEW.BIN\n"


def test_a_controller_that_is_in_use_is_named_and_nothing_touched(own: Lab) -> None:
    number = shell(own, "cat /sys/bus/usb/devices/1-1/devnum")
    answer = ask(own, {"name": "second"})
    assert "a free USB device controller in /sys/class/udc (dummy_udc.0 is held by impair-probe)" in answer, answer
    assert shell(own, "ls /sys/kernel/config/usb_gadget") == "impair-probe\n"
    assert shell(own, "cat /sys/bus/usb/devices/1-1/devnum") == number


def test_clear_leaves_no_device_no_volume_and_no_process(own: Lab) -> None:
    foreign = "/sys/kernel/config/usb_gadget/theirs"
    shell(own, f"mkdir {foreign}")
    assert changed(own.playbook("clear", "-l", "slave", "--tags", "usb_gadget").stdout) == 1
    assert shell(own, "ls /sys/kernel/config/usb_gadget; rmdir " + foreign) == "theirs\n"
    left = "ls /dev/sda /dev/ttyGS0 /dev/hidg0 /run/impair.testbed/usb-impair-probe.*"
    assert shell(own, f"{left} 2>/dev/null || true; ls /var/lib/impair.testbed/usb_gadget") == ""
    assert "usb-impair-probe" not in shell(own, "ps ax")
    oops = shell(own, "dmesg | grep -iE 'oops|bug:|warning:|call trace' || true")
    assert oops == ""


def test_a_function_that_the_kernel_lacks_is_named_and_the_rest_taken_back(own: Lab) -> None:
    shell(own, "rmmod usb_f_hid; cd /lib/modules/*/kernel/drivers/usb/gadget/function; mv usb_f_hid.ko away; depmod")
    answer = ask(own, {"udc": "dummy_udc.0"})
    shell(own, "cd /lib/modules/*/kernel/drivers/usb/gadget/function; mv away usb_f_hid.ko; depmod")
    assert "the kernel module usb_f_hid (CONFIG_USB_CONFIGFS_F_HID)" in answer
    assert "the state before was restored" in answer
    assert (
        shell(own, "ls /sys/kernel/config/usb_gadget /var/lib/impair.testbed/usb_gadget | grep -v : || true").split()
        == []
    )


def test_the_readme_of_the_role_names_every_variable() -> None:
    role = Path(__file__).resolve().parents[2] / "roles/usb_gadget"
    variables = re.findall(r"^(usb_gadget_\w+):", (role / "defaults/main.yml").read_text(), re.MULTILINE)
    assert variables
    assert [name for name in variables if f"`{name}`" not in (role / "README.md").read_text()] == []
