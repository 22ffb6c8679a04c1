# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab with USB, and a debug probe to plug in: made by configfs alone, so that nothing of ours is judged by ours."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.places import Done, Lab, run

SERVER, CLIENT, OTHER = "master", "laptop", "slave"
ADDRESS, PORT = "192.168.1.107", 7575
PRODUCT, SERIAL = "0d28:0204", "0240000033514e45"
DISK = 8 << 20  # bytes
PATIENT = "lab_ready_within=240"  # seconds: two emulated nodes on two busy cores need more than a minute

# Disk, serial port and HID on dummy_hcd, where a node is its own host; the last two give back what they get.
PROBE = r"""
import os, pathlib, select, subprocess, sys, termios, threading, time, tty
product, serial, disk = sys.argv[1:]
drivers = ["dummy_hcd", "libcomposite", "usb_f_mass_storage", "usb_f_acm", "usb_f_hid"]
subprocess.run(["modprobe", "-a", *drivers], check=True)
if not os.path.isdir("/sys/kernel/config/usb_gadget"):
    subprocess.run(["mount", "-t", "configfs", "none", "/sys/kernel/config"], check=True)
gadget = pathlib.Path("/sys/kernel/config/usb_gadget/probe")
report = "0600ff0901a101150026ff00" "75089540" "09018102" "9540" "09019102" "c0"  # 64 bytes of vendor data each way
values = {
    "idVendor": "0x" + product[:4], "idProduct": "0x" + product[5:], "strings/0x409/serialnumber": serial,
    "strings/0x409/product": "Probe", "configs/c.1/strings/0x409/configuration": "all",
    "functions/mass_storage.0/lun.0/file": disk, "functions/acm.0": None,
    "functions/hid.0/report_length": "64", "functions/hid.0/report_desc": bytes.fromhex(report),
}
for name, value in values.items():
    path = gadget / name
    (path if value is None else path.parent).mkdir(parents=True, exist_ok=True)
    if value is not None:
        path.write_bytes(value if isinstance(value, bytes) else value.encode())
for name in ("mass_storage.0", "acm.0", "hid.0"):
    link = gadget / "configs/c.1" / name
    if not link.is_symlink():
        link.symlink_to(gadget / "functions" / name)
(gadget / "UDC").write_text("dummy_udc.0")

def echo(path, size):
    while True:  # it goes with each plug that is pulled; as its terminal it would end us then
        try:
            with open(os.open(path, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0) as end:
                if "tty" in path:
                    tty.setraw(end.fileno())
                # Closed as soon as the plug is pulled: Linux 6.1 does not survive one put back while a HID is open.
                while (gadget / "UDC").read_text().strip():
                    if select.select([end], [], [], 0.1)[0]:
                        data = end.read(size)
                        if not data:
                            break
                        end.write(data)
        except (OSError, termios.error):
            pass
        time.sleep(0.05)

if os.fork() == 0:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    threading.Thread(target=echo, args=("/dev/ttyGS0", 4096)).start()
    echo("/dev/hidg0", 64)
"""

# What came back of a word sent to the serial port, and of a report sent to the HID.
EXCHANGE = r"""
import os, select, sys, termios, tty
def receive(end, size):
    data = b""
    while len(data) < size:
        if not select.select([end], [], [], 30)[0]:
            sys.exit(f"{len(data)} of {size} bytes came back")
        data += os.read(end, size - len(data))
    return data
serial, hid = sys.argv[1:]
end = os.open("/dev/" + serial, os.O_RDWR | os.O_NOCTTY)
tty.setraw(end)
word = os.urandom(2000).hex().encode()
os.write(end, word)
assert receive(end, len(word)) == word, "the serial port gave back something else"
end = os.open("/dev/" + hid, os.O_RDWR)
report = os.urandom(64)
os.write(end, b"\0" + report)
assert receive(end, 64) == report, "the HID gave back something else"
print("both")
"""

# Names of disks, serial ports and HIDs of an attached device with this serial number.
NODES = r"""
import glob, os, re, sys
for path in glob.glob("/sys/bus/usb/devices/*/serial"):
    folder = os.path.realpath(os.path.dirname(path))
    if "/vhci_hcd" in folder and open(path).read().strip() == sys.argv[1]:
        for _place, folders, _files in os.walk(folder):
            print(*(name for name in folders if re.fullmatch(r"sd[a-z]|ttyACM\d+|hidraw\d+", name)))
"""

