# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initial ramdisk that a board starts over the network: busybox and kernel modules of its image, and one script.

No program of the board's architecture is run to make it, and the same image gives the same bytes.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import InvalidInput, MissingCapability, StepFailed, TestbedError
from . import elf

# What the script below mounts: always, and for what is kept. A kernel that has one of them built in needs no file.
MOUNTS = ("nfsv4", "overlay")
KEEPS = ("crc32c_generic", "ext4")
BUSYBOX = ("bin/busybox", "usr/bin/busybox")
MODULES = ("lib/modules", "usr/lib/modules")
LIBRARIES = ("lib", "usr/lib", "lib/*", "usr/lib/*")

# Every wait ends with a reason on the console and another attempt: a board comes up by itself when its server does.
INIT = r"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /bin /dev /proc /run /sys /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755,nosuid,nodev run /run
exec >/dev/console 2>&1 </dev/console

fail() {
    echo "netboot: $*; starting again in 20 s"
    sleep 20
    reboot -f
}

# Try the command every half second, for some seconds.
within() {
    tries=$(($1 * 2)); shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.5
    done
}

init=/sbin/init overlay=tmpfs
for word in $(cat /proc/cmdline); do
    value=${word#*=}
    case $word in
        netboot.server=*) server=$value ;;
        netboot.store=*) store=$value ;;
        netboot.image=*) image=$value ;;
        netboot.board=*) board=$value ;;
        netboot.mac=*) mac=$value ;;
        netboot.address=*) address=$value ;;
        netboot.gateway=*) gateway=$value ;;
        netboot.overlay=*) overlay=$value ;;
        init=*) init=$value ;;
    esac
done

# NFS 4 knows its clients by their names (nfs4_init_uniform_client_string): two of one name throw each other out.
hostname "$board"
load() { for module in "/modules/$1"/*; do [ ! -e "$module" ] || insmod "$module"; done; }
load start
[ "$overlay" = tmpfs ] || load "$overlay"

interface() { device=$(grep -il "^$mac\$" /sys/class/net/*/address); }
carrier() { [ "$(cat "$device/carrier" 2>/dev/null)" = 1 ]; }
# What lies there changes for a board at its next boot, so nothing is asked twice: a tenth of the calls that way.
options=vers=4.1,proto=tcp,hard,nocto,actimeo=86400,addr=$server,clientaddr=${address%/*}
nfs() { mount -t nfs4 -o "$1,$options" "$server:$store/$2" "$3"; }
label() { disk=$(findfs LABEL=netboot); }

within 20 interface || fail "no interface has the MAC $mac; is its driver among board_netboot_modules?"
device=${device%/address}
ip link set lo up
ip link set "${device##*/}" up
ip address add "$address" dev "${device##*/}"
within 30 carrier || fail "${device##*/} has no carrier; is the cable in?"
[ -z "$gateway" ] || ip route add default via "$gateway"

mkdir -p /run/netboot/image /run/netboot/board /run/netboot/changes
cd /run/netboot || fail "there is no /run"
within 60 nfs ro "images/$image" image || fail "$server does not give the image $image"
if [ "$overlay" = server ]; then access=rw; else access=ro; fi
within 60 nfs "$access" "boards/$board" board || fail "$server does not give the files of $board"
case $overlay in
    tmpfs) mount -t tmpfs -o mode=0755 changes changes ;;
    server) mount -t ext4 -o loop board/changes.ext4 changes ;;
    card) within 20 label && mount -t ext4 "$disk" changes ;;
esac || fail "changes cannot be kept on: $overlay"
# What was changed on one image is not mixed with another: the kernel does not define what would come of that.
mkdir -p "changes/$image/upper" "changes/$image/work"
mount -t overlay -o "lowerdir=board/files:image,upperdir=changes/$image/upper,workdir=changes/$image/work" root /root ||
    fail "the kernel cannot lay one file system over the other"
cd /
for folder in dev proc sys run; do
    mkdir -p "/root/$folder"
    mount -o move "/$folder" "/root/$folder"
done
exec switch_root /root "$init"
"""


class Packed(NamedTuple):
    """A file of the ramdisk; a symbolic link where the mode says so."""

    path: str
    mode: int
    content: bytes


class Drivers(NamedTuple):
    """Names of kernel modules."""

    network: tuple[str, ...]
    card: tuple[str, ...]


def build(tree: Path, release: str, drivers: Drivers) -> bytes:
    """The ramdisk for the kernel `release` of an image's root file system, packed by gzip.

    Raises TestbedError where the image lacks what it is made from.
    """
    files = [Packed("init", stat.S_IFREG | 0o755, INIT.encode()), *_busybox(tree)]
    start = _ordered(tree, release, [*drivers.network, *MOUNTS])
    groups = {
        "start": start,
        "server": _ordered(tree, release, ["loop", *KEEPS], start),
        "card": _ordered(tree, release, [*drivers.card, *KEEPS], start),
    }
    for group, paths in groups.items():
        for number, path in enumerate(paths):
            name = f"modules/{group}/{number:03d}-{re.sub(r'[.](xz|gz|zst)$', '', path.name)}"
            files.append(Packed(name, stat.S_IFREG | 0o644, _plain(path)))
    return gzip.compress(cpio(files), 6, mtime=0)


def cpio(files: Sequence[Packed]) -> bytes:
    """The archive that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    folders = sorted({str(parent) for file in files for parent in Path(file.path).parents} - {"."})
    entries = [*(Packed(folder, stat.S_IFDIR | 0o755, b"") for folder in folders), *files]
    entries += [Packed("dev", stat.S_IFDIR | 0o755, b""), Packed("TRAILER!!!", 0, b"")]
    return b"".join(_record(number, entry) for number, entry in enumerate(entries, 1))


