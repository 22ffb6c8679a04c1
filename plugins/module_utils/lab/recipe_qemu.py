# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file system, kernel and initial ramdisk of nodes under QEMU: as UML's, with Debian's generic kernel."""

from __future__ import annotations

from .recipe import FINISH, PACKAGES, WITHOUT, Recipe, files

# Drivers of hardware that a virtual node has not: two thirds of the kernel's package.
NO_DRIVERS = ("bluetooth", "comedi", "gpu", "hwmon", "iio", "infiniband", "isdn", "media", "mtd", "platform", "staging")
NO_FOLDERS = (
    *(f"drivers/{folder}" for folder in NO_DRIVERS),
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/scsi/*",  # its subfolders are controllers; USB storage needs what lies beside them
    "sound",
)
VIRTUAL_FUNCTIONS = "/lib/modules/*/kernel/drivers/net/ethernet/intel/igb*"  # of the card that QEMU has with SR-IOV

# What finds the disk and the network; everything else is loaded by the kernel when it is asked for.
BOOT_MODULES = ("crc32c_generic", "virtio_pci", "virtio_blk", "virtio_net", "ext4")

# The names ethN are taken away at once, so that each of them can be asked for. QEMU has the devices in the asked order,
# those with virtual functions (Intel's 82576) last.
INIT = r"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || exec /bin/busybox sh
if /bin/busybox grep -q 0x10c9 /sys/bus/pci/devices/*/device; then /bin/busybox chroot /root /sbin/modprobe igb; fi
for device in /sys/class/net/eth*; do /bin/busybox ip link set "${device##*/}" name "vec${device##*/eth}"; done
/bin/busybox umount /sys
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/lab-init
"""

# A shell for whoever connects to the serial port's socket.
CONSOLE = r"""while :; do setsid --ctty --wait bash -i; done < /dev/ttyS0 > /dev/ttyS0 2>&1 &
"""

# The kernel as packed, and a ramdisk of one program and a handful of modules, in the order of their dependencies.
BOOT = rf"""set -e
RELEASE=$(ls "$1"/usr/lib/modules)
cp "$1/boot/vmlinuz-$RELEASE" "${{IMAGE%.ext4}}.vmlinuz"
ramdisk="$IMAGE.ramdisk"
mkdir -p "$ramdisk/bin" "$ramdisk/dev" "$ramdisk/modules" "$ramdisk/root" "$ramdisk/sys"
cp "$1/bin/busybox" "$ramdisk/bin"
cat > "$ramdisk/init" <<'END'
{INIT}END
chmod 755 "$ramdisk/init"
number=100
for module in {" ".join(BOOT_MODULES)}; do
    chroot "$1" modprobe --set-version "$RELEASE" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ {{print $2}}' | while read -r path; do
    cp "$1/$path" "$ramdisk/modules/$number-${{path##*/}}"
    number=$((number + 1))
done
(cd "$ramdisk" && find . | ./bin/busybox cpio -o -H newc) > "${{IMAGE%.ext4}}.initrd"
"""

QEMU = Recipe(
    "qemu",
    (*PACKAGES, "linux-image-amd64", "busybox-static", "dnsmasq-base", "usbip"),
    (*WITHOUT, *(f"/lib/modules/*/kernel/{folder}/*" for folder in NO_FOLDERS)),
    files("vd", CONSOLE),
    BOOT + FINISH,
    beside=(".vmlinux", ".initrd"),
    options=(f"--dpkgopt=path-include={VIRTUAL_FUNCTIONS}",),
)
