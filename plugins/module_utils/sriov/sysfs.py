# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The device behind an interface and those of its VFs, by sysfs (Documentation/ABI/testing/sysfs-bus-pci).

A device may be none of PCI (netdevsim): then there are numbers of VFs, and no devices for them.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .. import programs
from ..errors import MissingCapability

NET = Path("/sys/class/net")
PCI = Path("/sys/bus/pci")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: Path, value: str) -> None:
    """Raises OSError with the kernel's reason: sysfs refuses in write or in close."""
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def device(interface: str) -> Path:
    return NET / interface / "device"


def down(interface: str) -> bool:
    """Whether it is set down (IFF_UP, linux/if.h)."""
    flags = _read(NET / interface / "flags")
    return flags is not None and not int(flags, 16) & 1


def count_file(interface: str) -> Path:
    return device(interface) / "sriov_numvfs"


def count(interface: str) -> int | None:
    """VFs that there are; None where the device has no SR-IOV."""
    found = _read(count_file(interface))
    return None if found is None else int(found)


def most(interface: str) -> int | None:
    """VFs that there can be, where the device tells."""
    found = _read(device(interface) / "sriov_totalvfs")
    return None if found is None else int(found)


def autoprobe_file(interface: str) -> Path | None:
    """Whether drivers take VFs by themselves; None for devices of another bus than PCI."""
    path = device(interface) / "sriov_drivers_autoprobe"
    return path if path.exists() else None


def address(interface: str, number: int) -> str | None:
    """Of a VF's own device, such as 0000:01:10.0; None where there is none."""
    try:
        return os.path.basename(os.readlink(device(interface) / f"virtfn{number}"))
    except OSError:
        return None


def driver(vf: str) -> str:
    """Of the device with this address; "" where none is bound."""
    try:
        return os.path.basename(os.readlink(PCI / "devices" / vf / "driver"))
    except OSError:
        return ""


def unbind(vf: str) -> None:
    if driver(vf):
        write(PCI / "devices" / vf / "driver/unbind", vf)


def bind(vf: str, wanted: str | None) -> None:
    """Have a driver take a device: the one named, or any that says it can. Its module is loaded: udev may be slow.

    Raises MissingCapability where none took it although one was asked for.
    """
    folder = PCI / "devices" / vf
    write(folder / "driver_override", wanted or "\n")
    programs.run(["modprobe", "-q", "--", wanted or _read(folder / "modalias") or ""])
    if wanted and driver(vf) != wanted:  # a driver that has just been loaded for another VF takes all that it can
        unbind(vf)
    if not driver(vf):
        try:
            write(PCI / "drivers_probe", vf)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENODEV):  # no driver, which is told below
                raise
    if wanted and driver(vf) != wanted:
        raise MissingCapability(
            f"the VF {vf}",
            f"the driver {wanted}",
            "see dmesg; vfio-pci wants an IOMMU (intel_iommu=on)" if wanted == "vfio-pci" else "see dmesg",
        )
