# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary: what is refused, and that nothing makes the parser crash."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.errors import InvalidInput
from plugins.module_utils.impairment import model
from plugins.module_utils.impairment.match import _CONDITIONS as CONDITIONS
from tests.unit.impairment.refused import BY_THE_PARSER, Refused

LONGEST = 600  # characters of a message


@pytest.mark.parametrize("case", BY_THE_PARSER, ids=lambda case: f"{case.path}-{case.allowed}")
def test_refused_with_its_path_and_what_is_allowed(case: Refused) -> None:
    with pytest.raises(InvalidInput) as refusal:
        model.parse(case.interfaces)
    message = str(refusal.value)
    assert message.startswith(f"impairment_interfaces{case.path}: ")
    assert case.allowed in message.partition(" is refused; ")[2]
    assert len(message) <= LONGEST


def test_the_table_has_no_case_twice() -> None:
    seen = [repr(case.interfaces) for case in BY_THE_PARSER]
    assert len(set(seen)) == len(seen) >= 60


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["50ms", "1mbit", "1%", "0", "50p", "64kB", "eth0", "tcp", "10.0.0.0/8", "2001:db8::1", "ef"])
)
KEYS = st.sampled_from(
    ["name", "classes", "match", "direction", "every", "packet", "random", "correlation", "gemodel", "p", "state",
     "p13", "percent", "gap", "min", "max", *model._IMPAIRMENT, *CONDITIONS]
) | st.text(max_size=4)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def entry(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with the keys of the vocabulary and any values."""
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(model._IMPAIRMENT, VALUES), **more})


CLASS = entry(name=SCALARS, match=VALUES | st.fixed_dictionaries({}, optional=dict.fromkeys(CONDITIONS, VALUES)))
INTERFACE = entry(name=SCALARS, classes=st.lists(CLASS, max_size=3))


@given(VALUES | st.lists(VALUES | INTERFACE, max_size=3))
def test_anything_is_parsed_or_refused(interfaces: Any) -> None:
    try:
        found = model.parse(interfaces)
    except InvalidInput as refusal:
        assert refusal.path.startswith("impairment_interfaces")
        assert str(refusal).isprintable()
    else:
        assert len({entry.path for entry in found}) == len(interfaces)


@pytest.mark.parametrize("key", ["delay", "limit", "seed", "loss", "rate", "drop", "queue"])
def test_numbers_of_more_digits_than_python_writes_are_refused(key: str) -> None:
    with pytest.raises(InvalidInput):
        model.parse([{"name": "eth0", key: 10**5000}])


VALID: dict[str, Any] = {
    "rate": "1mbit", "ceil": "2mbit", "burst": "5kB", "delay": "5ms", "jitter": "1ms", "loss": "1%", "seed": 7,
    "drop": {"every": 20}, "queue": "64kB",
}  # fmt: skip


@given(st.sampled_from(sorted(model._IMPAIRMENT)), VALUES)
def test_one_odd_value_among_good_ones_is_refused_by_its_own_path(key: str, value: Any) -> None:
    try:
        model.parse([{"name": "eth0", "classes": [{"name": "a", **VALID, key: value}]}])
    except InvalidInput as refusal:
        assert refusal.path.startswith("impairment_interfaces[0].classes[0].")


def test_both_directions_are_two_and_each_may_have_its_own() -> None:
    both = model.parse([{"name": "eth0", "direction": "both", "delay": "5ms"}])
    assert [(entry.name, entry.direction, entry.path) for entry in both] == [
        ("eth0", "egress", "impairment_interfaces[0]"),
        ("eth0", "ingress", "impairment_interfaces[0]"),
    ]
    assert both[0].classes == both[1].classes
    apart = model.parse([{"name": "eth0", "direction": "ingress", "delay": "5ms"}, {"name": "eth0", "loss": "1%"}])
    assert [entry.direction for entry in apart] == ["ingress", "egress"]
    devices = {entry.device for entry in (*apart, *model.parse([{"name": "eth1", "direction": "ingress"}]))}
    assert len(devices) == 3 and all(len(device) <= 15 for device in devices)
