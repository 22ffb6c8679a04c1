# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory asks of a class, as figures that can be compared with a measurement."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..impairment.buffer import Wire, wire_size
from ..tc.kinds import distribution
from ..tc.kinds.htb import LINKLAYERS
from ..units import PERCENT_MAX, parse_integer, parse_percent, parse_rate, parse_size, parse_time

DIRECTIONS = ("egress", "ingress")


class Asked(NamedTuple):
    """One class's impairment; zeros where nothing is asked."""

    rate: float = 0.0  # bits per second that a lone flow of the class gets: the ceil where there is one
    delay: float = 0.0  # seconds
    jitter: float = 0.0  # seconds
    middle: float = 0.0  # seconds from the delay to the median of the delays
    spread: float = 1.0  # jitters between the quartiles of the delays
    loss: float = 0.0  # share of packets, in the long run
    loss_memory: float = 0.0  # correlation of one packet's fate with the next one's, 0 to 1
    every: int = 0  # each so-manieth packet is dropped
    pattern: str = ""  # of 0 and 1, repeated: packets at a 1 are dropped
    duplicate: float = 0.0
    corrupt: float = 0.0
    duplicate_memory: float = 0.0  # as loss_memory
    corrupt_memory: float = 0.0
    duplicate_pattern: str = ""  # where the share comes in turns
    corrupt_pattern: str = ""
    reorder: float = 0.0
    burst: int = 0  # bytes that pass at once before the rate holds
    shared: bool = False  # the drop's counter is shared with other interfaces
    unjudged: tuple[str, ...] = ()  # keys that this program has no measure for

    @property
    def turns(self) -> str:
        """The pattern of what is dropped in turns."""
        return self.pattern or ("1".rjust(self.every, "0") if self.every else "")

    @property
    def kept(self) -> float:
        """The share of packets that its own losses leave."""
        return (1 - self.loss) * (1 - _ones(self.turns))


class Class(NamedTuple):
    """A class of one interface."""

    name: str
    alternatives: tuple[Mapping[str, Any], ...]  # sets of conditions; empty: the default class, everything matches
    asked: Asked


class Impaired(NamedTuple):
    """An interface and one direction, with its classes in the order in which they are tried."""

    interface: str
    direction: str
    classes: tuple[Class, ...]


# Keys that shape how an impairment is carried out, not what can be measured of it.
SILENT = (
    *("priority", "queue", "discipline", "limit", "keep_order", "seed", "enabled", "name", "match", "direction"),
    *("classes", "overhead", "mpu", "linklayer", "ecn"),
)
FULL, SHORT = 1514, 514  # bytes of the packets that overload a fast and a slow class
FAST = 1e6  # bit/s


def _share(value: object) -> float:
    return parse_percent(value) / PERCENT_MAX


def _first(value: object, *names: str) -> object:
    """The figure of a short form (`1%`) or of a mapping with more to say (`{random: 1%, correlation: 25%}`)."""
    if not isinstance(value, Mapping):
        return value
    for name in names:
        if name in value:
            return value[name]
    return 0


def _gilbert(model: Mapping[str, Any]) -> tuple[float, float]:
    """Long-run loss and memory of netem's gemodel: p and r change the state, 1-h and 1-k are lost in it."""
    p, r = _share(model["p"]), _share(model.get("r", "0%")) if "r" in model else 1 - _share(model["p"])
    bad_loss = _share(model.get("1-h", "100%"))
    good_loss = _share(model.get("1-k", "0%"))
    bad = p / (p + r) if p + r else 0.0
    return bad * bad_loss + (1 - bad) * good_loss, max(0.0, 1 - p - r)


def _ones(pattern: str) -> float:
    return pattern.count("1") / len(pattern) if pattern else 0.0


class Chosen(NamedTuple):
    """How many packets are chosen: their share in the long run, its memory, and the pattern where it is one."""

    share: float
    memory: float = 0.0
    pattern: str = ""


def _chosen(value: Mapping[str, Any]) -> Chosen:
    """Of chosen packets. Raises ValueError for a model whose long-run share is not known here."""
    if "every" in value:
        pattern = "1".rjust(parse_integer(value["every"], least=1), "0")
        return Chosen(_ones(pattern), 0.0, pattern)
    if "pattern" in value:
        return Chosen(_ones(str(value["pattern"])), 0.0, str(value["pattern"]))
    return Chosen(*_loss(value))


def _loss(value: object) -> tuple[float, float]:
    """(share, memory). Raises ValueError for a model whose long-run loss is not known here."""
    if not isinstance(value, Mapping):
        return _share(value), 0.0
    if "random" in value:
        return _share(value["random"]), _share(value.get("correlation", "0%"))
    if isinstance(value.get("gemodel"), Mapping):
        return _gilbert(value["gemodel"])
    raise ValueError("no long-run loss is known for this model")


