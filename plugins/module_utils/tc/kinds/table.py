# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kinds there are. Each is imported when it is first needed: a call on a small board pays for every line."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ...errors import InvalidInput
from .base import Kind


def _fifo_tbf(name: str) -> Kind:
    from . import plain

    return {"pfifo": plain.PFIFO, "bfifo": plain.BFIFO, "tbf": plain.TBF}[name]


def _htb_qdisc(_name: str) -> Kind:
    from . import htb

    return htb.QDISC


def _htb_class(_name: str) -> Kind:
    from . import htb

    return htb.CLASS


def _netem(_name: str) -> Kind:
    from . import netem

    return netem.NETEM


def _ingress(name: str) -> Kind:
    from . import ingress

    return {"ingress": ingress.INGRESS, "clsact": ingress.CLSACT}[name]


def _prio(name: str) -> Kind:
    from . import prio

    return {"prio": prio.PRIO_KIND, "plug": prio.PLUG_KIND}[name]


def _fq(_name: str) -> Kind:
    from . import fq

    return fq.FQ_KIND


def _fq_codel(_name: str) -> Kind:
    from . import fq_codel

    return fq_codel.FQ_CODEL_KIND


def _cake(_name: str) -> Kind:
    from . import cake

    return cake.CAKE_KIND


def _fw(_name: str) -> Kind:
    from . import fw

    return fw.FW


def _u32(_name: str) -> Kind:
    from . import u32

    return u32.FILTER


def _flower(_name: str) -> Kind:
    from . import flower_words

    return flower_words.FLOWER


def _matchall(_name: str) -> Kind:
    from . import matchall

    return matchall.MATCHALL


def _bpf(_name: str) -> Kind:
    from . import bpf

    return bpf.BPF


_TABLE: dict[str, dict[str, Callable[[str], Kind]]] = {
    "qdisc": {
        "htb": _htb_qdisc,
        "netem": _netem,
        "tbf": _fifo_tbf,
        "pfifo": _fifo_tbf,
        "bfifo": _fifo_tbf,
        "prio": _prio,
        "fq": _fq,
        "fq_codel": _fq_codel,
        "cake": _cake,
        "plug": _prio,
        "ingress": _ingress,
        "clsact": _ingress,
    },
    "class": {"htb": _htb_class},
    "filter": {"fw": _fw, "u32": _u32, "flower": _flower, "matchall": _matchall, "bpf": _bpf},
}


@lru_cache
def lookup(role: str, name: str) -> Kind | None:
    """The kind `name` of a qdisc, class or filter; None where this collection has no codec for it."""
    load = _TABLE[role].get(name)
    return load(name) if load else None


def require(role: str, name: object, path: str) -> Kind:
    """The kind that the user named."""
    kind = lookup(role, str(name))
    if kind is None:
        raise InvalidInput(path, name, f"known kinds of {role}: " + ", ".join(_TABLE[role]))
    return kind
