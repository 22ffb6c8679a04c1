# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Python made of our sources, kept on the node between calls.

Ansible brings a module's sources in an archive, and Python compiles them at every call, twice (zipimport.py): most of
what a call without a change takes. Here the code of each source is kept with the source's hash, so it is never an
older one.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER, spec_from_file_location
from types import ModuleType
from typing import Any
from zipimport import zipimporter

CACHE = "/run/impair.testbed/bytecode"  # root's own: what lies there is run

Codes = dict[str, tuple[bytes, Any]]  # by a module's name: the hash of its source, and its code


class Bytecode:
    """Serves imports below a package from the cache. Without one, or without the right to keep one, all is as usual."""

    def __init__(self, package: str, cache: str = CACHE) -> None:
        self._below = f"{package}."
        self._cache = cache
        self._known = _read(cache)
        self._fresh: Codes = {}

    def serve(self) -> None:
        """From now on imports below the package come from the cache where they can."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Python's protocol of sys.meta_path."""
        for folder in (path or ()) if name.startswith(self._below) else ():
            archive = sys.path_importer_cache.get(folder)
            if isinstance(archive, zipimporter):
                origin = os.path.join(folder, f"{name.rpartition('.')[2]}.py")
                try:
                    source = archive.get_data(origin)
                except OSError:  # a package
                    continue
                return spec_from_file_location(name, origin, loader=_Loader(self, source, origin))  # type: ignore[arg-type]
        return None

    def code(self, name: str, source: bytes, origin: str) -> Any:
        """The code of a module: the kept one if it is of this source, or compiled."""
        digest = hashlib.sha256(source).digest()
        kept = self._known.get(name)
        if kept and kept[0] == digest:
            return kept[1]
        code = compile(source, origin, "exec", dont_inherit=True)
        self._fresh[name] = digest, code
        return code

    def keep(self) -> None:
        """Write down what had to be compiled, whole or not at all, where this user may."""
        if not self._fresh:
            return
        draft = f"{self._cache}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(self._cache), mode=0o700, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_version() + marshal.dumps({**self._known, **self._fresh}))
            os.replace(draft, self._cache)
        except OSError:
            return


class _Loader:
    """One module's. The archive's own loader compiles a source twice, once to tell its name (zipimport.py)."""

    def __init__(self, codes: Bytecode, source: bytes, origin: str) -> None:
        self._codes = codes
        self._source = source
        self._origin = origin

    def create_module(self, spec: ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        exec(self._codes.code(module.__name__, self._source, self._origin), module.__dict__)

    def get_source(self, _name: str) -> str:
        """For the lines of a traceback."""
        return self._source.decode()


def _version() -> bytes:
    return MAGIC_NUMBER + sys.implementation.cache_tag.encode() + b"\n"


def _read(cache: str) -> Codes:
    """What is kept, if it was written by this user and this Python."""
    try:
        with open(cache, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return {}
            data = file.read()
        version = _version()
        return dict(marshal.loads(data[len(version) :])) if data.startswith(version) else {}
    except (OSError, ValueError, EOFError, TypeError):
        return {}


def forget(cache: str = CACHE) -> None:
    """Drop what is kept."""
    try:
        os.unlink(cache)
    except OSError:
        pass