# Files are written and synced, each with its name's hash known here, until the port is freed under them; and again.
CYCLES = r"""
import ctypes, glob, hashlib, json, os, random, re, subprocess, sys, threading, time
serial, count = sys.argv[1], int(sys.argv[2])
ledger, counted = {}, {"cycles": 0, "written": 0, "found": 0, "failed_writes": 0}

def disk():
    for path in glob.glob("/sys/bus/usb/devices/*/serial"):
        folder = os.path.realpath(os.path.dirname(path))
        try:
            if "/vhci_hcd" not in folder or open(path).read().strip() != serial:
                continue
        except OSError:
            continue
        for _place, folders, _files in os.walk(folder):
            for name in folders:
                if re.fullmatch("sd[a-z]+", name) and int(open(f"/sys/block/{name}/size").read()):
                    return name
    return None

def mounted():
    end = time.monotonic() + 60
    while time.monotonic() < end:
        name = disk()
        if name and not subprocess.run(["mount", "-t", "ext4", "/dev/" + name, "/mnt"], capture_output=True).returncode:
            return name
        time.sleep(0.1)
    sys.exit(f"no disk within 60 s, after {counted}")

def port():
    for file in glob.glob("/sys/devices/platform/vhci_hcd.0/status*"):
        for line in open(file).read().splitlines()[1:]:
            if line.split()[2] == "006":
                return line.split()[1]

def write(stop):
    number = 0
    try:
        while not stop.is_set():
            data, name = os.urandom(random.randrange(1, 60000)), f"/mnt/f{counted['cycles']}-{number}"
            with open(name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            folder = os.open("/mnt", os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            ledger[name] = hashlib.sha256(data).hexdigest()
            counted["written"] += 1
            number += 1
    except OSError:
        counted["failed_writes"] += 1

def look():
    for name, digest in ledger.items():
        with open(name, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != digest:
                sys.exit(f"{name} is another one, after {counted}")
        counted["found"] += 1
        os.unlink(name)
    ledger.clear()

for _cycle in range(count):
    mounted()
    look()
    stop = threading.Event()
    writer = threading.Thread(target=write, args=(stop,), daemon=True)
    writer.start()
    time.sleep(random.uniform(0.2, 1.0))
    open("/sys/devices/platform/vhci_hcd.0/detach", "w").write(str(int(port())))
    time.sleep(0.1)
    stop.set()
    writer.join(60)
    if writer.is_alive():
        sys.exit(f"a write hangs, after {counted}")
    subprocess.run(["umount", "-l", "/mnt"], check=True)
    counted["cycles"] += 1
mounted()
look()
subprocess.run(["umount", "/mnt"], check=True)
print(json.dumps(counted))
"""


class Counted(NamedTuple):
    """What a class has sent, in bytes, and how many packets it has dropped."""

    sent: int
    dropped: int


