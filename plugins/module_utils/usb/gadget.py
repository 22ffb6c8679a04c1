# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A USB device that the node itself is: configfs, as in the kernel's Documentation/usb/gadget_configfs.rst."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..converge import Step
from ..errors import MissingCapability, StepFailed, TestbedError
from ..programs import run
from . import held

CONFIGFS = Path("/sys/kernel/config")
CONTROLLERS = Path("/sys/class/udc")
PREFIX = "impair-"  # of the names of our gadgets; all others are somebody else's
STRINGS = "strings/0x409"  # English, as everybody writes
CONFIG = "configs/c.1"
CLOSED = 20.0  # seconds that programs of the node may take to see that they were unplugged
DUMMY = "dummy_udc."  # controllers of dummy_hcd, which is a host controller with a device controller wired to it

VALUES = ("idVendor", "idProduct", "bcdDevice", "bDeviceClass", "bDeviceSubClass", "bDeviceProtocol")
TEXTS = ("manufacturer", "product", "serialnumber")
KINDS: Mapping[str, tuple[str, ...]] = {
    "mass_storage": ("lun.0/removable", "lun.0/ro", "lun.0/file"),
    "acm": (),
    "hid": ("protocol", "subclass", "report_length", "report_desc"),
}


class Gadget(NamedTuple):
    """A gadget in configfs. `values` are files below it and what they hold, without the kernel's newline;
    `functions` stand in the order of their interfaces, which their names end with; `udc` is "" where it is unplugged.
    """

    values: Mapping[str, bytes]
    functions: tuple[str, ...]
    udc: str = ""
    links: tuple[str, ...] | None = None  # functions of its configuration; None: all

    def same(self, wanted: Gadget) -> bool:
        """Whether this is the wanted device, wherever it is plugged in; its medium may be ejected."""
        return (self.functions, self.linked) == (wanted.functions, wanted.linked) and all(
            self.values.get(path) == value or (_is_medium(path) and not self.values.get(path))
            for path, value in wanted.values.items()
        )

    @property
    def linked(self) -> tuple[str, ...]:
        """The functions of its configuration."""
        return self.functions if self.links is None else self.links


class State(NamedTuple):
    """Our gadget, None where there is none, and what it stands among."""

    gadget: Gadget | None
    ready: bool = True  # configfs is mounted and knows gadgets
    mounted: bool = True
    controllers: Mapping[str, str] = {}  # device controllers → what is plugged into them, "" for nothing


