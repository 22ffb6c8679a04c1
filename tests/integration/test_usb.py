# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A debug probe of one node attached by another; what is pulled, cut or restarted comes back.

test_usb_lab.py has what else the whole testbed does with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.places import Done
from tests.integration.usb import ADDRESS, CLIENT, PORT, PRODUCT, SERVER, UsbLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.minutes]  # emulated processors on a busy machine
MOUNTED = "set -e; mount -t ext4 /dev/{disk} /mnt; {work}; umount /mnt"
OWN, STRANGER = "192.168.1.147", "192.168.1.200"  # addresses of the client: one that may use the port, and another
PLAIN = {"testbed": {"hosts": {SERVER: {"node_interfaces": [{"name": "eth0", "address": f"{ADDRESS}/24"}]}}}}


@pytest.fixture(scope="module", params=["link", pytest.param("testbed", marks=pytest.mark.usb)])
def usb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsbLab]:
    """Over a link of their own, or by the whole testbed, whose bridge node is the server."""
    folder, inventory, options = tmp_path_factory.mktemp("usb"), None, []
    if request.param == "link":
        inventory, options = folder / "plain.yml", ["--tags", "usb"]
        inventory.write_text(json.dumps(PLAIN))
    made = UsbLab(f"usbtest-{os.getpid()}", inventory)
    with made.running(folder, *options):
        made.shell(CLIENT, f"ip address add {STRANGER}/24 dev enp3s0")
        yield made


def reach(usb: UsbLab, source: str) -> Done:
    """A connection to the server's port from one of the client's addresses."""
    connect = f"import socket; socket.create_connection(('{ADDRESS}', {PORT}), 5, ('{source}', 0)); print('reached')"
    return usb.run(CLIENT, ["python3", "-c", connect], check=False)


def test_the_probe_is_whole_at_the_client(usb: UsbLab, tmp_path: Path) -> None:
    """A file is read that was there, another written there is found in the device; serial port and HID answer."""
    here = usb.attached()
    assert f"usbip://{ADDRESS}:{PORT}/1-1" in usb.run(CLIENT, ["usbip", "port"]).stdout
    work = "cat /mnt/DETAILS.TXT; head -c 300000 /dev/urandom > /mnt/new; sync; sha256sum < /mnt/new"
    text, digest = usb.shell(CLIENT, MOUNTED.format(disk=here["sd"], work=work)).stdout.splitlines()
    assert text == "found on the probe"
    written = usb.disk_file(tmp_path, "new")
    assert f"{hashlib.sha256(written).hexdigest()}  -" == digest
    usb.exchange()


def test_the_port_is_closed_to_others(usb: UsbLab) -> None:
    """It is the chain that drops: without it, others reach the port as well."""
    assert reach(usb, OWN).stdout == "reached\n"
    assert "TimeoutError" in reach(usb, STRANGER).stderr
    dropped = usb.run(SERVER, ["iptables-save", "-c"]).stdout
    assert re.search(rf"^\[[1-9]\d*:\d+\] -A impair-usb-INPUT .*--dport {PORT} -j DROP$", dropped, re.MULTILINE), (
        dropped
    )
    try:
        usb.shell(SERVER, "iptables -D INPUT -j impair-usb-INPUT")
        assert reach(usb, STRANGER).stdout == "reached\n"
    finally:
        usb.shell(SERVER, "iptables -I INPUT -j impair-usb-INPUT")


def test_it_comes_back_after_a_replug(usb: UsbLab) -> None:
    """And what is plugged into the same socket in between is nobody else's: it stays the server's own."""
    usb.attached()
    usb.replug("1d6b:0104")
    usb.wait_for(lambda: not usb.ports(), "no attached device")
    local = "basename $(readlink /sys/bus/usb/devices/1-1/driver)"
    usb.wait_for(
        lambda: usb.shell(SERVER, local, check=False).stdout == "usb\n", "the other device at the server's own driver"
    )
    usb.replug(PRODUCT)
    usb.attached()
    usb.exchange()


def test_it_comes_back_after_30_seconds_without_a_link(usb: UsbLab) -> None:
    """Both sides notice; neither is asked to do anything."""
    usb.attached()
    since = usb.shell(CLIENT, "dmesg | wc -l").stdout.strip()
    usb.shell(SERVER, "(ip link set eth0 down; sleep 30; ip link set eth0 up) > /dev/null 2>&1 &")
    noticed = f"dmesg | tail -n +{since} | grep -c 'USB disconnect'"
    usb.wait_for(lambda: usb.shell(CLIENT, noticed, check=False).stdout != "0\n", "the client to lose the device")
    usb.attached()
    usb.exchange()
    assert usb.trouble() == ""


def test_it_comes_back_after_a_restart_of_the_server(usb: UsbLab) -> None:
    """With its chain, before anybody reaches the port."""
    usb.attached()
    usb.restart(SERVER)
    usb.plug()
    usb.attached()
    usb.exchange()
    assert f"--dport {PORT} -j DROP" in usb.run(SERVER, ["iptables-save"]).stdout
    assert "TimeoutError" in reach(usb, STRANGER).stderr