class UsbLab(Lab):
    """inventories/virtual with the nodes and variables of inventories/usb, and of one more inventory where given."""

    def _inventory(self) -> list[str]:
        places = ["inventories/virtual", "inventories/usb", *([str(self.inventory)] if self.inventory else [])]
        return [*(word for one in places for word in ("-i", one)), "-e", f"lab_name={self.name}", "-e", PATIENT]

    def shell(self, node: str, script: str, check: bool = True, stdin: str | None = None) -> Done:
        return self.run(node, ["sh", "-c", script], stdin, check)

    @contextmanager
    def running(self, folder: Path, *options: str) -> Iterator[None]:
        """Started, with the probe plugged in and everything as the inventory says; `options` are those of site.yml."""
        self.playbook("lab_up")
        try:
            self.make_disk(folder)
            self.plug()
            self.playbook("site", *options, timeout=1000)
            yield
        finally:
            self.playbook("lab_down")

    def restart(self, node: str) -> None:
        """As if the node's power failed for a moment; what it has written down before stays."""
        boot = "cat /proc/sys/kernel/random/boot_id"
        before = self.shell(node, f"sync; {boot}").stdout
        self.shell(node, "(sleep 1; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &")
        config = str(self.run_dir / "ssh_config")
        run(["ssh", "-F", config, "-o", f"ControlPath={self.run_dir}/kept-%n", "-O", "exit", node], check=False)

        def started() -> bool:
            """By a new connection each time: the old one would wait for an answer."""
            asked = ["timeout", "10", "ssh", "-F", config, "-o", "ConnectTimeout=8", node, boot]
            return run(asked, check=False).stdout not in ("", before)

        self.wait_for(started, f"the next boot of {node}", 180)

    def make_disk(self, folder: Path) -> None:
        """An ext4 file system with one file, for the server's side of the probe. The nodes have no mke2fs."""
        (folder / "in").mkdir()
        (folder / "in" / "DETAILS.TXT").write_text("found on the probe\n")
        image = folder / "disk.img"
        image.touch()
        os.truncate(image, DISK)
        run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(folder / "in"), str(image)])
        packed = base64.b64encode(gzip.compress(image.read_bytes())).decode()
        self.shell(SERVER, "base64 -d | gunzip > /root/disk.img", stdin=packed)

    def disk_file(self, folder: Path, name: str) -> bytes:
        """A file on the disk as the server's side of the probe has it, read by debugfs."""
        image = folder / "read.img"
        packed = self.shell(SERVER, "gzip -c /root/disk.img | base64").stdout
        image.write_bytes(gzip.decompress(base64.b64decode(packed)))
        run(["debugfs", "-R", f"dump /{name} {folder / 'found'}", str(image)])
        return (folder / "found").read_bytes()

    def plug(self, serial: str = SERIAL, product: str = PRODUCT) -> None:
        """Plug the probe into the server, for the first time since that has started."""
        self.run(SERVER, ["python3", "-", product, serial, "/root/disk.img"], stdin=PROBE)

    def replug(self, product: str = PRODUCT, within: float = 2) -> None:
        """Pull the plug, and put it back; within so many seconds, while which another product may come of it."""
        gadget = "/sys/kernel/config/usb_gadget/probe"
        vendor, _colon, number = product.partition(":")
        self.shell(
            SERVER,
            f"cd {gadget}; echo > UDC; sleep {within}; echo 0x{vendor} > idVendor; echo 0x{number} > idProduct;"
            " echo dummy_udc.0 > UDC",
        )

    def nodes(self) -> dict[str, str]:
        """What the probe is on the client, by /sys: names of disk, serial port and HID, as far as they are there."""
        found = self.run(CLIENT, ["python3", "-", SERIAL], stdin=NODES).stdout.split()
        return {re.sub(r"(?<=sd)[a-z]|\d+", "", name): name for name in found}

    def complete(self) -> bool:
        return self.nodes().keys() == {"sd", "ttyACM", "hidraw"}

    def attached(self, seconds: float = 120) -> dict[str, str]:
        """Wait until all of the probe is on the client; returns its nodes there."""
        self.wait_for(self.complete, "the probe on the client", seconds)
        return self.nodes()

    def ports(self) -> list[str]:
        """Ports of vhci_hcd that are not free, by the kernel."""
        table = self.shell(CLIENT, "cat /sys/devices/platform/vhci_hcd.0/status*").stdout.splitlines()
        return [line for line in table if not line.startswith("hub") and line.split()[2] != "004"]

    def lane(self) -> dict[str, Counted]:
        """The bridge node's classes towards the client, by the rates that they have in host_vars."""
        shown = self.shell(SERVER, "tc -s class show dev eth0").stdout
        found = {}
        for name, rate in (("usbip", "100Mbit"), ("device", "128Kbit")):
            counts = re.search(rf" rate {rate} .*\n Sent (\d+) bytes \d+ pkt \(dropped (\d+),", shown)
            assert counts, shown
            found[name] = Counted(int(counts[1]), int(counts[2]))
        return found

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                said = [f"{node}: {self.said(node)}" for node in (SERVER, CLIENT)]
                pytest.fail("\n".join([f"not within {seconds:.0f} s: {what}", *said]))
            time.sleep(0.3)

    def said(self, node: str) -> str:
        """What may tell why something did not come."""
        logs = "tail -n 20 /run/impair-usb-*.log; cat /run/impair.testbed/usb-*.json; usbip port; dmesg | tail -n 15"
        return self.shell(node, logs, check=False).stdout

    def exchange(self) -> None:
        """Words through the serial port and the HID, and back."""
        here = self.nodes()
        assert self.run(CLIENT, ["python3", "-", here["ttyACM"], here["hidraw"]], stdin=EXCHANGE).stdout == "both\n"

    def trouble(self) -> str:
        """What a kernel says when something of it broke."""
        pattern = "BUG:|Oops|general protection|WARNING: CPU|stack segment|use-after-free|blocked for more than"
        return "".join(
            self.shell(node, f"dmesg | grep -E '{pattern}'", check=False).stdout for node in (SERVER, CLIENT)
        )

    def cycles(self, count: int) -> dict[str, int]:
        """Detach the disk in the middle of writing, so many times; what was synced is looked for each time after."""
        self.shell(CLIENT, "echo 0 > /sys/module/usb_storage/parameters/delay_use")
        done = self.long(CLIENT, ["python3", "-", SERIAL, str(count)], stdin=CYCLES, timeout=60 + 60 * count)
        counted: dict[str, int] = json.loads(done.stdout)
        return counted

    def long(self, node: str, argv: list[str], stdin: str, timeout: float) -> Done:
        """Run a program that takes longer than others may."""
        return run(["ssh", "-F", str(self.run_dir / "ssh_config"), node, shlex.join(argv)], stdin, True, timeout)