class GadgetDomain:
    """One gadget of ours, by its name."""

    name = "gadget"

    def __init__(self, name: str, configfs: Path = CONFIGFS, controllers: Path = CONTROLLERS) -> None:
        self._configfs = configfs
        self._path = configfs / "usb_gadget" / f"{PREFIX}{name}"
        self._controllers = controllers

    def observe(self) -> State:
        """What stands. A file that vanishes meanwhile counts as empty."""
        gadgets = self._path.parent
        mounted = self._configfs.is_mount() or gadgets.is_dir()
        taken = {_text(path / "UDC"): path.name for path in _folders(gadgets)}
        controllers = {
            path.name: taken.get(path.name) or _text(path / "function") for path in _folders(self._controllers)
        }
        return State(self._observe_gadget(), gadgets.is_dir(), mounted, controllers)

    def _observe_gadget(self) -> Gadget | None:
        if not self._path.is_dir():
            return None
        functions = tuple(sorted((path.name for path in _folders(self._path / "functions")), key=_position))
        files = [*VALUES, *(f"{STRINGS}/{text}" for text in TEXTS)]
        for name in functions:
            files += [f"functions/{name}/{file}" for file in KINDS.get(name.partition(".")[0], ())]
        values = {file: _bytes(self._path / file) for file in files}
        linked = (path.name for path in _folders(self._path / CONFIG) if path.is_symlink())
        return Gadget(values, functions, _text(self._path / "UDC"), tuple(sorted(linked, key=_position)))

    def plan(self, current: State, desired: State) -> list[Step]:
        """A device that differs is unplugged and made anew; only its controller and an ejected medium are changed live.

        Raises MissingCapability where there is no device controller, TestbedError where the wanted one is in use.
        """
        found, wanted = current.gadget, desired.gadget
        if wanted is None:
            return self._remove(found, retire=True) if found else []
        udc = self._controller(current, wanted.udc)
        if found and found.same(wanted):
            steps = [self._write(file, wanted.values[file]) for file in _ejected(found, wanted)]
            if found.udc != udc:
                caution = "disruptive: the host sees the device unplugged" if found.udc else ""
                steps += self._unplug(found, caution) if found.udc else []
                steps.append(self._write("UDC", udc.encode()))
            return steps
        return [
            *(self._remove(found) if found else []),
            *self._prepare(current, udc),
            *self._make(wanted),
            self._write("UDC", udc.encode()),
        ]

    def _controller(self, current: State, asked: str) -> str:
        """The device controller to plug into."""
        ours = current.gadget.udc if current.gadget else ""
        if not asked:
            free = [name for name, taken in current.controllers.items() if not taken]
            chosen = ours or next(iter(sorted(free, key=lambda name: (name.startswith(DUMMY), name))), "")
            if chosen:
                return chosen
            held = "; ".join(f"{name} is held by {taken}" for name, taken in current.controllers.items())
            raise MissingCapability(
                "a USB device",
                "a free USB device controller in /sys/class/udc" + (f" ({held})" if held else ""),
                f"a board needs its OTG port in peripheral mode; {DUMMY}0 is one without hardware",
            )
        taken = current.controllers.get(asked)
        if taken is None and not (asked.startswith(DUMMY) and not any(map(_is_dummy, current.controllers))):
            there = ", ".join(current.controllers) or "none"
            raise TestbedError(f"usb_gadget_udc: there is no USB device controller {asked}; this node has {there}")
        if taken and asked != ours:
            raise TestbedError(f"usb_gadget_udc: {asked} is held by {taken}; unplug that first, or name another one")
        return asked

    def _prepare(self, current: State, udc: str) -> list[Step]:
        steps = []
        if udc not in current.controllers:
            steps.append(_program("modprobe", "dummy_hcd"))
        if not current.ready:
            steps.append(_program("modprobe", "libcomposite"))
        if not current.mounted:
            steps.append(_program("mount", "-t", "configfs", "none", str(self._configfs)))
        return steps

    def _make(self, gadget: Gadget) -> list[Step]:
        folders = ["", STRINGS, "configs", CONFIG, *(f"functions/{name}" for name in gadget.functions)]
        return [
            *(self._folder("mkdir", folder) for folder in folders if folder != "configs"),
            *(self._write(file, value) for file, value in gadget.values.items()),
            *(self._link(name) for name in gadget.functions),
        ]

    def _remove(self, gadget: Gadget, retire: bool = False) -> list[Step]:
        caution = "disruptive: the host sees the device unplugged" if gadget.udc else ""
        return [
            step._replace(retire=retire)
            for step in (
                *(self._unplug(gadget, caution) if gadget.udc else []),
                *(self._folder("rm", f"{CONFIG}/{name}") for name in gadget.linked),
                *(
                    self._folder("rmdir", folder)
                    for folder in (CONFIG, *(f"functions/{name}" for name in gadget.functions))
                ),
                self._folder("rmdir", STRINGS),
                self._folder("rmdir", ""),
            )
        ]

    def _unplug(self, gadget: Gadget, caution: str) -> list[Step]:
        """Its HIDs have to be closed before they are removed or plugged in again: else Linux 6.1 puts an object into
        its lists that is in use already, and fails sooner or later (cdev_init() in hidg_bind() of f_hid.c).
        """
        hids = [f"functions/{name}" for name in gadget.functions if name.startswith("hid.")]
        closed = (self._path / hid / "dev" for hid in hids)
        return [
            self._write("UDC", b"", caution),
            *(Step(f"wait until nobody has {path.parent.name} open", ("wait", path, b"")) for path in closed),
        ]

    def _write(self, file: str, value: bytes, caution: str = "") -> Step:
        path = self._path / file
        return Step(f"{_echo(value)} > {shlex.quote(str(path))}", ("write", path, value or b"\n"), caution=caution)

    def _folder(self, verb: str, name: str) -> Step:
        path = self._path / name
        return Step(f"{verb} {shlex.quote(str(path))}", (verb, path, b""))

    def _link(self, name: str) -> Step:
        target, path = self._path / "functions" / name, self._path / CONFIG / name
        return Step(f"ln -s {shlex.quote(str(target))} {shlex.quote(str(path))}", ("ln", path, os.fsencode(target)))

    def apply(self, steps: Sequence[Step]) -> None:
        """Carry the steps out; the kernel answers each at once."""
        for step in steps:
            verb, what, value = step.payload
            if verb == "run":
                _run(what)
                continue
            try:
                if verb == "wait":
                    _wait_until_closed(step, what)
                else:
                    _change(verb, what, value)
            except OSError as error:
                raise _refusal(step, verb, what, error) from error

    def describe(self, state: State) -> list[str]:
        """A line for the device and one for each function."""
        gadget = state.gadget
        if gadget is None:
            return []
        value = {file: text.decode(errors="replace") for file, text in gadget.values.items()}
        identity = f"{value.get('idVendor', '')}:{value.get('idProduct', '')}".replace("0x", "")
        serial = value.get(f"{STRINGS}/serialnumber", "")
        plugged = f"plugged into {gadget.udc}" if gadget.udc else "not plugged in"
        lines = [f"gadget {self._path.name.removeprefix(PREFIX)}: {identity} serial {serial}, {plugged}"]
        for name in gadget.functions:
            files = {
                file: gadget.values.get(f"functions/{name}/{file}", b"")
                for file in KINDS.get(name.partition(".")[0], ())
            }
            shown = (f"{file.rpartition('/')[2]} {_shown(text)}" for file, text in files.items())
            lines.append(" ".join((f"{name}:", *shown)).rstrip(":"))
        return lines


