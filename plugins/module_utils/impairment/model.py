# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users ask for: the vocabulary, checked and in kernel units. Knows no kernel call."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import schema, units
from ..errors import InvalidInput
from ..schema import leaf
from ..tc.kinds import netem

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ROOT_PATH = "impairment_interfaces"
INTERFACE_NAME_MAX = 15  # IFNAMSIZ without its zero
MOST_CLASSES = 10_000
WHOLE = "all"  # the class of an interface whose impairment stands on the interface itself
TRANSPORTS = {"tcp": 6, "udp": 17, "sctp": 132}
PROTOCOLS = {"icmp": 1, "igmp": 2, **TRANSPORTS, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58}
FAMILIES = ("ipv4", "ipv6", "arp")


class Match(NamedTuple):
    """One set of conditions; all must hold. `address`, `port` and `mac` are either side."""

    protocol: str | int | None = None  # a name of PROTOCOLS or FAMILIES, or an IP protocol number
    address: Network | None = None
    source: Network | None = None
    destination: Network | None = None
    port: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    dscp: int | None = None
    mac: str | None = None
    mark: tuple[int, int] | None = None  # value, mask
    bridged: bool = False
    in_interface: str | None = None


class Drop(NamedTuple):
    """One packet out of every `every` is lost: the one at the 0-based place `packet` of each group."""

    every: int
    packet: int


class Queue(NamedTuple):
    """The bottleneck's buffer: an amount in ns, bytes or packets."""

    amount: int
    unit: str  # "time", "bytes" or "packets"


class Impairment(NamedTuple):
    """What a class suffers. Rates in bytes per second, burst in bytes; None: not asked."""

    rate: int | None = None
    ceil: int | None = None
    burst: int | None = None
    priority: int = 0
    netem: netem.Netem = netem.Netem()
    drop: Drop | None = None
    queue: Queue | None = None
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
    """An interface and its classes, in the order in which they are tried."""

    name: str
    path: str
    classes: tuple[TrafficClass, ...]


def _range(least: int, most: int) -> schema.Parser:
    return leaf(lambda value: units.parse_integer(value, least, most))


def _interface_name(value: object, path: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value) or value in (".", ".."):
        raise InvalidInput(
            path, value, f"write an interface name of 1 to {INTERFACE_NAME_MAX} characters without space, `/` or `:`"
        )
    return value


def _network(value: object, path: str) -> Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as error:
        raise InvalidInput(
            path, value, f"write an address or a network such as 10.0.0.0/8 or 2001:db8::1 ({error})"
        ) from None


def _protocol(value: object, path: str) -> str | int:
    if value in PROTOCOLS or value in FAMILIES:
        return str(value)
    try:
        return units.parse_integer(value, 0, 255)
    except ValueError:
        allowed = ", ".join((*PROTOCOLS, *FAMILIES))
        raise InvalidInput(path, value, f"write one of {allowed}, or an IP protocol number from 0 to 255") from None


def _dscp(value: object, path: str) -> int:
    """A number, or ef, csN and afXY (RFC 2474, RFC 2597, RFC 3246)."""
    name = str(value).lower()
    if name == "ef":
        return 46
    if match := re.fullmatch(r"cs([0-7])", name):
        return int(match.group(1)) * 8
    if match := re.fullmatch(r"af([1-4])([1-3])", name):
        return int(match.group(1)) * 8 + int(match.group(2)) * 2
    try:
        return units.parse_integer(value, 0, 63)
    except ValueError:
        raise InvalidInput(path, value, "write a number from 0 to 63, ef, cs0 to cs7, or af11 to af43") from None


