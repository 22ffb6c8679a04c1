# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of prio, fq, fq_codel and cake in the words of their man pages. Imports nothing of the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLAGS = {  # what tc says for true and for false
    ("fq", "pacing"): ("pacing", "nopacing"),
    ("fq", "horizon_drop"): ("horizon_drop", "horizon_cap"),
    ("fq_codel", "ecn"): ("ecn", "noecn"),
    ("cake", "autorate_ingress"): ("autorate-ingress", ""),
    ("cake", "nat"): ("nat", "nonat"),
    ("cake", "wash"): ("wash", "nowash"),
    ("cake", "split_gso"): ("split-gso", "no-split-gso"),
    ("cake", "ingress"): ("ingress", "egress"),
    ("cake", "raw"): ("raw", ""),
}
BARE = ("diffserv", "isolation", "framing", "ack_filter")  # of cake: the value alone says it
KINDS = ("prio", "fq", "fq_codel", "cake")


def words(entry: Mapping[str, Any], size: Any) -> str:
    """`size` writes a size with tc's letters."""
    kind, found = entry["kind"], [entry["kind"]]
    rest = {key: value for key, value in entry.items() if key not in ("parent", "handle", "kind")}
    if rest.get("raw"):
        rest = {"raw": rest.pop("raw"), **rest}  # it goes first: it takes back what stands before it
    for key, value in rest.items():
        if isinstance(value, bool):
            found.append(FLAGS[kind, key][not value])
        elif kind == "cake" and key in BARE:
            found.append(value)
        elif isinstance(value, list):
            found += ["bands", "3"] if (kind, key) == ("fq", "priomap") else []
            found += [key, *map(str, value)]
        else:
            found += [key, size(value).removesuffix("b") if key.endswith("quantum") else size(value)]
    return " ".join(word for word in found if word)
