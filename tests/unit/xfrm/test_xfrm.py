# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels as they are asked for, the states and policies that come of them, their bytes, and plans between them."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.netlink import Socket
from plugins.module_utils.xfrm import codec
from plugins.module_utils.xfrm.asked import ALGORITHMS, compile_tunnels, with_common
from plugins.module_utils.xfrm.domain import SKIPPED, XfrmDomain
from plugins.module_utils.xfrm.model import Algorithm, Count, Xfrm

SECRET = "one secret of at least so many characters"


def tunnel(**more: Any) -> dict[str, Any]:
    asked = {
        "name": "t",
        "local": "10.0.1.1",
        "remote": "10.0.1.2",
        "local_networks": ["10.0.0.0/24"],
        "remote_networks": ["10.0.2.0/24"],
        "secret": SECRET,
    }
    return {**asked, **more}


def other_end(**more: Any) -> dict[str, Any]:
    ends = {"local": "10.0.1.2", "remote": "10.0.1.1"}
    return tunnel(**ends, local_networks=["10.0.2.0/24"], remote_networks=["10.0.0.0/24"], **more)


@pytest.mark.parametrize("mode", ["tunnel", "iptfs"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_ends_come_to_the_same(mode: str, algorithm: str) -> None:
    asked = {"mode": mode, "algorithm": algorithm}
    here, there = (keys(end) for end in (tunnel(**asked), other_end(**asked)))
    assert here == there and len(here) == 2
    first, second = here.values()
    assert first != second
    assert [part.name for part in first] == [part[1] for part in ALGORITHMS[algorithm]]
    assert [len(part.key.data) for part in first] == [part[2] for part in ALGORITHMS[algorithm]]
    others = keys(tunnel(**asked, secret=SECRET * 2))
    assert others.keys() == here.keys() and not set(others.values()) & set(here.values())


def keys(asked: dict[str, Any]) -> dict[tuple[str, str, int], tuple[Algorithm, ...]]:
    return {(one.source, one.destination, one.spi): one.algorithms for one in compile_tunnels([asked]).states}


WHOLE: dict[str, Any] = {"packet_size": "1400B", "dont_fragment": True, "init_delay": "1ms", "max_queue": "1MB"}
MANY = [
    tunnel(),
    tunnel(mode="iptfs"),
    tunnel(mode="iptfs", iptfs={**WHOLE, "drop_time": "500ms", "reorder_window": 16}, replay_window=300),
    tunnel(algorithm="aes256-sha256", replay_window=128, spi_out=0x101, spi_in=0x102),
    {
        **tunnel(local="fd00::1", remote="fd00::2"),
        "local_networks": ["10.0.0.0/24", "fd01::/64"],
        "remote_networks": ["0.0.0.0/0", "::/0"],
    },
]


@pytest.mark.parametrize("asked", MANY, ids=range(len(MANY)))
def test_bytes_read_back_as_what_was_written(asked: dict[str, Any]) -> None:
    desired = compile_tunnels([asked])
    for state in desired.states:
        numbers = Count(0 if state.direction == "in" else 7 << 32 | 9, 0 if state.direction == "out" else 5)
        counted = state._replace(numbers=numbers)
        found = codec.decode_state(codec.encode_state(counted).body)
        assert found.state.same(state) and found.protocol == 50
        assert found.state.numbers == (numbers if state.window else Count(9, 0))
    for policy in desired.policies:
        assert codec.decode_policy(codec.encode_policy(policy).body) == policy


def test_policies_of_every_pair_of_networks_of_one_family() -> None:
    desired = compile_tunnels([MANY[-1]])
    pairs = {(policy.direction, *policy.selector) for policy in desired.policies}
    assert pairs == {
        *((way, "0.0.0.0/0", "10.0.0.0/24") for way in ("in", "fwd")),
        *((way, "::/0", "fd01::/64") for way in ("in", "fwd")),
        ("out", "10.0.0.0/24", "0.0.0.0/0"),
        ("out", "fd01::/64", "::/0"),
    }


REFUSED = [
    (tunnel(secret="short"), "tunnels[0].secret"),
    (tunnel(local="10.0.1"), "tunnels[0].local"),
    (tunnel(remote="fd00::1"), "tunnels[0].remote"),
    (tunnel(remote="10.0.1.1"), "tunnels[0].remote"),
    (tunnel(local="224.0.0.1"), "tunnels[0].local"),
    (tunnel(remote_networks=["10.0.2.1/24"]), "tunnels[0].remote_networks[0]"),
    (tunnel(remote_networks=["fd00::/64"]), "tunnels[0].remote_networks"),
    (tunnel(remote_networks=["192.0.2.0/24"]), "tunnels[0].remote_networks"),  # where the call comes from
    (tunnel(secret=None), "tunnels[0].key_out"),
    (tunnel(secret=None, key_out="00" * 20), "tunnels[0].key_in"),
    (tunnel(secret=None, key_out="00" * 19, key_in="00" * 20), "tunnels[0].key_out"),
    (tunnel(secret=None, key_out="g" * 40, key_in="00" * 20), "tunnels[0].key_out"),
    (tunnel(key_out="00" * 20), "tunnels[0].secret"),
    (tunnel(mode="transport"), "tunnels[0].mode"),
    (tunnel(spi_out=255), "tunnels[0].spi_out"),
    (tunnel(replay_window=5000), "tunnels[0].replay_window"),
    (tunnel(mode="iptfs", replay_window=0), "tunnels[0].replay_window"),
    (tunnel(iptfs={"init_delay": "1ms"}), "tunnels[0].iptfs"),
    (tunnel(mode="iptfs", iptfs={"init_delay": "1"}), "tunnels[0].iptfs.init_delay"),
    (tunnel(mode="iptfs", iptfs={"drop_time": "500ns"}), "tunnels[0].iptfs.drop_time"),
    (tunnel(mode="iptfs", iptfs={"drop_time": "2h"}), "tunnels[0].iptfs.drop_time"),
    (tunnel(mode="iptfs", iptfs={"packet_size": 1400}), "tunnels[0].iptfs.packet_size"),
    (tunnel(mode="iptfs", iptfs={"reorder_window": 65536}), "tunnels[0].iptfs.reorder_window"),
]


@pytest.mark.parametrize(("asked", "path"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_is_refused_with_its_path(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compile_tunnels([asked], controller="192.0.2.7")
    assert refused.value.path == path
    assert SECRET not in str(refused.value) and "g" * 40 not in str(refused.value)


def test_two_tunnels_do_not_meet() -> None:
    far = {"remote": "10.0.1.3", "remote_networks": ["10.0.3.0/24"]}
    found = compile_tunnels([tunnel(), tunnel(name="u", **far)])
    assert len(found.states) == 4 and len({state.reqid for state in found.states}) == 2
    for clash in (far, {"name": "u", "remote": "10.0.1.3"}, {"name": "u", "remote_networks": ["10.0.3.0/24"]}):
        with pytest.raises(InvalidInput):
            compile_tunnels([tunnel(), tunnel(**clash)])


def test_what_is_said_once_holds_where_a_tunnel_does_not_say_it() -> None:
    common = {"mode": "iptfs", "algorithm": "aes256gcm16", "secret": SECRET, "iptfs": {"init_delay": "1ms"}}
    bare = tunnel(secret=None)
    own: dict[str, Any] = {"mode": "iptfs", "algorithm": "aes256gcm16", "iptfs": {"init_delay": "1ms"}}
    assert with_common([bare], common)[0] == tunnel(**own)
    esp = with_common([{**bare, "mode": "tunnel", "key_out": "00", "iptfs": None}], common)[0]
    assert (esp["mode"], esp["secret"], esp["iptfs"]) == ("tunnel", None, None)


def plan(current: Xfrm, desired: Xfrm) -> list[str]:
    with Socket() as unused:
        return [f"{step.words} {'late' * step.retire}".strip() for step in XfrmDomain(unused).plan(current, desired)]


def test_what_sends_comes_last_and_goes_first() -> None:
    wanted = compile_tunnels([tunnel()])
    kinds = [step.split(" src")[0] for step in plan(Xfrm(), wanted)]
    assert kinds == ["ip xfrm state add"] * 2 + ["ip xfrm policy add"] * 3
    assert "dir out" in plan(Xfrm(), wanted)[-1]
    gone = plan(wanted, Xfrm())
    assert "policy delete" in gone[0] and "dir out" in gone[0] and all(step.endswith("late") for step in gone)
    assert ["state delete" in step for step in gone] == [False] * 3 + [True] * 2
    assert not plan(wanted, wanted)


def test_a_state_made_again_goes_on_counting() -> None:
    old = compile_tunnels([tunnel(mode="iptfs")])
    numbers = {"out": Count(1000, 0), "in": Count(0, 500)}
    counted = Xfrm(tuple(one._replace(numbers=numbers[one.direction]) for one in old.states), old.policies)
    wanted = compile_tunnels([tunnel(mode="iptfs", secret=SECRET * 2)])
    with Socket() as unused:
        steps = XfrmDomain(unused).plan(counted, wanted)
    assert [step.disruptive for step in steps] == [True, False] * 2
    made = [codec.decode_state(step.payload.body).state for step in steps[1::2]]
    assert {one.direction: one.numbers for one in made} == {"out": Count(1000 + SKIPPED, 0), "in": Count(0, 500)}
    secrets = [algorithm.key.data.hex() for one in made for algorithm in one.algorithms]
    assert not any(secret in str(step) for secret in secrets for step in steps)