def _is_medium(path: str) -> bool:
    return path.endswith("/lun.0/file")


def _is_dummy(controller: str) -> bool:
    return controller.startswith(DUMMY)


def _ejected(found: Gadget, wanted: Gadget) -> list[str]:
    return [path for path in wanted.values if _is_medium(path) and not found.values.get(path) and wanted.values[path]]


def _position(function: str) -> tuple[int, str]:
    """Our functions are numbered in the order of their interfaces."""
    number = function.rpartition(".")[2]
    return (int(number) if number.isdigit() else -1, function)


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _bytes(path: Path) -> bytes:
    """What a file holds, without the newline that the kernel adds to texts."""
    try:
        held = path.read_bytes()
    except OSError:
        return b""
    return held if path.name == "report_desc" else held.rstrip(b"\n")


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace").strip()


def _echo(value: bytes) -> str:
    """The command that writes this, as a shell takes it."""
    if value.isascii() and value.decode("ascii").isprintable():
        return f"echo {shlex.quote(value.decode('ascii'))}" if value else "echo ''"
    return "printf '" + "".join(f"\\{byte:03o}" for byte in value) + "'"


def _shown(value: bytes) -> str:
    return value.decode() if value.isascii() and value.decode("ascii").isprintable() else value.hex()


def _program(*argv: str) -> Step:
    return Step(shlex.join(argv), ("run", argv, b""))


def _run(argv: Sequence[str]) -> None:
    done = run(argv)
    if done.returncode == 0:
        return
    if argv[0] == "modprobe":
        raise MissingCapability("a USB device", f"the kernel module {argv[1]}", done.stderr.strip())
    raise StepFailed(shlex.join(argv), done.stderr.strip() or f"exit {done.returncode}")


def _wait_until_closed(step: Step, path: Path) -> None:
    number = _text(path)
    try:
        if number:
            held.wait_until_closed(number, CLOSED)
    except TestbedError as error:
        raise StepFailed(step.command, str(error)) from error


def _change(verb: str, path: Path, value: bytes) -> None:
    if verb == "mkdir":
        path.mkdir()
    elif verb == "rmdir":
        path.rmdir()
    elif verb == "rm":
        path.unlink()
    elif verb == "ln":
        path.symlink_to(os.fsdecode(value))
    else:
        # One write(2): the kernel takes each as a whole value.
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, value)
        finally:
            os.close(descriptor)


def _refusal(step: Step, verb: str, path: Path, error: OSError) -> TestbedError:
    if verb == "mkdir" and path.parent.name == "functions" and isinstance(error, FileNotFoundError):
        kind = path.name.partition(".")[0]
        option = {"mass_storage": "MASS_STORAGE", "acm": "ACM", "hid": "F_HID"}.get(kind, kind.upper())
        return MissingCapability(
            f"a USB device with {kind}", f"the kernel module usb_f_{kind} (CONFIG_USB_CONFIGFS_{option})"
        )
    return StepFailed(step.command, error.strerror or str(error))
