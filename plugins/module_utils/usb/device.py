# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users ask of a USB device that a node is, as the files of configfs; messages name the role's variables."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import schema, units
from ..errors import InvalidInput
from . import fat
from .gadget import KINDS, STRINGS, TEXTS, Gadget
from .volumes import FOLDER, Volume

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}")
IDENTITY = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})")
TEXT = re.compile(r"[ -~]{1,126}")  # a string descriptor holds 126 characters (USB 2.0, 9.6.7)
CONTROLLER = re.compile(r"[A-Za-z0-9_.:@-]{1,64}")
REPORT_BYTES = 64  # of a full-speed interrupt endpoint, and of CMSIS-DAP
MOST_REPORT_BYTES = 1024

# 64 bytes each way of a vendor's own, as CMSIS-DAP has them (USB Device Class Definition for HID 1.11, 6.2.2).
_REPORTS = "0600ff 0901 a101 1500 26ff00 7508 96{0} 0901 8102 96{0} 0901 9102 c0"


class Asked(NamedTuple):
    """The gadget and the volumes that it needs, by file name."""

    gadget: Gadget
    volumes: dict[str, Volume]


def name(value: object) -> str:
    """The gadget's name."""
    return _matching(NAME, "use a-z, 0-9, _ and -; 16 characters at most")(value, "usb_gadget_name")


def parse(values: Mapping[str, Any]) -> Asked:
    """The gadget out of the module's options. Raises InvalidInput with the place of what cannot be."""
    called = name(values["name"])
    vendor, product = _identity(values["id"])
    texts = {
        "manufacturer": values["manufacturer"],
        "product": values["product"],
        "serialnumber": values["serial"] or f"impair-{called}",
    }
    files = {"idVendor": f"0x{vendor}", "idProduct": f"0x{product}", "bcdDevice": "0x0100"}
    # Of several functions, of which one has two interfaces (USB Interface Association Descriptor class codes).
    files |= {"bDeviceClass": "0xef", "bDeviceSubClass": "0x02", "bDeviceProtocol": "0x01"}
    for text in TEXTS:
        option = {"serialnumber": "serial"}.get(text, text)
        files[f"{STRINGS}/{text}"] = _matching(TEXT, "126 printable ASCII characters at most")(
            texts[text], f"usb_gadget_{option}"
        )
    values_of = {file: value.encode() for file, value in files.items()}

    names: list[str] = []
    volumes: dict[str, Volume] = {}
    if not values["functions"]:
        raise InvalidInput("usb_gadget_functions", [], "a device has at least one function")
    for number, asked in enumerate(values["functions"]):
        path = f"usb_gadget_functions[{number}]"
        kind = schema.choice(*KINDS)(asked.get("kind"), f"{path}.kind")
        function = _FUNCTIONS[kind](asked, path)
        own, volume = _function(kind, function, called)
        names.append(f"{kind}.{number}")
        values_of |= {f"functions/{kind}.{number}/{file}": value for file, value in own.items()}
        volumes |= volume
    udc = (
        _matching(CONTROLLER, "write a name from /sys/class/udc")(values["udc"], "usb_gadget_udc")
        if values["udc"]
        else ""
    )
    return Asked(Gadget(values_of, tuple(names), udc), volumes)


def _function(kind: str, asked: Mapping[str, Any], called: str) -> tuple[dict[str, bytes], dict[str, Volume]]:
    """The function's files, and the volume that it needs."""
    if kind == "hid":
        length = asked.get("report_length", REPORT_BYTES)
        descriptor = asked.get("report_descriptor") or bytes.fromhex(
            _REPORTS.format(length.to_bytes(2, "little").hex())
        )
        numbers = {"protocol": asked.get("protocol", 0), "subclass": asked.get("subclass", 0), "report_length": length}
        return {**{file: b"%d" % value for file, value in numbers.items()}, "report_desc": descriptor}, {}
    if kind == "acm":
        return {}, {}
    volumes = {}
    file = asked.get("file")
    if file is None:
        volume = Volume(asked.get("size", 8 << 20), asked.get("label", "TESTBED"), asked.get("contents", ()))
        own = f"{called}-{hashlib.sha256(repr(volume).encode()).hexdigest()[:12]}.img"
        volumes[own] = volume
        file = str(FOLDER / own)
    flags = {"removable": asked.get("removable", True), "ro": asked.get("read_only", False)}
    return {**{f"lun.0/{flag}": b"%d" % on for flag, on in flags.items()}, "lun.0/file": file.encode()}, volumes


