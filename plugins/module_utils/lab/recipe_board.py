# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of a board's card: Debian for armhf, small, laid out as Armbian does, for boards with Allwinner's H3.

No program of the board's architecture runs while it is built: packages are unpacked and never configured, and the few
things that their scripts would have done stand below.
"""

from __future__ import annotations

from .recipe import PACKAGES, SSHD, WITHOUT, Recipe

SOURCES = ("deb http://deb.debian.org/debian bookworm main",)
ESSENTIAL = (
    *(
        "base-files",
        "base-passwd",
        "bash",
        "coreutils",
        "dash",
        "debianutils",
        "diffutils",
        "findutils",
        "grep",
        "gzip",
    ),
    *("hostname", "init-system-helpers", "libc-bin", "login", "mawk", "passwd", "sed", "tar", "util-linux"),
)
BOARD = ("linux-image-armmp", "u-boot-sunxi", "busybox-static", "openssh-client")

# Two thirds of the kernel's package: drivers of hardware that no board of this kind has.
NO_DRIVERS = ("gpu", "hid", "hwmon", "iio", "infiniband", "input", "md", "media", "scsi", "staging", "target")
NO_FOLDERS = (
    *(f"drivers/{folder}" for folder in NO_DRIVERS),
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "sound",
)
# Nor device trees and boot loaders of all other boards; the pattern that stands last decides.
LEFT_OUT = (
    *(f"--dpkgopt=path-exclude=/lib/modules/*/kernel/{folder}/*" for folder in NO_FOLDERS),
    "--dpkgopt=path-include=/lib/modules/*/kernel/drivers/net/ethernet/stmicro/*",
    "--dpkgopt=path-exclude=/usr/lib/linux-image-*/*.dtb",
    "--dpkgopt=path-include=/usr/lib/linux-image-*/sun8i-h3-*.dtb",
    "--dpkgopt=path-exclude=/usr/lib/u-boot/*",
    "--dpkgopt=path-include=/usr/lib/u-boot/nanopi_neo/*",
)
OPTIONS = (
    *("--arch=armhf", "--variant=extract", "--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh"),
    *LEFT_OUT,
)

# What the ramdisk carries: a card or the network, and what a root file system from the network is made of.
BOOT_MODULES = (
    *("crc32c_generic", "sunxi_mmc", "mmc_block", "ext4", "dwmac_sun8i", "mdio_mux", "af_packet"),
    *("nfs", "nfsv3", "overlay", "squashfs", "loop"),
)
# Everything else is loaded by the kernel when it is asked for. There is no udev, so not what is plugged in:
USB_MODULES = ("phy_sun4i_usb", "ohci_platform", "ehci_platform", "rndis_host")

# Root from the card (root=) or from a server (nfsroot=SERVER:PATH, read-write, the board's address by DHCP).
RAMDISK_INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
modprobe -a crc32c_generic mdio_mux dwmac_sun8i sunxi_mmc mmc_block ext4
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=};; nfsroot=*) nfsroot=${word#nfsroot=};; esac
done
if [ -n "$nfsroot" ]; then
    modprobe -a af_packet nfs nfsv3
    ip link set lo up; ip link set eth0 up
    printf '#!/bin/sh\n[ "$1" = bound ] && ip addr add $ip/${mask:-24} dev $interface\n' >/bin/bound
    chmod 755 /bin/bound
    udhcpc -i eth0 -s /bin/bound -n -q -t 20 -T 1 -A 1 &&
        mount -t nfs -o nolock,vers=3,tcp "$nfsroot" /root || exec sh
else
    tries=0
    while [ ! -b "$root" ] && [ $tries -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
    mount -t ext4 "$root" /root || exec sh
fi
mount -o move /dev /root/dev; umount /proc /sys
exec switch_root /root /sbin/init
"""

INIT = r"""#!/bin/sh
# The first process of a small board: mounts, name, interfaces, ssh, a login on the serial console. No service manager.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
mount -a
mkdir -p /run/sshd /run/network /run/lock
: > /run/utmp
cat /etc/hostname > /proc/sys/kernel/hostname
while :; do setsid agetty -L 115200 ttyS0 vt100; sleep 1; done &

# Adapters come by and by: wait for those that ifup is to have. At most a minute, and more where it is slow.
modprobe -a USB_MODULES
setsid name-adapters &
tries=0
while [ $tries -lt 120 ]; do
    missing=
    for name in $(grep -o 'enx[0-9a-f]\{12\}' /etc/network/interfaces); do
        [ -e "/sys/class/net/$name" ] || missing="$missing $name"
    done
    [ -n "$missing" ] || break
    sleep 0.5
    tries=$((tries + 1))
done
[ -z "$missing" ] || echo "no adapter for$missing"
ifup -a

[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
read -r up rest < /proc/uptime
echo "up after $up s"
# The shell stays to collect orphans, and brings sshd back should it ever end.
while :; do
    /usr/sbin/sshd -D -e
    sleep 1
done
"""