def _record(number: int, entry: Packed) -> bytes:
    name = entry.path.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)


def inside(tree: Path, path: str) -> Path | None:
    """A file of the image, where links are followed as the board itself would follow them; None where there is none."""
    found = tree
    parts = [part for part in reversed(path.split("/")) if part]
    for count in range(256):
        if not parts:
            return found if count and found.exists() else None
        part = parts.pop()
        if part == "..":
            found = found if found == tree else found.parent
        elif part != ".":
            found = found / part
            if found.is_symlink():
                target = str(found.readlink())
                found = tree if target.startswith("/") else found.parent
                parts += [piece for piece in reversed(target.split("/")) if piece]
    return None


def _busybox(tree: Path) -> Iterator[Packed]:
    """The program with what its loader needs, below the names by which it is looked for."""
    program = next((found for name in BUSYBOX if (found := inside(tree, name))), None)
    if program is None:
        raise TestbedError("the image has no busybox, which mounts its root file system; take one with it installed")
    content = program.read_bytes()
    yield Packed("bin/busybox", stat.S_IFREG | 0o755, content)
    loader, needed = elf.needed(content)
    if loader:
        yield Packed(loader.lstrip("/"), stat.S_IFREG | 0o755, _library(tree, loader))
    for name in needed:
        yield Packed(f"lib/{name}", stat.S_IFREG | 0o755, _library(tree, name))


def _library(tree: Path, name: str) -> bytes:
    places = [name] if name.startswith("/") else [f"{folder}/{name}" for folder in _folders(tree)]
    for place in places:
        found = inside(tree, place)
        if found:
            return found.read_bytes()
    raise TestbedError(f"the image's busybox needs {name}, which the image does not have; take a whole image")


def _folders(tree: Path) -> list[str]:
    return [
        str(path.relative_to(tree)) for pattern in LIBRARIES for path in sorted(tree.glob(pattern)) if path.is_dir()
    ]


def releases(tree: Path) -> dict[str, Path]:
    """Kernel release → folder of its modules."""
    folder = next((found for name in MODULES if (found := inside(tree, name))), None)
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()} if folder else {}


def _ordered(tree: Path, release: str, wanted: Sequence[str], loaded: Sequence[Path] = ()) -> list[Path]:
    """Files of the modules and of what they need, in the order in which they can be loaded (modules.dep(5)).

    What is `loaded` already is left out.
    """
    folder = releases(tree)[release]
    needs, built_in = _dependencies(folder)
    ordered: dict[str, None] = {}

    def add(path: str) -> None:
        for other in reversed(needs[path]):
            if other not in ordered:
                add(other)
        ordered.setdefault(path)

    by_name = {_name(path): path for path in needs}
    for name in wanted:
        if _name(name) in by_name:
            add(by_name[_name(name)])
        elif _name(name) not in built_in:
            raise InvalidInput(
                "modules", name, f"the image's kernel {release} neither has it as a module nor built in; name its own"
            )
    return [folder / path for path in ordered if folder / path not in loaded]


def _dependencies(folder: Path) -> tuple[dict[str, list[str]], set[str]]:
    """Module → modules that it needs, both as paths; and the names of those that the kernel has in itself."""
    if not (folder / "modules.dep").exists():
        raise TestbedError(f"the image has no {folder.name}/modules.dep; run depmod on it, or take a whole image")
    lines = (folder / "modules.dep").read_text(encoding="utf-8").splitlines()
    needs = {path: others.split() for path, others in (line.split(":", 1) for line in lines)}
    listed = folder / "modules.builtin"
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    return needs, {_name(path) for path in text.split()}


def _name(path: str) -> str:
    """As lsmod has it: kernel/fs/nfs/nfs.ko.xz → nfs."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def _plain(path: Path) -> bytes:
    """A module as the kernel takes it: not every kernel unpacks them."""
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        program = programs.find("zstd")
        if program is None:
            raise MissingCapability("reading the image's modules", "the program zstd", "install zstd")
        done = subprocess.run([program, "-dcq", "--", str(path)], capture_output=True, check=False, timeout=60)
        if done.returncode != 0:
            raise StepFailed(f"zstd -d {path}", done.stderr.decode(errors="replace").strip())
        return done.stdout
    return content
