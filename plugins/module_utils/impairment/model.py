# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users ask for: the vocabulary, checked and in kernel units. Knows no kernel call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from .. import schema, units
from ..errors import InvalidInput
from ..node import IFB_NAME, ifb_name
from ..schema import leaf, whole_number
from ..tc.kinds import netem
from ..tc.kinds.htb import LINKLAYERS
from .buffer import FULL_PACKET, WIRE, Discipline, Queue, Wire, parse_discipline, parse_queue, waiting_bytes
from .faults import Choice, Corrupt, Drop, SetMark, parse_corrupt, parse_drop, parse_duplicate, parse_set_mark
from .match import Match, interface_name, parse_match, parse_matches

ROOT_PATH = "impairment_interfaces"
MOST_CLASSES = 10_000
CLASS_NAME_MAX = 64
NEEDS = (
    ("jitter", "delay", "jitter varies a delay"),
    ("delay_correlation", "jitter", "delay_correlation is that of the jitter"),
    ("distribution", "jitter", "a distribution is that of the jitter"),
    ("ecn", "loss", "ecn marks the packets that would be lost"),
    ("reorder", "delay", "what is reordered overtakes the packets that wait"),
    ("ceil", "rate", "ceil is how far a rate may borrow"),
    ("burst", "rate", "burst belongs to a rate"),
    ("overhead", "rate", "overhead counts against a rate"),
    ("mpu", "rate", "mpu counts against a rate"),
    ("linklayer", "rate", "the link layer's cells count against a rate"),
)
EMPTY = {
    "match": "a class for all other traffic has no match at all: leave the key out, or write conditions",
    "classes": "write a list of classes, or leave the key out",
}
WHOLE = "all"  # the class of an interface whose impairment stands on the interface itself


class Impairment(NamedTuple):
    """What a class suffers. Rates in bytes per second, burst in bytes; None: not asked."""

    rate: int | None = None
    ceil: int | None = None
    burst: int | None = None
    priority: int = 0
    netem: netem.Netem = netem.Netem()
    drop: Drop | None = None
    corrupt: Corrupt | None = None
    duplicate: Choice | None = None
    set_mark: SetMark | None = None
    queue: Queue | None = None
    discipline: Discipline | None = None
    wire: Wire = Wire()
    limit: int | None = None
    keep_order: bool = True
    down: bool = False
    enabled: bool = True


class TrafficClass(NamedTuple):
    """One kind of traffic on an interface. Without matches it takes all that no class before it took."""

    name: str
    path: str
    matches: tuple[Match, ...]
    impairment: Impairment


class Interface(NamedTuple):
    """One direction of an interface and its classes, in the order in which they are tried."""

    name: str
    path: str
    classes: tuple[TrafficClass, ...]
    direction: str = "egress"  # or "ingress"

    @property
    def device(self) -> str:
        """Where its tree stands: on the interface, or on the IFB that everything passes on arrival."""
        return self.name if self.direction == "egress" else ifb_name(self.name)


_IMPAIRMENT: dict[str, schema.Parser] = {
    "rate": leaf(units.parse_rate),
    "ceil": leaf(units.parse_rate),
    "burst": leaf(units.parse_size),
    "priority": whole_number(0, 7),
    **WIRE,
    **netem.IMPAIRMENTS,
    "drop": parse_drop,
    "corrupt": parse_corrupt,
    "duplicate": parse_duplicate,
    "set_mark": parse_set_mark,
    "queue": parse_queue,
    "discipline": parse_discipline,
    "limit": whole_number(1, 2**32 - 1),
    "keep_order": leaf(units.parse_boolean),
    "down": leaf(units.parse_boolean),
    "enabled": leaf(units.parse_boolean),
}


