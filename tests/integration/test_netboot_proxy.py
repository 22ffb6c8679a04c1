# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A boot server beside the network's own DHCP server: who answers whom, by packets between network namespaces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration import netboots
from tests.integration.netboots import SERVER, Server, wait_for
from tests.integration.places import Netns, run

pytestmark = pytest.mark.board
SID = "02c00081-1111-2222-3333-000044556677"
ADDRESS = "192.168.77.20"
ROUTER = "192.168.77.254"
# Asks as a board or a PXE client does (RFC 2131, RFC 4578), and says all that comes within some seconds. The second
# word is the vendor class.
CLIENT = """
import json, os, socket, struct, sys, time
mac, vendor = bytes.fromhex(sys.argv[1].replace(":", "")), sys.argv[2].encode()
asked = os.urandom(4)
options = b"\\x35\\x01\\x01" + b"\\x3c" + bytes([len(vendor)]) + vendor + b"\\x5d\\x02\\x00\\x15"
options += b"\\x61\\x11\\x00" + bytes(16) + b"\\x5e\\x03\\x01\\x03\\x00" + b"\\x37\\x05\\x01\\x03\\x36\\x3c\\x43\\xff"
head = struct.pack("!4B4sHH16s16s64s128s", 1, 1, 6, 0, asked, 0, 0x8000, b"", mac, b"", b"")
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
port.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
port.bind(("", 68))
end, again, heard = time.monotonic() + float(sys.argv[3]), 0.0, {}
while time.monotonic() < end:
    if time.monotonic() > again:
        port.sendto(head + b"\\x63\\x82\\x53\\x63" + options, ("255.255.255.255", 67))
        again = time.monotonic() + 1
    port.settimeout(0.2)
    try:
        data, sender = port.recvfrom(4096)
    except TimeoutError:
        continue
    if data[4:8] != asked:
        continue
    found, place = {}, 240
    while data[place] != 255:
        length = data[place + 1]
        found[data[place]] = data[place + 2 : place + 2 + length]
        place += 2 + length
    heard[sender[0]] = {
        "address": socket.inet_ntoa(data[16:20]),
        "server": socket.inet_ntoa(data[20:24]),
        "file": (found.get(67) or data[108:236]).rstrip(b"\\0").decode(),
        "vendor": found.get(60, b"").decode(),
    }
print(json.dumps(heard))
"""
LISTENS = 6  # seconds; both answer within one


@pytest.fixture
def server() -> Iterator[Server]:
    """The boot server as the role makes it, asked to be a proxy; the network's own DHCP server; a client."""
    path, digest = netboots.published()
    with netboots.boot_server() as made:
        common = {
            "board_netboot_interface": "boards0",
            "board_netboot_server_address": f"{SERVER}/24",
            "board_netboot_dir": str(made.store),
            "board_netboot_dhcp": "proxy",
            "board_netboot_images": [{"name": "one", "src": str(path), "sha256": digest}],
            "board_netboot_services": False,
            "board_netboot_unit_dir": str(made.folder / "units"),
            "board_netboot_authorized_keys": [(made.folder / "key.pub").read_text().strip()],
            "board_netboot_cache_dir": str(made.folder / "cache"),
            "board_netboot_image": "one",
        }
        board = {"board_netboot_mac": netboots.mac_of(SID), "board_netboot_address": ADDRESS}
        netboots.write_inventory(made, common, {"left": board})
        others = [neighbour(made, "router", f"{ROUTER}/24"), neighbour(made, "client", "")]
        try:
            yield made
        finally:
            for other in others:
                run(["ip", "netns", "delete", other.name])


def place_of(server: Server, name: str) -> Netns:
    return Netns(f"{server.place.name}-{name}", "eth0")


def neighbour(server: Server, name: str, address: str) -> Netns:
    """Another machine in the boards' network."""
    made = place_of(server, name)
    run(["ip", "netns", "add", made.name])
    words = f"link add to-{name} type veth peer name eth0 netns {made.name}"
    server.place.run(["ip", *words.split()])
    server.place.run(["ip", "link", "set", f"to-{name}", "master", "boards0", "up"])
    made.run(["ip", "link", "set", "eth0", "up"])
    if address:
        made.run(["ip", "address", "add", address, "dev", "eth0"])
    return made


def start_router(server: Server) -> None:
    """The network's own DHCP server, which knows nothing of boards."""
    router = place_of(server, "router")
    words = ["dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--port=0", "--log-facility=-", "--log-dhcp"]
    words += ["--interface=eth0", "--bind-interfaces", "--dhcp-range=192.168.77.100,192.168.77.120,255.255.255.0,1h"]
    words += [f"--dhcp-leasefile={server.folder}/router.leases", f"--pid-file={server.folder}/router.pid"]
    server.spawn(["ip", "netns", "exec", router.name, *words], server.folder / "router.log")
    wait_for(
        lambda: router.run(["ss", "-Hlun", "sport = :67"]).stdout.strip() != "",
        60,
        (server.folder / "router.log").read_text,
    )


def heard(server: Server, vendor: str) -> dict[str, Any]:
    """Who answers a client of this vendor class, and what."""
    argv = ["/usr/bin/python3", "-c", CLIENT, netboots.mac_of(SID), vendor, str(LISTENS)]
    said: dict[str, Any] = json.loads(place_of(server, "client").run(argv).stdout)
    return said


def test_a_proxy_leaves_addresses_to_the_networks_own_server(server: Server) -> None:
    server.playbook("netboot")
    start_router(server)
    alone = heard(server, "U-Boot.armv7")
    assert set(alone) == {ROUTER}, "the role has started nothing yet"

    server.start("dnsmasq")
    wait_for(lambda: server.listens("-lu", "sport = :67"), 60, (server.folder / "dnsmasq.log").read_text)
    board = heard(server, "U-Boot.armv7")
    given = board[ROUTER]["address"]
    assert given.startswith("192.168.77.1") and set(board) == {ROUTER}, board
    client = heard(server, "PXEClient:Arch:00021:UNDI:003000")
    assert set(client) == {ROUTER, SERVER}, client
    assert client[ROUTER]["address"] == given and client[ROUTER]["file"] == ""
    assert client[SERVER]["address"] == "0.0.0.0", "a proxy gives no addresses"
    assert client[SERVER]["vendor"] == "PXEClient"

    # What the card's script asks for, it has to be told the server's address alone.
    asks = place_of(server, "client")
    asks.run(["ip", "address", "add", f"{given}/24", "dev", "eth0"])
    name = f"pxelinux.cfg/01-{netboots.mac_of(SID).replace(':', '-')}"
    got = asks.run(["curl", "-sSf", "--max-time", "60", f"tftp://{SERVER}/{name}"]).stdout
    assert "kernel /images/one/kernel" in got and f"netboot.address={ADDRESS}/24" in got, got
    kernel = run(
        ["ip", "netns", "exec", asks.name, "sh", "-c", f"curl -sSf tftp://{SERVER}/images/one/kernel|sha256sum"]
    )
    assert (
        kernel.stdout.split()[0] == hashlib.sha256((server.store / "tftp/images/one/kernel").read_bytes()).hexdigest()
    )
