# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this node's kernel and programs can do, found by trying each thing in a throwaway namespace.

modprobe, /proc/config.gz and tools' own feature lists are each absent or wrong somewhere, and some kernels accept
what they then ignore (a u32 filter's mark): only trying and reading back tells.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .errors import MissingCapability
from .programs import find

CACHE = "/run/impair.testbed/capabilities.json"
FORMAT = 6  # raise it when a probe changes: what an older one found is then forgotten

_PROGRAMS = (
    "nft",
    *(
        f"{family}{variant}-restore"
        for family in ("iptables", "ip6tables", "ebtables")
        for variant in ("", "-nft", "-legacy")
    ),
)
_BRIDGE_NETFILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"


class Finding(NamedTuple):
    """What one probe found: True, or what is missing. What is not certain (no memory, a timeout) is not remembered."""

    result: bool | str
    certain: bool = True


class Capabilities(Mapping[str, "bool | str"]):
    """Name → True, or what is missing: the kernel option or program, and what the kernel said.

    An unknown name is a KeyError: it is a mistake in our code, not a property of the node.
    """

    def __init__(self, results: Mapping[str, bool | str]) -> None:
        self._results = dict(results)

    def __getitem__(self, name: str) -> bool | str:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def ok(self, name: str) -> bool:
        """Whether the node can do it."""
        return self[name] is True

    def require(self, name: str, what: str, remedy: str = "") -> None:
        """Raise MissingCapability, with `what` is asked and what it needs, unless the node can do it."""
        if self[name] is not True:
            raise MissingCapability(what, str(self[name]), remedy)


def load(cache: str = CACHE) -> Capabilities:
    """The node's capabilities: remembered ones where nothing they depend on has changed, else found by trying.

    Raises MissingCapability where the caller may not make network namespaces (not root, no CONFIG_NET_NS).
    """
    key = _key()
    remembered = _remembered(cache, key)
    if remembered is not None:
        return Capabilities(remembered)
    from .probes.everything import probe_all  # only a first call pays for importing the probes

    findings = probe_all(os.path.exists(_BRIDGE_NETFILTER))
    results = {name: finding.result for name, finding in findings.items()}
    if all(finding.certain for finding in findings.values()):
        _remember(cache, key, results)
    return Capabilities(results)


def forget(cache: str = CACHE) -> None:
    """Drop what is remembered, and the folder that it leaves empty."""
    with contextlib.suppress(OSError):
        os.unlink(cache)
        os.rmdir(os.path.dirname(cache))


def _key() -> dict[str, object]:
    """Everything that the results depend on."""
    kernel = os.uname()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return {
        "format": FORMAT,
        "boot": boot,
        "kernel": [kernel.release, kernel.version, kernel.machine],
        "modules": _stamp(f"/lib/modules/{kernel.release}/modules.dep"),
        "programs": {name: _stamp(find(name)) for name in _PROGRAMS},
        "bridge_netfilter": os.path.exists(_BRIDGE_NETFILTER),
    }


def _stamp(path: str | None) -> list[object] | None:
    """Which file a path leads to, and when that was written; None where there is none."""
    if path is None:
        return None
    target = os.path.realpath(path)
    try:
        return [target, os.stat(target).st_mtime_ns]
    except OSError:
        return None


def _remembered(cache: str, key: Mapping[str, object]) -> dict[str, bool | str] | None:
    try:
        with open(cache, encoding="utf-8") as file:
            content = json.load(file)
        return content["results"] if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: it is only a cache
        return None


def _remember(cache: str, key: Mapping[str, object], results: Mapping[str, bool | str]) -> None:
    """Replace the cache in one go, so that a reader never sees half of it."""
    folder = os.path.dirname(cache)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            json.dump({"key": key, "results": results}, file, indent=1)
        os.replace(file.name, cache)
    except OSError:  # a read-only /run costs a probe at each call, no more
        pass
