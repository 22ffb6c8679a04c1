# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind is: a table of functions between the user's words, the kernel's bytes and tc's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...schema import Parser


def _equal(desired: Any, observed: Any) -> bool:
    return bool(desired == observed)


def _always(_old: Any, _new: Any) -> str:
    return ""


def _nothing_below(_options: Any) -> int:
    return 0


class Kind(NamedTuple):
    """One kind of qdisc, class or filter.

    `build` makes options of parsed parameters (ValueError: a contradiction between them); `encode` and `decode`
    are the value of TCA_OPTIONS; `render` gives tc's words; `same` compares wanted with observed options;
    `unchangeable` names what a change message cannot do, "" when it can do everything. Where they are given:
    `change` is the value of TCA_OPTIONS of a change from (wanted, found), `settle` fills in (options, queue length in
    packets, bytes of the longest packet with its link header) what the kernel takes from the interface.
    `slots` is how many queues can stand below a qdisc, at its minors 1, 2, …
    """

    name: str
    parameters: Mapping[str, Parser]
    build: Callable[..., Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    render: Callable[[Any], str]
    same: Callable[[Any, Any], bool] = _equal
    unchangeable: Callable[[Any, Any], str] = _always
    change: Callable[[Any, Any], bytes] | None = None
    settle: Callable[[Any, int, int], Any] | None = None
    slots: Callable[[Any], int] = _nothing_below


def words(**values: str | int | None) -> str:
    """`name value` pairs as tc takes them; None is left out, underscores become spaces where tc has two words."""
    return " ".join([f"{name} {value}" for name, value in values.items() if value is not None])