NAME_ADAPTERS = r"""#!/bin/bash
# USB adapters are named as udev would name them, whenever they come: enx and the address. Looks when the kernel tells
# of a link, and every minute: a look every five seconds took a tenth of all time.
# QEMU's adapter can be two things. As CDC Ethernet, which Linux prefers, it reports a change of the link at every poll,
# thirty times a second (seen with QEMU 7.2), which under emulation takes a good part of the time; as RNDIS it does not.
exec 3< <(exec ip -o monitor link)
while :; do
    for device in /sys/bus/usb/devices/*/idProduct; do
        read -r product < "$device" && [ "$product" = a4a2 ] || continue
        read -r configuration < "${device%/*}/bConfigurationValue"
        [ "$configuration" != 1 ] || echo 2 > "${device%/*}/bConfigurationValue"
    done 2>/dev/null
    for device in /sys/class/net/eth* /sys/class/net/usb*; do
        [ -e "$device/device/bInterfaceNumber" ] || continue
        read -r address < "$device/address" && ip link set "${device##*/}" name "enx${address//:/}"
    done
    [ $((rounds += 1)) -gt 20 ] && wait=60
    read -r -t "${wait:-1}" -u 3
    for n in {1..100}; do read -r -t 0.1 -u 3 || break; done
done
"""

# What is asked of the kernel because all of it is emulated.
# One processor starts: four virtual ones on two busy real ones lock up.
# Little memory: vmalloc begins where memory ends, and each module that is loaded has the kernel flush all pages from
# the modules' area to there (flush_tlb_kernel_range), each by an emulated instruction: 71 % of a boot with 1 GB.
EXTRA = "maxcpus=1 mem=192M"

FSTAB = """/dev/root / auto defaults 0 0
proc /proc proc defaults 0 0
sysfs /sys sysfs defaults 0 0
run /run tmpfs mode=0755,nosuid,nodev 0 0
tmp /tmp tmpfs nosuid,nodev 0 0
devpts /dev/pts devpts gid=5,mode=0620,ptmxmode=0666 0 0
shm /dev/shm tmpfs nosuid,nodev 0 0
"""

BOOT = """setenv load_addr "0x45000000"
setenv rootdev "/dev/mmcblk0p1"
setenv rootfstype "ext4"
setenv verbosity "4"
setenv fdtfile "sun8i-h3-nanopi-neo.dtb"
echo "Boot script loaded from ${devtype} ${devnum}"
if test -e ${devtype} ${devnum} ${prefix}armbianEnv.txt; then
  load ${devtype} ${devnum} ${load_addr} ${prefix}armbianEnv.txt
  env import -t ${load_addr} ${filesize}
fi
setenv bootargs "root=${rootdev} rootwait rootfstype=${rootfstype} console=ttyS0,115200 loglevel=${verbosity}"
setenv bootargs "${bootargs} ${extraargs}"
load ${devtype} ${devnum} ${fdt_addr_r} ${prefix}dtb/${fdtfile}
load ${devtype} ${devnum} ${kernel_addr_r} ${prefix}zImage
load ${devtype} ${devnum} ${ramdisk_addr_r} ${prefix}uInitrd
bootz ${kernel_addr_r} ${ramdisk_addr_r} ${fdt_addr_r}
"""