def _impairment(values: Mapping[str, Any], entry: Mapping[str, Any], path: str) -> Impairment:
    """An impairment of parsed values; contradictions are refused, with the value as `entry` has it."""
    distribution = values.get("distribution")
    if distribution and distribution.deviation:  # measured delays have both
        values = {"delay": distribution.mean, "jitter": distribution.deviation, **values}
    for key, other, why in NEEDS:
        if values.get(key) and not values.get(other):
            key = key if key in entry else "distribution"  # which brought it
            raise InvalidInput(f"{path}.{key}", entry[key], f"{why}; write {other} as well")
    faults = (Corrupt, Choice)  # of chosen packets; netem has the others
    emulation = {key: value for key, value in values.items() if key in netem.IMPAIRMENTS and type(value) not in faults}
    try:
        emulated = netem.build(**emulation)
    except ValueError as error:
        raise InvalidInput(path, ", ".join(emulation), str(error)) from None
    wire = Wire(values.get("overhead", 0), values.get("mpu", 0), LINKLAYERS[values.get("linklayer", "ethernet")])
    taken = (*emulation, *WIRE)
    asked = Impairment(netem=emulated, wire=wire, **{key: value for key, value in values.items() if key not in taken})
    _check_sizes(asked, entry, path)
    return asked


def _check_sizes(asked: Impairment, entry: Mapping[str, Any], path: str) -> None:
    """Refuse rates and buffers that contradict each other."""

    def refuse(key: str, allowed: str) -> InvalidInput:
        return InvalidInput(f"{path}.{key}", entry[key], allowed)

    if asked.burst is not None and asked.burst < 1600:
        raise refuse("burst", "write at least 1600B: a whole packet has to fit")
    if asked.rate is not None and asked.ceil is not None and asked.ceil < asked.rate:
        raise refuse("ceil", f"write at least the rate, {units.rate_text(asked.rate)}")
    if asked.queue is not None and asked.limit is not None:
        raise refuse("limit", "limit and queue both size the buffer; write one of them")
    if asked.queue is not None and asked.discipline is not None:
        raise refuse("queue", "queue and discipline both say what waits, and how much; write one of them")
    if asked.queue is not None and asked.queue.unit == "time" and asked.rate is None:
        raise refuse("queue", "a buffer in time needs a rate; write rate as well, or the buffer in bytes or packets")
    size = waiting_bytes(asked.queue, asked.rate, asked.wire)
    if size is not None and not FULL_PACKET <= size < 2**32:
        raise refuse("queue", f"that is {size} bytes: write at least {FULL_PACKET}B, a whole packet, and below 4 GiB")


def _split(entry: object, keys: Mapping[str, schema.Parser], path: str) -> tuple[dict[str, Any], Impairment]:
    """(what the keys say, the impairment) of an interface's or a class's entry."""
    values = schema.mapping({**keys, **_IMPAIRMENT}, required=["name"])(entry, path)
    written = cast(Mapping[str, Any], entry)
    for key, meaning in EMPTY.items():
        if key in keys and key in written and written[key] is None:
            raise InvalidInput(f"{path}.{key}", None, meaning)
    own = {key: values.pop(key) for key in keys if key in values}
    return own, _impairment(values, written, path)


