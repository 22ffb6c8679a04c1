# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels as users ask for them, to states and policies.

Both ends of a tunnel come to the same numbers and keys from its secret, its addresses and its algorithm.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import schema, units
from ..errors import InvalidInput
from .model import IPTFS, MODES, OWNED, Algorithm, Iptfs, Key, Policy, Selector, State, Xfrm

SECRET_LEAST = 32  # characters
SPI_LEAST = 0x100  # what is below is reserved (RFC 4303)
WINDOW = 64  # packets: the default of IPTFS, which cannot be without one

# The names of strongSwan; parts as (role, kernel's name, bytes of its key, bits of its check value).
ALGORITHMS = {
    "aes128gcm16": (("aead", "rfc4106(gcm(aes))", 20, 128),),
    "aes256gcm16": (("aead", "rfc4106(gcm(aes))", 36, 128),),
    "aes256-sha256": (("auth-trunc", "hmac(sha256)", 32, 128), ("enc", "cbc(aes)", 32, 0)),
}


def key_bytes(algorithm: str) -> int:
    """Bytes of all keys of an algorithm."""
    return sum(part[2] for part in ALGORITHMS[algorithm])


def _address(value: object) -> str:
    try:
        found = ipaddress.ip_address(str(value))
    except ValueError:
        raise ValueError("write an IPv4 or IPv6 address") from None
    if found.is_multicast or found.is_unspecified:
        raise ValueError("write the address of one node")
    return str(found)


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError as error:
        raise ValueError(f"write a network such as 10.0.0.0/24 or 2001:db8::/64 ({error})") from None


def _microseconds(value: object) -> int:
    time = units.parse_time(value)
    if time % 1000 or time // 1000 >= 2**32:
        raise ValueError("the kernel holds whole microseconds, below 71 minutes")
    return time // 1000


def _key(value: object, path: str) -> bytes:
    try:
        return bytes.fromhex(str(value).removeprefix("0x"))
    except ValueError:
        raise InvalidInput(path, "what stands there", "write hexadecimal digits") from None


def _secret(value: object, path: str) -> str:
    if not isinstance(value, str) or len(value) < SECRET_LEAST:
        raise InvalidInput(path, "what stands there", f"write {SECRET_LEAST} characters or more that nobody can guess")
    return value


IPTFS_FIELDS = {
    "packet_size": schema.leaf(units.parse_size),
    "dont_fragment": schema.leaf(units.parse_boolean),
    "init_delay": schema.leaf(_microseconds),
    "max_queue": schema.leaf(units.parse_size),
    "drop_time": schema.leaf(_microseconds),
    "reorder_window": schema.whole_number(0, 2**16 - 1),
}
# What the kernel takes by itself (net/xfrm/xfrm_iptfs.c, IPTFS_DEFAULT_…).
IPTFS_DEFAULTS = Iptfs(0, False, 0, 1024 * 10240, 1_000_000, 3)

TUNNEL_KEY = schema.mapping(
    {
        "name": schema.text,
        "local": schema.leaf(_address),
        "remote": schema.leaf(_address),
        "local_networks": schema.sequence(schema.leaf(_network)),
        "remote_networks": schema.sequence(schema.leaf(_network)),
        "mode": schema.choice(*MODES.values()),
        "algorithm": schema.choice(*ALGORITHMS),
        "secret": _secret,
        "key_out": _key,
        "key_in": _key,
        "spi_out": schema.whole_number(SPI_LEAST, 2**32 - 1),
        "spi_in": schema.whole_number(SPI_LEAST, 2**32 - 1),
        "replay_window": schema.whole_number(0, 4096),
        "iptfs": schema.mapping(IPTFS_FIELDS),
    },
    required=("name", "local", "remote", "local_networks", "remote_networks"),
)


class Tunnel(NamedTuple):
    """What stands for one tunnel, before numbers and keys."""

    path: str
    values: Mapping[str, Any]
    reqid: int

    @property
    def mode(self) -> int:
        return next(number for number, name in MODES.items() if name == self.values.get("mode", "tunnel"))

    @property
    def algorithm(self) -> str:
        return str(self.values.get("algorithm", "aes128gcm16"))


