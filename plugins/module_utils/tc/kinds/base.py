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


class Kind(NamedTuple):
    """One kind of qdisc, class or filter.

    `build` makes options of parsed parameters (ValueError: a contradiction between them); `encode` and `decode`
    are the value of TCA_OPTIONS; `render` gives tc's words; `same` compares wanted with observed options;
    `unchangeable` names what a change message cannot do, "" when it can do everything.
    """

    name: str
    parameters: Mapping[str, Parser]
    build: Callable[..., Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    render: Callable[[Any], str]
    same: Callable[[Any, Any], bool] = _equal
    unchangeable: Callable[[Any, Any], str] = _always


def words(**values: str | int | None) -> str:
    """`name value` pairs as tc takes them; None is left out, underscores become spaces where tc has two words."""
    return " ".join(f"{name} {value}" for name, value in values.items() if value is not None)