def _class_name(value: object, path: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > CLASS_NAME_MAX:
        raise InvalidInput(path, value, f"write a name of 1 to {CLASS_NAME_MAX} printable characters")
    return value


def _class(entry: object, path: str) -> TrafficClass:
    own, asked = _split(entry, {"name": _class_name, "match": parse_matches}, path)
    return TrafficClass(own["name"], path, own.get("match", ()), asked)


def parse_interface(entry: object, path: str) -> list[Interface]:
    """One element of impairment_interfaces: a direction or two."""
    keys = {
        "name": _impaired_name,
        "direction": schema.choice("egress", "ingress", "both"),
        "classes": schema.sequence(_class),
    }
    own, asked = _split(entry, keys, path)
    classes: list[TrafficClass] = own.get("classes", [])
    direction = own.get("direction", "egress")
    directions = ("egress", "ingress") if direction == "both" else (direction,)
    if "classes" not in own:
        whole = (TrafficClass(WHOLE, path, (), asked),)
        return [Interface(own["name"], path, whole, one) for one in directions]
    for key in _IMPAIRMENT:
        if isinstance(entry, Mapping) and entry.get(key) is not None and key not in ("enabled", "down"):
            allowed = "an interface with classes is impaired by them; move it into a class"
            raise InvalidInput(f"{path}.{key}", entry[key], allowed)
    _check_classes(classes, path)
    if "ingress" in directions:
        _check_arriving(classes)
    governed = tuple(_governed(entry_, asked) for entry_ in classes)
    return [Interface(own["name"], path, governed, one) for one in directions]


def _governed(entry: TrafficClass, interface: Impairment) -> TrafficClass:
    """`enabled: false` and `down: true` of an interface hold for all its classes."""
    own = entry.impairment
    return entry._replace(
        impairment=own._replace(enabled=own.enabled and interface.enabled, down=own.down or interface.down)
    )


def _impaired_name(value: object, path: str) -> str:
    name = interface_name(value, path)
    if IFB_NAME.fullmatch(name):
        allowed = "interfaces of this name are made for what arrives elsewhere; write that interface and its direction"
        raise InvalidInput(path, value, allowed)
    return name


def _check_arriving(classes: list[TrafficClass]) -> None:
    """Refuse what is not known of a packet that has just arrived."""
    for entry in classes:
        for match in entry.matches:
            if match.bridged:
                allowed = "at ingress it is not known yet where a packet goes; match by mac, or impair the egress"
                raise InvalidInput(f"{match.path}.bridged", True, allowed)
            if match.in_interface:
                allowed = "at ingress that is the interface itself; leave it out, or impair the egress"
                raise InvalidInput(f"{match.path}.in_interface", match.in_interface, allowed)


def _check_classes(classes: list[TrafficClass], path: str) -> None:
    names: set[str] = set()
    if not classes:
        raise InvalidInput(f"{path}.classes", [], "write at least one class")
    if len(classes) > MOST_CLASSES:
        raise InvalidInput(f"{path}.classes", len(classes), f"at most {MOST_CLASSES} classes")
    for index, entry in enumerate(classes):
        if entry.name in names:
            raise InvalidInput(f"{entry.path}.name", entry.name, "each class of an interface has a name of its own")
        names.add(entry.name)
        if not entry.matches and index != len(classes) - 1:
            raise InvalidInput(
                f"{entry.path}.match", None, "only the last class may go without match: it takes all other traffic"
            )


def parse(interfaces: object) -> tuple[Interface, ...]:
    """impairment_interfaces, checked. Raises InvalidInput with the path of the first value that cannot be used."""
    found = [one for entry in schema.sequence(parse_interface)(interfaces, ROOT_PATH) for one in entry]
    seen: set[tuple[str, str]] = set()
    for one in found:
        if (one.name, one.direction) in seen:
            allowed = f"its {one.direction} is written before; each direction of an interface is written once"
            raise InvalidInput(f"{one.path}.name", one.name, allowed)
        seen.add((one.name, one.direction))
    _check_across(found)
    return tuple(found)


def _check_across(interfaces: list[Interface]) -> None:
    """Interfaces that count together agree on it."""
    drops = {
        (one.name, one.direction, entry.name): entry.impairment.drop for one in interfaces for entry in one.classes
    }
    for one in interfaces:
        for entry in one.classes:
            drop = entry.impairment.drop
            if drop is None or not drop.across:
                continue
            apart = [name for name in drop.across if drops.get((name, one.direction, entry.name)) != drop]
            if one.name not in drop.across:
                apart = [one.name]
            if apart:
                allowed = f"each of these interfaces has a class `{entry.name}` with the same drop; see {apart[0]}"
                raise InvalidInput(f"{entry.path}.drop.across", ", ".join(drop.across), allowed)


def parse_management(value: object, path: str) -> tuple[Match, ...]:
    """Flows that pass every impaired interface unimpaired: a list of matches."""
    return tuple(schema.sequence(parse_match)(value, path))
