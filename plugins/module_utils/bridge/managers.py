# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other network managers, told to leave the bridge and its ports to ifupdown.

systemd-networkd takes the first .network file whose [Match] fits, in the order of their names, so that our 00- file
wins over netplan's 10-netplan-*.network (systemd.network(5)); netplan itself only writes files for networkd or
NetworkManager.
NetworkManager adds to its list by `unmanaged-devices+=` (NetworkManager.conf(5)).
Both read the same tree below /run: there our files stand while a change waits for its confirmation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .. import programs
from .files import File

NETWORKD = "/etc/systemd/network/00-impair.testbed.network"
NETWORKMANAGER = "/etc/NetworkManager/conf.d/90-impair.testbed.conf"
PATHS = (NETWORKD, NETWORKMANAGER)
# a file of each that exists exactly when it runs, or when it will run at the next boot
_SIGNS = {
    NETWORKD: ("/run/systemd/netif/state", "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"),
    NETWORKMANAGER: (
        "/run/NetworkManager",
        "/etc/systemd/system/multi-user.target.wants/NetworkManager.service",
    ),
}


def desired(names: Sequence[str], root: str = "") -> list[File]:
    """The drop-in of every manager on this node; text None for the managers that it does not have."""
    texts = {NETWORKD: _networkd(names), NETWORKMANAGER: _networkmanager(names)}
    return [File(path, texts[path] if names and _present(path, root) else None) for path in PATHS]


def runtime(files: Sequence[File]) -> list[File]:
    """The same below /run, which a reboot forgets."""
    return [file._replace(path=file.path.replace("/etc/", "/run/", 1)) for file in files]


def reload(files: Sequence[File]) -> None:
    """Make the running managers read these files again. Failures are left to the check of the links afterwards."""
    for file in files:
        if file.path.endswith(os.path.basename(NETWORKD)) and os.path.exists(_SIGNS[NETWORKD][0]):
            programs.run(["networkctl", "reload"])
        if file.path.endswith(os.path.basename(NETWORKMANAGER)) and os.path.exists(_SIGNS[NETWORKMANAGER][0]):
            programs.run(["nmcli", "general", "reload", "conf"])


def _present(path: str, root: str) -> bool:
    return any(os.path.exists(root + sign) for sign in _SIGNS[path])


def _networkd(names: Sequence[str]) -> str:
    return (
        "# impair.testbed: ifupdown has these interfaces; `playbooks/clear.yml` removes this file\n"
        f"[Match]\nName={' '.join(names)}\n\n[Link]\nUnmanaged=yes\n"
    )


def _networkmanager(names: Sequence[str]) -> str:
    devices = ";".join(f"interface-name:{name}" for name in names)
    return (
        "# impair.testbed: ifupdown has these interfaces; `playbooks/clear.yml` removes this file\n"
        f"[keyfile]\nunmanaged-devices+={devices}\n"
    )