def with_common(asked: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tunnels with what is said once for all of them, where they do not say it themselves."""
    given = {key: value for key, value in common.items() if value is not None}
    found = []
    for tunnel in asked:
        own = {key: value for key, value in tunnel.items() if value is not None}
        whole = {**given, **own}
        if "key_out" in own or "key_in" in own:
            whole = {**whole, "secret": own.get("secret")}
        if whole.get("mode") != MODES[IPTFS]:
            whole = {**whole, "iptfs": own.get("iptfs")}
        found.append(whole)
    return found


def compile_tunnels(asked: Sequence[Mapping[str, Any]], path: str = "tunnels", controller: str | None = None) -> Xfrm:
    """The states and policies of all tunnels. Raises InvalidInput with the path of what cannot be used.

    `controller`: the address that this call comes from, which no tunnel may take.
    """
    states: list[State] = []
    policies: list[Policy] = []
    reqids: dict[int, str] = {}
    for index, values in enumerate(asked):
        place = f"{path}[{index}]"
        parsed = TUNNEL_KEY(values, place)
        reqid = OWNED | int.from_bytes(hashlib.sha256(parsed["name"].encode()).digest()[:2], "big")
        if reqid in reqids:
            raise InvalidInput(
                f"{place}.name", parsed["name"], f"{reqids[reqid]} has this name, or its number; take another"
            )
        reqids[reqid] = f"{place}.name"
        tunnel = Tunnel(place, parsed, reqid)
        _check(tunnel, controller)
        states += _states(tunnel)
        policies += _policies(tunnel)
    _unique([(state.identity, "an SPI of the same address") for state in states], path)
    _unique([(policy.identity, "the same packets") for policy in policies], path)
    return Xfrm(tuple(sorted(states)), tuple(sorted(policies)))


def _unique(entries: Sequence[tuple[Any, str]], path: str) -> None:
    seen = set()
    for identity, what in entries:
        if identity in seen:
            raise InvalidInput(path, " ".join(map(str, identity)), f"two tunnels have {what}")
        seen.add(identity)


def _check(tunnel: Tunnel, controller: str | None) -> None:
    path, values = tunnel.path, tunnel.values
    if (":" in values["local"]) != (":" in values["remote"]) or values["local"] == values["remote"]:
        raise InvalidInput(f"{path}.remote", values["remote"], "write another address of the same family as `local`")
    if "secret" in values and ("key_out" in values or "key_in" in values):
        raise InvalidInput(f"{path}.secret", "what stands there", "write either `secret`, or `key_out` and `key_in`")
    if "secret" not in values:
        for side in ("key_out", "key_in"):
            _check_key(tunnel, side)
    if "iptfs" in values and tunnel.mode != IPTFS:
        raise InvalidInput(f"{path}.iptfs", dict(values["iptfs"]), "these options need `mode: iptfs`")
    if tunnel.mode == IPTFS and values.get("replay_window") == 0:
        raise InvalidInput(
            f"{path}.replay_window", 0, "`mode: iptfs` counts with 64 bits, which takes a window of 1 to 4096"
        )
    if not _pairs(tunnel):
        raise InvalidInput(
            f"{path}.remote_networks", values["remote_networks"], "write networks of the family of local_networks"
        )
    for network in values["remote_networks"]:
        if controller and _holds(network, controller) and not _holds(network, values["remote"]):
            raise InvalidInput(
                f"{path}.remote_networks",
                network,
                f"it holds {controller}, which this call comes from and would be cut off",
            )


def _check_key(tunnel: Tunnel, side: str) -> None:
    given, wanted = tunnel.values.get(side), key_bytes(tunnel.algorithm)
    if given is None or len(given) != wanted:
        found = "none" if given is None else f"{len(given)} bytes"
        raise InvalidInput(
            f"{tunnel.path}.{side}", found, f"{tunnel.algorithm} has keys of {wanted} bytes; or write a `secret`"
        )


def _holds(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _pairs(tunnel: Tunnel) -> list[tuple[str, str]]:
    """Networks here and there that one policy can name: of one family."""
    here, there = tunnel.values["local_networks"], tunnel.values["remote_networks"]
    return [(one, other) for one in here for other in there if (":" in one) == (":" in other)]


def _states(tunnel: Tunnel) -> list[State]:
    values = tunnel.values
    ways = (("out", values["local"], values["remote"]), ("in", values["remote"], values["local"]))
    found = []
    for direction, source, destination in ways:
        spi = values.get(f"spi_{direction}") or _spi(tunnel, source, destination)
        window = values.get("replay_window", WINDOW if tunnel.mode == IPTFS else 0)
        state = State(
            *(source, destination, spi, tunnel.reqid, tunnel.mode, _algorithms(tunnel, direction, source, destination)),
            window,
        )
        if tunnel.mode == IPTFS:
            # A state that sends has no window; 1 says that it counts with 64 bits, as codec.decode_state does.
            state = state._replace(
                direction=direction, iptfs=_iptfs(tunnel, direction), window=1 if direction == "out" else window
            )
        found.append(state)
    return found


def _iptfs(tunnel: Tunnel, direction: str) -> Iptfs:
    """The options of this direction; the kernel holds none of the other."""
    options = IPTFS_DEFAULTS._replace(**tunnel.values.get("iptfs", {}))
    if direction == "in":
        return Iptfs(drop_time=options.drop_time, reorder_window=options.reorder_window)
    return options._replace(drop_time=0, reorder_window=0)


def _policies(tunnel: Tunnel) -> list[Policy]:
    local, remote = tunnel.values["local"], tunnel.values["remote"]
    found = []
    for here, there in _pairs(tunnel):
        out = Policy("out", Selector(here, there), local, remote, tunnel.reqid, tunnel.mode)
        back = Policy("in", Selector(there, here), remote, local, tunnel.reqid, tunnel.mode)
        found += [out, back, back._replace(direction="fwd")]
    return found


def _way(tunnel: Tunnel, what: str, source: str, destination: str) -> bytes:
    """What both ends say of one direction of a tunnel."""
    return f"impair.testbed {what} {tunnel.algorithm} {MODES[tunnel.mode]} {source} {destination}".encode()


def _spi(tunnel: Tunnel, source: str, destination: str) -> int:
    number = int.from_bytes(hashlib.sha256(_way(tunnel, "spi", source, destination)).digest()[:4], "big")
    return SPI_LEAST + number % (2**32 - SPI_LEAST)


def _algorithms(tunnel: Tunnel, direction: str, source: str, destination: str) -> tuple[Algorithm, ...]:
    key = tunnel.values.get(f"key_{direction}")
    if key is None:
        way = _way(tunnel, "key", source, destination)
        blocks = (
            hmac.new(tunnel.values["secret"].encode(), way + bytes([block]), hashlib.sha256).digest()
            for block in range(3)
        )
        key = b"".join(blocks)
    parts, start = [], 0
    for role, name, length, icv in ALGORITHMS[tunnel.algorithm]:
        parts.append(Algorithm(role, name, Key(key[start : start + length]), icv))
        start += length
    order = ("aead", "auth-trunc", "enc")
    return tuple(sorted(parts, key=lambda part: order.index(part.role)))
