# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the user reads: each names the value, the place and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 120  # characters of a refused value that a message repeats


class TestbedError(Exception):
    """Base of everything that is reported as a failed task rather than as a crash."""

    __test__ = False  # the name starts with Test; it is no test case


def _shown(value: object) -> str:
    """The value as Python writes it, cut to a line that can be read."""
    try:
        shown = repr(value)
    except ValueError:  # a number of more digits than Python writes (sys.get_int_max_str_digits)
        return "this number"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


class InvalidInput(TestbedError):
    """A value from the inventory cannot be used. Raised before anything is touched."""

    def __init__(self, path: str, value: object, allowed: str) -> None:
        self.path = path
        self.value = value
        self.allowed = allowed
        place = path if path.isprintable() else path.encode("unicode_escape").decode("ascii")
        super().__init__(f"{place}: {_shown(value)} is refused; {allowed}")


class MissingCapability(TestbedError):
    """The node's kernel or tools cannot do what is asked; `feature` is the kernel option or program."""

    def __init__(self, what: str, feature: str, remedy: str = "") -> None:
        self.feature = feature
        super().__init__(f"{what} needs {feature}, which this node lacks" + (f"; {remedy}" if remedy else ""))


class ForeignState(TestbedError):
    """Kernel state that is not ours stands where ours has to go."""

    def __init__(self, place: str, found: str) -> None:
        super().__init__(
            f"{place} already holds `{found}`, which was not made by this collection; "
            "remove it, or set `purge: true` to replace it (it is then restored by clear)"
        )


class Disruptive(TestbedError):
    """A change would lose packets, or let them pass astray, and nobody allowed that."""

    def __init__(self, steps: Sequence[str], waiting: int, interface: str) -> None:
        super().__init__(
            f"this change is disruptive, with {waiting} packets waiting in {interface} now: {'; '.join(steps)}; "
            "set `disruptive: allow` to have it made"
        )


class StepFailed(TestbedError):
    """The kernel or a program refused a step."""

    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        self.reason = reason
        super().__init__(f"`{command}` failed: {reason}")


class NotConverged(TestbedError):
    """The kernel accepted every step and still reads back differently."""

    def __init__(self, steps: Sequence[str]) -> None:
        self.steps = tuple(steps)
        super().__init__("the kernel accepted every step, yet reads back differently; still to do: " + "; ".join(steps))


class RolledBack(TestbedError):
    """A change failed; `restored` tells whether the state before was put back."""

    def __init__(self, cause: TestbedError, restored: bool, detail: str = "") -> None:
        self.cause = cause
        self.restored = restored
        outcome = (
            "the state before was restored" if restored else f"restoring the state before failed as well: {detail}"
        )
        super().__init__(f"{cause} ({outcome})")