def parse_asked(keys: Mapping[str, Any]) -> Asked:
    """Read one impairment as it stands in the inventory; the impairment module has found it valid."""
    if keys.get("enabled") is False:
        return Asked()
    if keys.get("down"):
        return Asked(loss=1.0)
    found: dict[str, Any] = {}
    unjudged = []
    for key, value in keys.items():
        if value is None or key in SILENT or key in ("down", "rate", "ceil", "delay_correlation", "slot"):
            continue
        try:
            _take(key, value, found)
        except (ValueError, TypeError, KeyError):
            unjudged.append(key)
    unjudged.extend(key for key in ("slot", "delay_correlation") if keys.get(key))
    found |= _distribution(keys.get("distribution"), found)
    return Asked(rate=_rate(keys), unjudged=tuple(unjudged), **found)


def _distribution(value: Any, found: Mapping[str, float]) -> dict[str, float]:
    """What a distribution says of the delays: their middle and their spread, by the table that netem draws from."""
    if value in (None, "uniform"):
        return {}
    asked = distribution.parse(value, "distribution")
    numbers = struct.unpack(f"={distribution.SIZE}h", distribution.table(asked))  # in order
    low, middle, high = (numbers[distribution.SIZE * part // 4] / distribution.SCALE for part in (1, 2, 3))
    jitter = found.get("jitter", asked.deviation / 1e9)
    delay = found.get("delay", asked.mean / 1e9)
    return {"delay": delay, "jitter": jitter, "middle": middle * jitter, "spread": high - low}


def _rate(keys: Mapping[str, Any]) -> float:
    """bit/s that a lone flow sees at layer 2; a packet may count for more on the link that the rate is meant for."""
    top = keys.get("ceil") or keys.get("rate")
    if not top:
        return 0.0
    overhead, mpu = (parse_size(keys.get(key) or 0) for key in ("overhead", "mpu"))
    wire = Wire(overhead, mpu, LINKLAYERS[keys.get("linklayer") or "ethernet"])
    rate = parse_rate(top) * 8.0
    seen = rate * FULL / wire_size(wire, FULL)
    return seen if seen >= FAST else rate * SHORT / wire_size(wire, SHORT)


def _take(key: str, value: Any, found: dict[str, Any]) -> None:
    if key in ("delay", "jitter"):
        found[key] = parse_time(value) / 1e9
    elif key == "distribution":
        pass  # with the delay and the jitter that it belongs to
    elif key == "loss":
        _lose(*_loss(value), found)
    elif key == "drop":
        found["shared"] = bool(value.get("across"))
        if "every" in value:
            found["every"] = parse_integer(value["every"], least=1)
        elif "pattern" in value:
            found["pattern"] = str(value["pattern"])
        else:
            _lose(*_loss(value), found)
    elif key in ("duplicate", "corrupt") and isinstance(value, Mapping) and "percent" not in value:
        if value.get("checksum") == "fix":  # nothing tells such a packet from an intact one
            raise ValueError(key)
        found[key], found[f"{key}_memory"], found[f"{key}_pattern"] = _chosen(value)
    elif key in ("duplicate", "corrupt", "reorder"):
        found[key] = _share(_first(value, "percent", "random", key))
    elif key == "burst":
        found["burst"] = parse_size(value)
    else:
        raise ValueError(key)


def _lose(share: float, memory: float, found: dict[str, Any]) -> None:
    """One loss beside another."""
    found["loss"] = 1 - (1 - found.get("loss", 0.0)) * (1 - share)
    found["loss_memory"] = max(found.get("loss_memory", 0.0), memory)


def _alternatives(match: object) -> tuple[Mapping[str, Any], ...]:
    if not match:
        return ()
    if isinstance(match, Mapping):
        return (match,)
    return tuple(match) if isinstance(match, Sequence) else ()


def impaired_directions(interface: Mapping[str, Any]) -> list[Impaired]:
    """The impaired directions of one element of impairment_interfaces; no classes: one for everything."""
    classes = interface.get("classes")
    if not classes:
        only = {key: value for key, value in interface.items() if key not in ("name", "direction")}
        classes = [{"name": "all", **only}] if only else []
    parsed = tuple(Class(str(one["name"]), _alternatives(one.get("match")), parse_asked(one)) for one in classes)
    direction = str(interface.get("direction") or "egress")
    return [
        Impaired(str(interface["name"]), one, parsed) for one in DIRECTIONS if parsed and direction in (one, "both")
    ]
