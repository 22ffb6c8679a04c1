# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node's kernel can do with USB: drivers that it has, or has a module of. None is loaded by asking."""

from __future__ import annotations

import os

from .. import programs

# Capability → kernel module and option.
DRIVERS = {
    "usb.usbip_host": ("usbip-host", "CONFIG_USBIP_HOST"),
    "usb.vhci_hcd": ("vhci-hcd", "CONFIG_USBIP_VHCI_HCD"),
    "usb.usbmon": ("usbmon", "CONFIG_USB_MON"),
}


def capabilities() -> dict[str, bool | str]:
    """Name → True, or what is missing."""
    return {name: there(module) or f"{option} (kernel module {module})" for name, (module, option) in DRIVERS.items()}


def there(module: str) -> bool:
    """Whether the kernel has a driver, or a module of it."""
    if os.path.isdir(f"/sys/module/{module.replace('-', '_')}"):
        return True
    return programs.find("modprobe") is not None and not programs.run(["modprobe", "-n", "-q", module]).returncode