def _matching(pattern: re.Pattern[str], allowed: str) -> schema.Parser:
    def parsed(value: object, path: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise InvalidInput(path, value, allowed)
        return value

    return parsed


def _identity(value: object) -> tuple[str, str]:
    found = IDENTITY.fullmatch(str(value).lower())
    if not found:
        raise InvalidInput("usb_gadget_id", value, "write vendor and product as lsusb does: 1d6b:0104")
    return found[1], found[2]


def _mass_storage(value: Any, path: str) -> dict[str, Any]:
    fields = {
        "kind": schema.text,
        "file": _medium,
        "size": _size,
        "label": _matching(fat.LABEL, "11 characters of A-Z, 0-9, _, - and blanks at most"),
        "contents": _contents,
        "read_only": schema.leaf(units.parse_boolean),
        "removable": schema.leaf(units.parse_boolean),
    }
    asked: dict[str, Any] = schema.mapping(fields)(value, path)
    if "file" in asked:
        for key in ("size", "label", "contents"):
            if key in asked:
                raise InvalidInput(f"{path}.{key}", value[key], "goes with a volume that is made here, not with `file`")
    elif "contents" in asked:
        volume = Volume(asked.get("size", 8 << 20), asked.get("label", "TESTBED"), asked["contents"])
        try:
            fat.volume(volume.size, volume.label, dict(volume.contents))
        except ValueError as error:
            raise InvalidInput(f"{path}.contents", sorted(value["contents"]), str(error)) from None
    return asked


def _hid(value: Any, path: str) -> dict[str, Any]:
    fields = {
        "kind": schema.text,
        "report_length": schema.whole_number(1, MOST_REPORT_BYTES),
        "report_descriptor": _descriptor,
        "protocol": schema.whole_number(0, 255),
        "subclass": schema.whole_number(0, 255),
    }
    asked: dict[str, Any] = schema.mapping(fields)(value, path)
    return asked


def _acm(value: Any, path: str) -> dict[str, Any]:
    asked: dict[str, Any] = schema.mapping({"kind": schema.text})(value, path)
    return asked


_FUNCTIONS = {"mass_storage": _mass_storage, "acm": _acm, "hid": _hid}


def _medium(value: object, path: str) -> str:
    try:
        mode = Path(str(value)).stat().st_mode
    except OSError as error:
        raise InvalidInput(path, value, f"name a file or block device of the node: {error.strerror}") from None
    if not str(value).startswith("/") or not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise InvalidInput(path, value, "name a file or block device of the node, from / on")
    return str(value)


def _size(value: object, path: str) -> int:
    size: int = schema.leaf(units.parse_size)(value, path)
    if not fat.SMALLEST <= size <= fat.LARGEST or size % fat.SECTOR:
        raise InvalidInput(path, value, "allowed: 64KiB to 64MiB, in whole sectors of 512 bytes")
    return size


def _contents(value: object, path: str) -> tuple[tuple[str, bytes], ...]:
    if not isinstance(value, Mapping):
        raise InvalidInput(path, value, "write a mapping of file names to texts")
    for file, text in value.items():
        if not isinstance(file, str) or not fat.NAME.fullmatch(file):
            raise InvalidInput(
                f"{path}.{file}", file, "names have 8 characters and perhaps a dot and 3, of A-Z, 0-9, _, ~ and -"
            )
        if not isinstance(text, str):
            raise InvalidInput(f"{path}.{file}", text, "write a text")
    return tuple((file, text.encode()) for file, text in value.items())


def _descriptor(value: object, path: str) -> bytes:
    try:
        descriptor = bytes.fromhex(str(value))
    except ValueError:
        raise InvalidInput(path, value, "write bytes in hexadecimal: 0600ff …") from None
    if not 0 < len(descriptor) <= 4096:
        raise InvalidInput(path, value, "4096 bytes at most, and one at least")
    return descriptor