# What is the same whatever starts on the board.
CARD_FILES = {
    "etc/hostname": (0o644, "nanopineo\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost\n127.0.1.1 nanopineo\n::1 localhost\n"),
    "etc/network/interfaces": (0o644, "auto lo\niface lo inet loopback\n"),
    "boot/boot.cmd": (0o644, BOOT),
    "boot/armbianEnv.txt": (
        0o644,
        f"verbosity=1\nbootlogo=false\nfdtfile=sun8i-h3-nanopi-neo.dtb\nextraargs={EXTRA}\n",
    ),
    "root/.not_logged_in_yet": (0o644, ""),
}
FILES = {
    **CARD_FILES,
    "etc/fstab": (0o644, FSTAB),
    "sbin/init": (0o755, INIT.replace("USB_MODULES", " ".join(USB_MODULES))),
    "sbin/name-adapters": (0o755, NAME_ADAPTERS),
    "etc/nsswitch.conf": (0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
    "etc/ssh/sshd_config": (0o644, SSHD + "Subsystem sftp /usr/lib/openssh/sftp-server\n"),
}

# Makes the card's image of the new root, in which it runs: `release` is the kernel's, whose ramdisk lies in boot, and
# `size` the image's, in MiB.
CARD = r"""
mkimage -A arm -T ramdisk -C gzip -n uInitrd -d "boot/initrd.img-$release" "boot/uInitrd-$release" >/dev/null
mkimage -A arm -T script -C none -n boot.scr -d boot/boot.cmd boot/boot.scr >/dev/null
mkdir "boot/dtb-$release"
cp "usr/lib/linux-image-$release"/*.dtb "boot/dtb-$release"
ln -s "dtb-$release" boot/dtb
ln -s "vmlinuz-$release" boot/zImage
ln -s "uInitrd-$release" boot/uInitrd
rm -rf var/lib/apt/lists/* var/cache/apt/* var/log/* "boot/System.map-$release"

label='label: dos\nlabel-id: 0x20260721\nstart=8192, type=83\n'
truncate -s "${size}M" "$IMAGE"
printf "$label" | sfdisk -q "$IMAGE"
plain="$IMAGE.root"
mkdir "$plain"
mount --bind "$1" "$plain"
mke2fs -q -F -t ext4 -b 4096 -L armbi_root -O ^64bit,^metadata_csum \
    -E offset=4194304,lazy_itable_init=1,root_owner=0:0 -d "$plain" "$IMAGE" "$((size - 4))M"
umount "$plain"
dd if=usr/lib/u-boot/nanopi_neo/u-boot-sunxi-with-spl.bin of="$IMAGE" bs=1024 seek=8 conv=notrunc status=none
"""

# As FINISH of recipe.py, but that nothing of $1 can run here. python3 of the host compiles for that of the image where
# both are of one version.
FINISH = rf"""set -e
cd "$1"
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
echo 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' >> etc/passwd
sed -i 's/^root:[^:]*:/root:x:/' etc/passwd
sed 's/:.*/:*:19000:0:99999:7:::/' etc/passwd > etc/shadow
chown 0:42 etc/shadow
chmod 640 etc/shadow
for name in auth account password session; do echo "$name required pam_unix.so" > "etc/pam.d/common-$name"; done
cp etc/skel/.bashrc etc/skel/.profile root
ln -sf mawk usr/bin/awk
for name in iptables ip6tables ebtables; do
    for end in '' -save -restore; do ln -sf "$name-nft$end" "usr/sbin/$name$end"; done
done
depmod -b . "$(ls usr/lib/modules)"
target=$(readlink usr/bin/python3)
! command -v "$target" >/dev/null ||
    "$target" -m compileall -q -x 'test/|lib2to3' -s . -p / usr/lib/python3 "usr/lib/$target" >/dev/null

release=$(ls usr/lib/modules)
ramdisk="$IMAGE.ramdisk"
mkdir -p "$ramdisk/bin" "$ramdisk/dev" "$ramdisk/proc" "$ramdisk/root" "$ramdisk/sys" "$ramdisk/etc"
cp bin/busybox "$ramdisk/bin"
cat > "$ramdisk/init" <<'END'
{RAMDISK_INIT}END
chmod 755 "$ramdisk/init"
for module in {" ".join(BOOT_MODULES)}; do
    modprobe -d "$1" --set-version "$release" --show-depends "$module"
done | sed -n "s,^insmod .*/\(lib/modules/[^ ]*\).*,\1,p" | sort -u | while read -r path; do
    mkdir -p "$ramdisk/${{path%/*}}"
    cp "$path" "$ramdisk/$path"
done
cp "lib/modules/$release"/modules.order "lib/modules/$release"/modules.builtin* "$ramdisk/lib/modules/$release"
depmod -b "$ramdisk" "$release"
(cd "$ramdisk" && find . > "$ramdisk.list" && cpio --quiet -o -H newc -R 0:0 < "$ramdisk.list" > "$ramdisk.cpio")
gzip -c -n "$ramdisk.cpio" > "boot/initrd.img-$release"
size=384
{CARD}"""

BOARD_IMAGE = Recipe(
    "board",
    (*PACKAGES, *ESSENTIAL, *BOARD),
    WITHOUT,
    FILES,
    FINISH,
    suffix=".img",
    options=OPTIONS,
    hook="extract",
    sources=SOURCES,
)
