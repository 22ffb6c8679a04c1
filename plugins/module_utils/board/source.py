# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image as it was published: fetched once, held to its sha256 and its signature, and unpacked."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, NamedTuple

from .. import programs
from ..errors import InvalidInput, MissingCapability, StepFailed, TestbedError
from ..orphans import die_with_parent
from .progress import Progress, size_text

PIECE = 1 << 20  # bytes read at once
TIMEOUT = 60  # seconds in which a server has to say something
SCHEMES = ("http", "https", "file")
SEVEN = ("7z", "7zz", "7za", "7zr")  # one program, as different packages name it
# magic numbers of archives → what unpacks them to its standard output (7z needs the member's name besides)
_UNPACK = {
    b"\xfd7zXZ\0": ("xz", "-dc"),
    b"\x1f\x8b": ("gzip", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
    b"7z\xbc\xaf\x27\x1c": ("7z",),
}


class Published(NamedTuple):
    """A file with the checksum that its publisher tells. `place` is the option's name, for messages."""

    place: str
    src: str  # a path or a URL
    sha256: str


def check(asked: Published) -> None:
    """Refuse what can be seen to be wrong without fetching anything."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", asked.sha256):
        raise InvalidInput(
            _beside(asked.place, "sha256"), asked.sha256, "write the 64 hexadecimal digits that the publisher tells"
        )
    if "://" in asked.src:
        if asked.src.split("://", 1)[0] not in SCHEMES:
            raise InvalidInput(asked.place, asked.src, f"write a path, or a URL of {', '.join(SCHEMES)}")
    elif not os.path.isfile(asked.src):
        raise InvalidInput(asked.place, asked.src, "there is no such file; write the path of a file here, or a URL")


def obtain(asked: Published, cache: Path, say: Progress) -> Path:
    """Path of the file with this checksum; a URL is fetched once. Raises TestbedError where the bytes are others."""
    check(asked)
    if "://" not in asked.src:
        path = Path(asked.src)
        _hold_to(asked, path, say)
        return path
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", os.path.basename(urllib.parse.urlsplit(asked.src).path))
    path = cache / f"{asked.sha256.lower()[:16]}-{name or 'image'}"
    if path.exists():
        _hold_to(asked, path, say)
        return path
    part = path.with_name(path.name + ".part")
    try:
        fetch(asked.place, asked.src, part, say)
        _hold_to(asked, part, say)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def fetch(place: str, url: str, target: Path, say: Progress) -> None:
    """Copy what the URL gives to a file."""
    try:
        opener = urllib.request.build_opener()  # module_utils has nothing of ansible, so not its open_url either
        with opener.open(url, timeout=TIMEOUT) as answer, open(target, "wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            while piece := answer.read(PIECE):
                file.write(piece)
                say("fetching", file.tell(), total)
            if total and file.tell() != total:
                raise TestbedError(f"{place}: {url} broke off after {file.tell()} of {total} bytes; run this again")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TestbedError(f"{place}: {url} cannot be fetched: {error}; look at the address and the network") from error


def digest(path: Path, stage: str, say: Progress) -> str:
    """sha256 of a file, in hexadecimal."""
    counted = hashlib.sha256()
    with open(path, "rb") as file:
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        while piece := file.read(PIECE):
            counted.update(piece)
            say(stage, file.tell(), total)
    return counted.hexdigest()


def _hold_to(asked: Published, path: Path, say: Progress) -> None:
    found = digest(path, "checking the sha256", say)
    if found != asked.sha256.lower():
        raise InvalidInput(
            _beside(asked.place, "sha256"),
            asked.sha256,
            f"{asked.src} has {found}: it is damaged or another version; fetch it again, or write the published sha256",
        )


def _beside(place: str, name: str) -> str:
    """`src` → `sha256`, `packages[0].src` → `packages[0].sha256`."""
    return place[: -len("src")] + name


def verify(path: Path, signature: str, keyring: str, work: Path, say: Progress) -> None:
    """Hold the file to a detached signature by a key of `keyring` (armoured or not)."""
    for place, value in (("signature", signature), ("keyring", keyring)):
        if "://" not in value and not os.path.isfile(value):
            raise InvalidInput(place, value, "there is no such file; write the path of a file here, or a URL")
    signed, keys = work / "signature", work / "keyring"
    for value, local, place in ((signature, signed, "signature"), (keyring, keys, "keyring")):
        if "://" in value:
            fetch(place, value, local, say)
        else:
            local.write_bytes(Path(value).read_bytes())
    with tempfile.TemporaryDirectory(prefix="gpg-", dir=work) as home:
        gpg = ["gpg", "--batch", "--no-autostart", "--homedir", home]
        done = programs.run([*gpg, "--import", str(keys)])
        if done.returncode != 0:
            raise InvalidInput("keyring", keyring, f"gpg finds no key in it: {_last(done.stderr)}")
        done = programs.run([*gpg, "--status-fd", "1", "--verify", str(signed), str(path)], timeout=900)
    said = dict(line.split(" ", 2)[1:] for line in done.stdout.splitlines() if line.count(" ") > 1)
    if done.returncode != 0 or "VALIDSIG" not in said or "GOODSIG" not in said:
        raise InvalidInput(
            "signature",
            signature,
            f"it is no good signature of src by a key of {keyring}: {_last(done.stderr)}; do not use this image",
        )


def unpack(path: Path, target: Path, most: int, say: Progress) -> int:
    """Write the image that the file is, or that the archive has in it; holes where it has zeros. Returns its size.

    Raises TestbedError where the archive is damaged, or the image larger than `most` bytes.
    """
    with open(path, "rb") as file:
        head = file.read(8)
        argv = next((unpacker for magic, unpacker in _UNPACK.items() if head.startswith(magic)), None)
        if argv is None:
            file.seek(0)
            return _sparse(file, target, most, say)
    command = _seven(path) if argv == ("7z",) else [*_found(*argv[:1]), *argv[1:], "--", str(path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        preexec_fn=die_with_parent,
    ) as unpacking:
        try:
            size = _sparse(unpacking.stdout, target, most, say) if unpacking.stdout else 0
        except BaseException:
            unpacking.kill()
            raise
        said = unpacking.stderr.read().decode(errors="replace") if unpacking.stderr else ""
    if unpacking.returncode != 0:
        raise StepFailed(
            " ".join(command), f"{_last(said)}; src is damaged, although its sha256 fits: choose another one"
        )
    return size


def _sparse(source: IO[bytes], target: Path, most: int, say: Progress) -> int:
    size = 0
    with open(target, "wb") as file:
        while piece := source.read(PIECE):
            size += len(piece)
            if size > most:
                raise TestbedError(
                    f"src: the image is larger than the target, which has {size_text(most)}; take a larger card"
                )
            if piece.count(0) == len(piece):
                file.seek(size)
            else:
                file.write(piece)
            say("unpacking", size)
        file.truncate(size)
    return size


def _found(*names: str) -> list[str]:
    for name in names:
        path = programs.find(name)
        if path:
            return [path]
    raise MissingCapability("unpacking src", f"the program {names[0]}", f"install {names[0]}")


def _seven(path: Path) -> list[str]:
    """7z with the archive's one image; the others in it are texts and checksums."""
    seven = _found(*SEVEN)
    listed = programs.run([os.path.basename(seven[0]), "l", "-slt", "-ba", "--", str(path)])
    names = [line[len("Path = ") :] for line in listed.stdout.splitlines() if line.startswith("Path = ")]
    images = [name for name in names if name.endswith(".img")]
    if listed.returncode != 0:
        raise StepFailed(
            f"7z l {path}", f"{_last(listed.stderr)}; src is damaged, although its sha256 fits: choose another one"
        )
    if len(images) != 1:
        raise InvalidInput("src", str(path), f"an archive has to have exactly one .img in it; this one has {names}")
    return [*seven, "x", "-so", "-bd", "--", str(path), images[0]]


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it gives no reason"
