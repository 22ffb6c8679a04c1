# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain xfrm: the IPsec states and policies of ours in this network namespace; those of others stay."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from ..converge import Step
from ..errors import StepFailed, TestbedError
from ..netlink import Message, Socket
from . import codec
from .model import MODES, Count, Policy, Selector, State, Xfrm, owned

SKIPPED = 1 << 16  # sequence numbers left out where a state is made again: more than are sent meanwhile
LOST = "disruptive: packets of the tunnel are lost until the new state stands, less than a millisecond"


class XfrmDomain:
    """Observe, plan and apply. Ours are told by their reqid."""

    name = "xfrm"

    def __init__(self, kernel: Socket) -> None:
        self._kernel = kernel

    def observe(self) -> Xfrm:
        states, policies = self._everything()
        return Xfrm(
            tuple(sorted(found.state for found in states if owned(found.state.reqid))),
            tuple(sorted(policy for policy in policies if owned(policy.reqid))),
        )

    def _everything(self) -> tuple[list[codec.Found], list[Policy]]:
        states = [codec.decode_state(body) for body in self._kernel.dump(Message(codec.GETSA, 0, b""))]
        policies = [codec.decode_policy(body) for body in self._kernel.dump(Message(codec.GETPOLICY, 0, b""))]
        return states, [policy for policy in policies if policy is not None]

    def claim(self, desired: Xfrm) -> None:
        """Raise TestbedError where somebody else's state or policy stands in the place of one that is wanted."""
        states, policies = self._everything()
        spis = {state.identity for state in desired.states}
        for found in states:
            if found.protocol == socket.IPPROTO_ESP and not owned(found.state.reqid) and found.state.identity in spis:
                raise _foreign("a state", _state_place(found.state))
        taken = {policy.identity for policy in desired.policies}
        for policy in policies:
            if not owned(policy.reqid) and policy.identity in taken:
                raise _foreign("a policy", _policy_place(policy))

    def plan(self, current: Xfrm, desired: Xfrm) -> list[Step]:
        steps = list(_state_steps(current, desired))
        standing = {policy.identity: policy for policy in current.policies}
        for policy in sorted(desired.policies, key=lambda one: one.direction == "out"):  # what sends comes last
            if policy.identity not in standing:
                steps.append(Step(f"ip xfrm policy add {_policy_words(policy)}", codec.encode_policy(policy)))
            elif policy != standing[policy.identity]:
                message = codec.encode_policy(policy, codec.UPDPOLICY)
                steps.append(Step(f"ip xfrm policy update {_policy_words(policy)}", message))
        kept = {policy.identity for policy in desired.policies}
        for policy in sorted(current.policies, key=lambda one: one.direction != "out"):
            if policy.identity not in kept:
                words = f"ip xfrm policy delete {_policy_place(policy)}"
                steps.append(Step(words, codec.encode_policy_deletion(policy), retire=True))
        spis = {state.identity for state in desired.states}
        gone = [state for state in current.states if state.identity not in spis]
        return steps + [_deletion(state, retire=True) for state in gone]

    def apply(self, steps: Sequence[Step]) -> None:
        for refusal in self._kernel.send([step.payload for step in steps]):
            raise StepFailed(steps[refusal.index].command, refusal.reason)

    def describe(self, state: Xfrm) -> list[str]:
        lines = [f"state {_state_words(one)}" for one in state.states]
        return lines + [f"policy {_policy_words(one)}" for one in state.policies]


def _state_steps(current: Xfrm, desired: Xfrm) -> list[Step]:
    """The kernel changes neither keys nor options of a state: it is made again, and goes on counting for its peer."""
    standing = {state.identity: state for state in current.states}
    steps = []
    for state in desired.states:
        found = standing.get(state.identity)
        if found is not None and state.same(found):
            continue
        if found is not None:
            steps.append(_deletion(found)._replace(caution=LOST))
        count = found.numbers if found is not None else state.numbers
        again = state._replace(numbers=Count(count.sent + SKIPPED * bool(count.sent), count.received))
        steps.append(Step(f"ip xfrm state add {_state_words(state)}", codec.encode_state(again)))
    return steps


def _deletion(state: State, retire: bool = False) -> Step:
    return Step(f"ip xfrm state delete {_state_place(state)}", codec.encode_deletion(state), retire)


def _foreign(what: str, found: str) -> TestbedError:
    return TestbedError(
        f"{what} of somebody else stands in the place of one that is asked: {found}; remove it, or ask for another"
    )


def _state_place(state: State) -> str:
    return f"src {state.source} dst {state.destination} proto esp spi {state.spi:#010x}"


def _state_words(state: State) -> str:
    words = [_state_place(state), f"reqid {state.reqid:#x} mode {MODES.get(state.mode, state.mode)}"]
    if state.direction:
        words.append(f"dir {state.direction}")
    words += [f"{one.role} {one.name} {one.key!r}" + (f" {one.icv}" if one.icv else "") for one in state.algorithms]
    if state.window:
        words.append("flag esn" + (f" replay-window {state.window}" if state.direction != "out" else ""))
    if state.flags:
        words.append(f"flag {state.flags:#x}")
    return " ".join(words + _iptfs_words(state))


def _iptfs_words(state: State) -> list[str]:
    options = state.iptfs
    if options is None:
        return []
    if state.direction == "in":
        return [f"iptfs-opts drop-time {options.drop_time} reorder-window {options.reorder_window}"]
    words = (
        f"iptfs-opts pkt-size {options.packet_size} init-delay {options.init_delay} max-queue-size {options.max_queue}"
    )
    return [words + " dont-frag" * options.dont_fragment]


def _selector_words(selector: Selector) -> str:
    return f"src {selector.source} dst {selector.destination}"


def _policy_place(policy: Policy) -> str:
    return f"{_selector_words(policy.selector)} dir {policy.direction}"


def _policy_words(policy: Policy) -> str:
    ends = f"src {policy.source} dst {policy.destination}"
    mode = MODES.get(policy.mode, policy.mode)
    words = f"{_policy_place(policy)} tmpl {ends} proto esp reqid {policy.reqid:#x} mode {mode}"
    return words + (f" ({policy.foreign} of somebody else)" if policy.foreign else "")