def _mac(value: object, path: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", value):
        raise InvalidInput(path, value, "write a MAC address such as 52:54:00:00:00:01, in quotes")
    return value.lower()


def _mark(value: object, path: str) -> tuple[int, int]:
    allowed = "write a mark such as 0x2, or value/mask such as 0x20000/0xff0000"
    number, slash, mask = str(value).partition("/")
    try:
        found = units.parse_integer(number), units.parse_integer(mask if slash else 0xFFFFFFFF, 1)
    except ValueError:
        raise InvalidInput(path, value, allowed) from None
    if isinstance(value, bool) or found[0] & ~found[1]:
        raise InvalidInput(path, value, allowed + "; the value must lie within the mask")
    return found


def _true(value: object, path: str) -> bool:
    if value is not True:
        raise InvalidInput(path, value, "write true, or leave the key out; what is not bridged falls to a later class")
    return True


def _not_yet(what: str) -> schema.Parser:
    def refuse(value: object, path: str) -> Any:
        raise InvalidInput(path, value, what)

    return refuse


_PORT = _range(1, 65535)
_MATCH: dict[str, schema.Parser] = {
    "protocol": _protocol,
    "address": _network,
    "source": _network,
    "destination": _network,
    "port": _PORT,
    "source_port": _PORT,
    "destination_port": _PORT,
    "dscp": _dscp,
    "mac": _mac,
    "vlan": _not_yet("a VLAN tag cannot be matched by the classifiers u32 and fw of this version"),
    "mark": _mark,
    "bridged": _true,
    "in_interface": _interface_name,
}


def parse_match(value: object, path: str) -> Match:
    """One set of conditions."""
    found = schema.mapping(_MATCH)(value, path)
    match = Match(**found)
    if not found:
        raise InvalidInput(path, value, "write at least one condition; a class for all other traffic has no match")
    if match.port is not None and (match.source_port is not None or match.destination_port is not None):
        raise InvalidInput(
            f"{path}.port", match.port, "port is either side; write it, or source_port and destination_port"
        )
    if match.address is not None and (match.source is not None or match.destination is not None):
        raise InvalidInput(
            f"{path}.address", str(match.address), "address is either side; write it, or source and destination"
        )
    _check_family(match, path)
    return match


def _check_family(match: Match, path: str) -> None:
    ports = (match.port, match.source_port, match.destination_port)
    transports = (None, *TRANSPORTS, *TRANSPORTS.values())
    if any(port is not None for port in ports) and match.protocol not in transports:
        raise InvalidInput(f"{path}.protocol", match.protocol, "ports are matched in tcp, udp and sctp")
    addresses = [address for address in (match.address, match.source, match.destination) if address is not None]
    versions = {f"ipv{address.version}" for address in addresses}
    if match.protocol in FAMILIES:
        versions.add(str(match.protocol))
    if match.protocol in ("icmp", 1):
        versions.add("ipv4")
    if match.protocol in ("icmpv6", 58):
        versions.add("ipv6")
    if len(versions) > 1:
        raise InvalidInput(path, ", ".join(sorted(versions)), "no packet is both; write alternatives as a list")
    if match.protocol == "arp" and (addresses or match.dscp is not None):
        raise InvalidInput(f"{path}.protocol", "arp", "ARP has no IP addresses or dscp to match")


def parse_matches(value: object, path: str) -> tuple[Match, ...]:
    """A set of conditions, or a list of alternatives."""
    if isinstance(value, Mapping):
        return (parse_match(value, path),)
    found = schema.sequence(parse_match)(value, path)
    if not found:
        raise InvalidInput(
            path, value, "write a set of conditions or a list of them; a class for all other traffic has no match"
        )
    return tuple(found)


def _drop(value: object, path: str) -> Drop:
    fields = {
        "every": _range(1, 65535),
        "packet": _range(0, 65534),
        "pattern": _not_yet("patterns need the bpf backend, which this version does not have"),
        "across": _not_yet("counting across ports needs the bpf backend, which this version does not have"),
    }
    found = schema.mapping(fields, required=["every"])(value, path)
    every = found["every"]
    packet = found.get("packet", every - 1)
    if packet >= every:
        raise InvalidInput(
            f"{path}.packet", packet, f"write a place from 0 to {every - 1}: the first packet of each {every} is 0"
        )
    return Drop(every, packet)


def _queue(value: object, path: str) -> Queue:
    for unit, parse in (("packets", units.parse_packets), ("bytes", units.parse_size), ("time", units.parse_time)):
        try:
            amount = parse(value)
        except ValueError:
            continue
        if amount:
            return Queue(amount, unit)
    raise InvalidInput(path, value, "write the buffer as time (100ms), bytes (64kB, 64KiB) or packets (50p), above 0")


_IMPAIRMENT: dict[str, schema.Parser] = {
    "rate": leaf(units.parse_rate),
    "ceil": leaf(units.parse_rate),
    "burst": leaf(units.parse_size),
    "priority": _range(0, 7),
    **netem.IMPAIRMENTS,
    "distribution": _not_yet("jitter is uniform in this version; leave distribution out"),
    "drop": _drop,
    "queue": _queue,
    "limit": _range(1, 2**32 - 1),
    "keep_order": leaf(units.parse_boolean),
    "down": leaf(units.parse_boolean),
    "enabled": leaf(units.parse_boolean),
}


def _impairment(values: Mapping[str, Any], path: str) -> Impairment:
    """An impairment of parsed values; contradictions are refused."""
    emulation = {key: value for key, value in values.items() if key in netem.IMPAIRMENTS}
    try:
        emulated = netem.build(**emulation)
    except ValueError as error:
        raise InvalidInput(path, ", ".join(emulation), str(error)) from None
    asked = Impairment(netem=emulated, **{key: value for key, value in values.items() if key not in emulation})
    if asked.ceil is not None and asked.rate is None:
        raise InvalidInput(
            f"{path}.ceil", units.rate_text(asked.ceil), "ceil is how far a rate may borrow; write rate as well"
        )
    if asked.burst is not None and asked.rate is None:
        raise InvalidInput(f"{path}.burst", f"{asked.burst}B", "burst belongs to a rate; write rate as well")
    if asked.burst is not None and asked.burst < 1600:
        raise InvalidInput(f"{path}.burst", f"{asked.burst}B", "write at least 1600B: a whole packet has to fit")
    if asked.rate is not None and asked.ceil is not None and asked.ceil < asked.rate:
        raise InvalidInput(
            f"{path}.ceil", units.rate_text(asked.ceil), f"write at least the rate, {units.rate_text(asked.rate)}"
        )
    if asked.queue is not None and asked.limit is not None:
        raise InvalidInput(f"{path}.limit", asked.limit, "limit and queue both size the buffer; write one of them")
    if asked.queue is not None and asked.queue.unit == "time" and asked.rate is None:
        raise InvalidInput(f"{path}.queue", units.time_text(asked.queue.amount), "a buffer in time needs a rate")
    return asked


def _split(entry: object, keys: Mapping[str, schema.Parser], path: str) -> tuple[dict[str, Any], Impairment]:
    """(what the keys say, the impairment) of an interface's or a class's entry."""
    values = schema.mapping({**keys, **_IMPAIRMENT}, required=["name"])(entry, path)
    own = {key: values.pop(key) for key in keys if key in values}
    return own, _impairment(values, path)


def _class(entry: object, path: str) -> TrafficClass:
    own, asked = _split(entry, {"name": schema.text, "match": parse_matches}, path)
    return TrafficClass(own["name"], path, own.get("match", ()), asked)


def parse_interface(entry: object, path: str) -> Interface:
    """One element of impairment_interfaces."""
    keys = {
        "name": _interface_name,
        "direction": _egress,
        "classes": schema.sequence(_class),
    }
    own, asked = _split(entry, keys, path)
    classes: list[TrafficClass] = own.get("classes", [])
    if "classes" not in own:
        return Interface(own["name"], path, (TrafficClass(WHOLE, path, (), asked),))
    for key in _IMPAIRMENT:
        if isinstance(entry, Mapping) and key in entry and key not in ("enabled", "down"):
            allowed = "an interface with classes is impaired by them; move it into a class"
            raise InvalidInput(f"{path}.{key}", entry[key], allowed)
    _check_classes(classes, path)
    return Interface(own["name"], path, tuple(_governed(entry_, asked) for entry_ in classes))


def _governed(entry: TrafficClass, interface: Impairment) -> TrafficClass:
    """`enabled: false` and `down: true` of an interface hold for all its classes."""
    own = entry.impairment
    return entry._replace(
        impairment=own._replace(enabled=own.enabled and interface.enabled, down=own.down or interface.down)
    )


def _egress(value: object, path: str) -> str:
    if value != "egress":
        raise InvalidInput(path, value, "this version impairs egress; impair the other end's egress for the way back")
    return "egress"


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
    found = schema.sequence(parse_interface)(interfaces, ROOT_PATH)
    names: set[str] = set()
    for entry in found:
        if entry.name in names:
            raise InvalidInput(f"{entry.path}.name", entry.name, "each interface is written once")
        names.add(entry.name)
    return tuple(found)


def parse_management(value: object, path: str) -> tuple[Match, ...]:
    """Flows that pass every impaired interface unimpaired: a list of matches."""
    return tuple(schema.sequence(parse_match)(value, path))
