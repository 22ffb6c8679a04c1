# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schemas as data: parsers that know the path of the value they refuse.

A Parser takes (value, path) and returns the value in kernel units, or raises InvalidInput with that path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import units
from .errors import InvalidInput

Parser = Callable[[object, str], Any]


def leaf(parse: Callable[[object], Any], keep: bool = True) -> Parser:
    """A parser of one value out of a function that raises ValueError with what is allowed.

    `keep`: a text means the same next time; not so where it is looked up on the node.
    """
    known: dict[str, Any] = {}  # a thousand classes say the same few texts, and it is never more than what was given

    def parsed(value: object, path: str) -> Any:
        if value.__class__ is str and value in known:
            return known[value]
        try:
            result = parse(value)
        except ValueError as error:
            raise InvalidInput(path, value, str(error)) from None
        if keep and isinstance(value, str):
            known[value] = result
        return result

    return parsed


def choice(*allowed: str) -> Parser:
    """One word out of several."""

    def parsed(value: object, path: str) -> str:
        if value not in allowed:
            raise InvalidInput(path, value, "allowed: " + ", ".join(allowed))
        return str(value)

    return parsed


def text(value: object, path: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(path, value, "write a text")
    return str(value)


def mapping(fields: Mapping[str, Parser], required: Sequence[str] = ()) -> Parser:
    """A dictionary with known keys; parsed into a dictionary of those that were given."""

    def parsed(value: object, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidInput(path, value, "write a mapping with the keys " + ", ".join(fields))
        prefix = f"{path}." if path else ""
        for key in value:
            if key not in fields:
                raise InvalidInput(f"{prefix}{key}", value[key], "unknown key; allowed: " + ", ".join(fields))
        for key in required:
            if value.get(key) is None:
                raise InvalidInput(f"{prefix}{key}", None, "this key is required")
        return {str(key): fields[key](item, prefix + key) for key, item in value.items() if item is not None}

    return parsed


def sequence(of: Parser) -> Parser:
    """A list; each element is parsed with its index in the path."""

    def parsed(value: object, path: str) -> list[Any]:
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
            raise InvalidInput(path, value, "write a list")
        return [of(item, f"{path}[{index}]") for index, item in enumerate(value)]

    return parsed


def either(short: Parser, long: Parser) -> Parser:
    """A short form, or a mapping with more to say."""

    def parsed(value: object, path: str) -> Any:
        return long(value, path) if isinstance(value, Mapping) else short(value, path)

    return parsed


def whole_number(least: int, most: int) -> Parser:
    """A number from `least` to `most`."""
    return leaf(lambda value: units.parse_integer(value, least, most))


def not_supported(what: str) -> Parser:
    """A key that is known and cannot be used here: `what` says why."""

    def refuse(value: object, path: str) -> Any:
        raise InvalidInput(path, value, what)

    return refuse
