# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A debug probe on the bridge node, attached by the laptop through the bridge node's own impairments; site.yml does all
of it. Judged by what the kernels show, the bytes on both sides, and packet counts."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.places import Done
from tests.integration.usb import ADDRESS, CLIENT, OTHER, PORT, SERVER, UsbLab

pytestmark = [pytest.mark.lab, pytest.mark.usb, pytest.mark.timeout(1800)]
REACH = f"import socket; socket.create_connection(('{ADDRESS}', {PORT}), 5); print('reached')"


@pytest.fixture(scope="module")
def usb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsbLab]:
    made = UsbLab(f"usbtest-{os.getpid()}")
    with made.running(tmp_path_factory.mktemp("disk")):
        yield made


def module(usb: UsbLab, node: str, name: str, arguments: dict[str, object], *options: str) -> Done:
    """A module on a node; what it says is for regular expressions."""
    return usb.module(node, f"impair.testbed.{name}", json.dumps(arguments) if arguments else "", *options, check=False)


def test_a_second_run_changes_nothing(usb: UsbLab) -> None:
    usb.attached()
    said = usb.playbook("site", "--tags", "usb_server,usb_client", "-l", f"{SERVER},{CLIENT}").stdout
    assert re.findall(r"^(\w+) +: .*changed=0 .*failed=0", said, re.MULTILINE) == [CLIENT, SERVER], said


def test_the_port_is_closed_to_others(usb: UsbLab) -> None:
    """The slave reaches the node, and its port only when nothing stands before it."""
    assert usb.run(CLIENT, ["python3", "-c", REACH]).stdout == "reached\n"
    usb.run(OTHER, ["ping", "-c", "1", "-w", "30", ADDRESS])
    assert "TimeoutError" in usb.run(OTHER, ["python3", "-c", REACH], check=False).stderr
    dropped = usb.run(SERVER, ["iptables-save", "-c"]).stdout
    assert re.search(rf"^\[[1-9]\d*:\d+\] -A impair-usb-INPUT .*--dport {PORT} -j DROP$", dropped, re.MULTILINE), (
        dropped
    )
    try:
        usb.shell(SERVER, "iptables -D INPUT -j impair-usb-INPUT")
        assert usb.run(OTHER, ["python3", "-c", REACH]).stdout == "reached\n"
    finally:
        usb.shell(SERVER, "iptables -I INPUT -j impair-usb-INPUT")


def test_the_lane_past_the_impairments(usb: UsbLab) -> None:
    """While more crosses the bridge than 128 kbit/s, and every 20th packet of it is lost, USB loses nothing and waits
    for nothing: 2 MB at that rate would take 131 s."""
    disk = usb.attached()["sd"]
    usb.shell(CLIENT, f"echo 1 > /proc/sys/vm/drop_caches; blockdev --flushbufs /dev/{disk}", check=False)
    before = usb.lane()
    flood = "timeout 200 ping -q -i 0.02 -s 900 -c 400 192.168.1.148 > /tmp/ping; cat /tmp/ping"
    with ThreadPoolExecutor(1) as beside:
        crossing = beside.submit(usb.shell, CLIENT, flood, False)
        begin = time.monotonic()
        read = usb.shell(CLIENT, f"dd if=/dev/{disk} bs=64k count=32 iflag=direct status=none | sha256sum").stdout
        took = time.monotonic() - begin
        ping = crossing.result().stdout
    after = usb.lane()
    print(f"2 MiB in {took:.1f} s; before {before}, after {after}; {ping}")
    assert read == usb.shell(SERVER, "head -c 2097152 /root/disk.img | sha256sum").stdout
    assert took < 60
    assert after["usbip"].sent - before["usbip"].sent > 2 << 20
    assert after["usbip"].dropped == before["usbip"].dropped
    answered = re.search(r"(\d+) received", ping)
    assert answered and 0 < int(answered[1]) < 380, ping


@pytest.mark.parametrize(
    ("node", "name", "arguments", "said"),
    [
        (
            SERVER,
            "usb_export",
            {"devices": [{"product": "dead:beef"}]},
            r"devices\[0\].*no such device is plugged in; the node",
        ),
        (
            SERVER,
            "usb_export",
            {"devices": [{"busid": "1-1"}], "port": 22},
            r"port: 22 is refused; sshd \(pid \d+\) listens",
        ),
        (OTHER, "usb_export", {"devices": [{"busid": "1-1"}]}, r"needs CONFIG_USBIP_HOST \(kernel module usbip-host\)"),
        (OTHER, "usb_attach", {"devices": [{"server": ADDRESS, "busid": "1-1"}]}, r"needs CONFIG_USBIP_VHCI_HCD"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_touched(
    usb: UsbLab, node: str, name: str, arguments: dict[str, object], said: str
) -> None:
    config = usb.shell(node, "cat /etc/impair.testbed/*; iptables-save | sed /^#/d; echo", check=False).stdout
    refused = module(usb, node, name, arguments)
    assert "FAILED!" in refused.stdout
    assert re.search(said, re.sub(r"\s+", " ", refused.stdout)), refused.stdout
    assert usb.shell(node, "cat /etc/impair.testbed/*; iptables-save | sed /^#/d; echo", check=False).stdout == config


def test_testbed_info_tells_what_the_kernel_lacks(usb: UsbLab) -> None:
    """User-Mode Linux has no USB at all; Debian's own kernel can record it."""
    told = {node: module(usb, node, "testbed_info", {}).stdout for node in (OTHER, CLIENT)}
    assert "usb.usbmon: CONFIG_USB_MON (kernel module usbmon)" in told[OTHER]
    assert "usb.usbmon: true" in told[CLIENT]
    usb.run(CLIENT, ["modprobe", "usbmon"])


def test_a_device_that_the_server_has_not_is_told_and_all_is_as_before(usb: UsbLab) -> None:
    before = usb.attached()
    wanted = {"devices": [{"server": ADDRESS, "port": PORT, "product": "dead:beef"}], "wait": 1}
    said = re.sub(r"\s+", " ", module(usb, CLIENT, "usb_attach", wanted).stdout)
    assert "no such device is free there" in said and "the state before was restored" in said, said
    assert usb.attached().keys() == before.keys()


def test_detached_while_written_ten_times(usb: UsbLab) -> None:
    """What was synced is there each time; no port stays taken, and no kernel complains. test_usb_long.py has 200."""
    usb.attached()
    counted = usb.cycles(10)
    assert counted["cycles"] == 10
    assert counted["found"] == counted["written"] > 10
    usb.attached()
    assert len(usb.ports()) == 1
    assert usb.trouble() == ""


def test_clear_leaves_nothing(usb: UsbLab) -> None:
    usb.attached()
    usb.playbook("clear", "--tags", "usb_server,usb_client", "-l", f"{SERVER},{CLIENT}")
    assert usb.ports() == []
    assert usb.shell(SERVER, "basename $(readlink /sys/bus/usb/devices/1-1/driver)").stdout == "usb\n"
    for node in (SERVER, CLIENT):
        left = (
            "ls -d /etc/impair.testbed /usr/local/lib/impair.testbed /etc/network/if-up.d/impair* /run/impair-usb*"
            " /run/impair.testbed/usb*"
        )
        assert usb.shell(node, left, check=False).stdout == ""
        assert "impair-usb" not in usb.shell(node, "iptables-save; ip6tables-save; ps -e -o args").stdout
    again = usb.playbook("clear", "--tags", "usb_server,usb_client", "-l", f"{SERVER},{CLIENT}").stdout
    assert again.count("changed=0") == 2, again
