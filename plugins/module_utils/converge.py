# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only control flow: observe, plan, apply, observe again, and plan until nothing is left; or roll back.

A *domain* is one kind of kernel state (tc, chains, links …). Its states are immutable, and a state that was
observed can be given back as the desired one: roll-back, clear and revert are ordinary desired states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from .errors import NotConverged, RolledBack, TestbedError


class Step(NamedTuple):
    """One change to the kernel."""

    words: str | Callable[[], str]  # as a person would type it; made when somebody asks, where there may be thousands
    payload: Any  # what the domain's apply() works with
    retire: bool = False  # takes something away: runs after everything that adds or changes
    caution: str = ""  # what this step disturbs, said before it happens

    @property
    def command(self) -> str:
        """As a person would type it."""
        return self.words if isinstance(self.words, str) else self.words()

    @property
    def disruptive(self) -> bool:
        """Whether packets are lost or go astray by this step."""
        return self.caution.startswith("disruptive")

    def __str__(self) -> str:
        return f"{self.command}  # {self.caution}" if self.caution else self.command


class Domain(Protocol):
    """What every domain offers."""

    name: str

    def observe(self) -> Any:
        """Read the kernel's state."""

    def plan(self, current: Any, desired: Any) -> list[Step]:
        """Steps from current to desired; empty when they mean the same."""

    def apply(self, steps: Sequence[Step]) -> None:
        """Carry out the steps in order; raise StepFailed at the first refusal."""

    def describe(self, state: Any) -> list[str]:
        """The state in the words of the user's tools, for reports and diffs."""


class Target(NamedTuple):
    """A domain and the state that it is to have."""

    domain: Domain
    desired: Any


class Report(NamedTuple):
    """What was found, what was (or in check mode would be) done, and what stands now."""

    changed: bool
    planned: tuple[Step, ...]
    domains: tuple[Domain, ...]
    states: tuple[Any, ...]  # observed before, one per domain: what a revert gives back
    standing: tuple[Any, ...]  # observed after

    @property
    def steps(self) -> list[str]:
        """As a person would type them, with what they disturb."""
        return [str(step) for step in self.planned]

    @property
    def before(self) -> list[str]:
        """In the words of the user's tools; made when somebody asks, as they are long for large trees."""
        return self._lines(self.states)

    @property
    def after(self) -> list[str]:
        return self._lines(self.standing)

    def _lines(self, states: tuple[Any, ...]) -> list[str]:
        return [line for domain, state in zip(self.domains, states) for line in domain.describe(state)]


def _nothing(_states: Sequence[Any], _steps: Sequence[Step]) -> None:
    """What happens before the first write where nobody asked for anything."""


Begin = Callable[[Sequence[Any], Sequence[Step]], None]


def converge(targets: Sequence[Target], check: bool = False, begin: Begin = _nothing) -> Report:
    """Bring every target to its desired state.

    In check mode nothing is written: `steps` says what would be done and `after` is what stands.
    `begin` is called with the observed states and the steps before the first write, if there is one; what it raises
    passes through.
    Raises RolledBack when a step fails or the kernel reads back differently; TestbedError subclasses
    from observe and plan pass through, as nothing was touched by then.
    """
    before = tuple(target.domain.observe() for target in targets)
    plans = _plans(targets, before)
    steps = tuple(step for _domain, step in _ordered(plans))
    domains = tuple(target.domain for target in targets)
    if check or not steps:
        return Report(bool(steps), steps, domains, before, before)
    begin(before, steps)
    try:
        _apply(plans)
        after = tuple(target.domain.observe() for target in targets)
        left = [str(step) for _domain, step in _ordered(_plans(targets, after))]
        if left:
            raise NotConverged(left)
    except TestbedError as cause:
        raise _roll_back(targets, before, cause) from cause
    return Report(True, steps, domains, before, after)


def revert(targets: Sequence[Target], states: Sequence[Any]) -> Report:
    """Give back observed states: the desired state is what stood before."""
    return converge([Target(target.domain, state) for target, state in zip(targets, states)])


def _plans(targets: Sequence[Target], states: Sequence[Any]) -> list[tuple[Domain, list[Step]]]:
    return [(target.domain, target.domain.plan(state, target.desired)) for target, state in zip(targets, states)]


def _ordered(plans: Sequence[tuple[Domain, list[Step]]]) -> Iterable[tuple[Domain, Step]]:
    """Adding goes from the first domain to the last, taking away from the last to the first."""
    for domain, steps in plans:
        yield from ((domain, step) for step in steps if not step.retire)
    for domain, steps in reversed(plans):
        yield from ((domain, step) for step in steps if step.retire)


def _apply(plans: Sequence[tuple[Domain, list[Step]]]) -> None:
    """Hand each run of steps of one domain to that domain at once: it may send them together."""
    run: list[Step] = []
    owner: Domain | None = None
    for domain, step in _ordered(plans):
        if domain is not owner and owner is not None:
            owner.apply(run)
            run = []
        owner = domain
        run.append(step)
    if owner is not None:
        owner.apply(run)


def _roll_back(targets: Sequence[Target], before: Sequence[Any], cause: TestbedError) -> RolledBack:
    back = [Target(target.domain, state) for target, state in zip(targets, before)]
    try:
        _apply(_plans(back, [target.domain.observe() for target in back]))
        left = [str(step) for _domain, step in _ordered(_plans(back, [target.domain.observe() for target in back]))]
    except TestbedError as error:
        return RolledBack(cause, False, str(error))
    return RolledBack(cause, not left, "; ".join(left))
