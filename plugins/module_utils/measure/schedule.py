# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many packets of which size and pace, in which order: bounded in time, bytes and packets."""

from __future__ import annotations

import math
from typing import NamedTuple

from .asked import Asked
from .flows import Flow, Subject

TRAIN, RATE, REQUEST, REPLY = 1, 2, 3, 4  # as in files/probe/probe.h
LEAST = {"udp": 70, "icmp": 70, "tcp": 82}  # layer 2 length of the smallest numbered packet
FULL = 1514
HEAVY = 5e6  # bit/s; above it a rate is measured with nothing else on the wire
FAST = 20e6  # bit/s; above it a second of packets is enough
OVERLOAD = 1.5
WINDOWS = 4  # of a rate above HEAVY


class Limits(NamedTuple):
    """What the user allows."""

    packets: int = 2000  # numbered packets a class
    requests: int = 100  # timed requests a class
    seconds: float = 25.0  # that one series may take
    pace: float = 500.0  # packets a second, at most, of a numbered series
    calibrate: bool = True
    port: int = 40404


class Series(NamedTuple):
    """One command of the probe."""

    command: str  # send, rtt or wait
    flow: int
    kind: int = 0
    packets: int = 0
    rate: float = 0.0  # packets a second
    length: int = 0  # layer 2, bytes
    limit: float = 0.0  # seconds
    unimpaired: bool = False  # through the calibration port rather than the class; requests alternate

    @property
    def seconds(self) -> float:
        return self.packets / self.rate if self.rate else self.limit


def train_length(flow: Flow, asked: Asked) -> int:
    """A length of its own for each flow that is corrupted: a frame beyond recognition still has its length.

    An odd one, as all other numbered packets and what kernels answer have even ones.
    """
    return LEAST[flow.protocol] + (2 * flow.id + 1 if asked.corrupt else 0)


def requests(subject: Subject, limits: Limits) -> Series:
    """Timed requests: slow enough for jitter not to reorder them, and below a quarter of the rate."""
    asked, flow = subject.asked, subject.way
    length = LEAST[flow.protocol]
    rate = min(50.0, 1 / (2.5 * asked.jitter) if asked.jitter else 50.0)
    if asked.rate:
        rate = min(rate, asked.rate / 4 / (8 * length))
    count = max(5, min(limits.requests, int(rate * limits.seconds / 4)))
    return Series("rtt", flow.id, REQUEST, count, rate, length, count / rate + 5 + 4 * (asked.delay + asked.jitter))


def train(subject: Subject, limits: Limits) -> Series:
    """Numbered packets below the class's rate, so that nothing is lost to a full queue."""
    asked, flow = subject.asked, subject.way
    length = train_length(flow, asked)
    rate = min(limits.pace, 0.85 * asked.rate / (8 * length)) if asked.rate else limits.pace
    count = max(1, min(limits.packets, int(rate * limits.seconds)))
    return Series("send", flow.id, TRAIN, count, rate, length, 2 * count / rate + 5)


def overload(subject: Subject, limits: Limits) -> Series | None:
    """1.5 times the asked rate behind the class's own drops, long enough for the burst not to count."""
    asked, flow = subject.asked, subject.flow
    if not asked.rate or asked.loss >= 0.9 or flow is None:
        return None
    length = FULL if asked.rate >= 1e6 else 514
    seconds = 6.0 if asked.rate < 1e6 else 2.0 if asked.rate < FAST else 1.0
    seconds = max(seconds, 40 * length * 8 / asked.rate, 5 * asked.burst * 8 / asked.rate)
    seconds = min(seconds, limits.seconds)
    rate = OVERLOAD * asked.rate / (8 * length) / max(asked.kept, 0.1)
    return Series("send", flow.id, RATE, max(1, math.ceil(rate * seconds)), rate, length, 2 * OVERLOAD * seconds + 2)


def drain(asked: Asked, sent: Series, spare: float = 0.5) -> Series:
    """Wait for what an overload left in the queue."""
    left = (OVERLOAD - 1) * sent.seconds + asked.delay + asked.jitter
    return Series("wait", sent.flow, limit=min(left, 30.0) + spare)


def capacity(sent: Series) -> Series:
    """The same load on the unimpaired path for less time: what it can carry at all."""
    return sent._replace(packets=max(20, math.ceil(0.6 * sent.packets)), unimpaired=True)


class Stage(NamedTuple):
    """What is sent at the same time: chains of series, each chain from one node."""

    name: str
    chains: tuple[tuple[str, tuple[Series, ...]], ...]  # (sender, series one after the other)

    @property
    def seconds(self) -> float:
        return max((sum(one.seconds for one in chain) for _unused, chain in self.chains), default=0.0)


def stages(found: list[Subject], limits: Limits) -> list[Stage]:
    """Delays with nothing heavy beside them; then losses and slow rates together; then each fast rate alone."""
    measured = [one for one in found if one.flow]
    if not measured:
        return []
    light: list[tuple[str, tuple[Series, ...]]] = []
    later: list[Stage] = []
    for subject in measured:
        series, alone = _sends(subject, limits)
        light.append((subject.way.sender, series))
        later += alone
    return [Stage("delay", _timed(measured, limits)), Stage("packets", tuple(light)), *later]


def repeats(found: list[Subject], limits: Limits) -> list[Stage]:
    """What may be measured a second time, each with nothing else on the wire: delays and rates."""
    made: list[Stage] = []
    for subject in found:
        if subject.flow is None:
            continue
        sender, load = subject.way.sender, overload(subject, limits)
        made.append(Stage(f"delay {subject.way.id}", ((sender, (requests(subject, limits),)),)))
        if load:
            made.append(Stage(f"rate {subject.way.id}", ((sender, _alone(subject, load, limits)),)))
    return made


def _alone(subject: Subject, load: Series, limits: Limits) -> tuple[Series, ...]:
    """Overloads between those of the unimpaired path, as short as the burst allows: a busy machine changes."""
    asked = subject.asked
    if not limits.calibrate:
        return load, drain(asked, load)
    shortest = max(0.25 if asked.rate >= FAST else 0.4, 5 * asked.burst * 8 / asked.rate)
    if asked.rate > HEAVY and WINDOWS * shortest <= 2 * load.seconds:
        windows, load = WINDOWS, load._replace(packets=math.ceil(shortest * load.rate))
    else:
        windows = 1
    plain = capacity(load)
    pause, after = Series("wait", load.flow, limit=0.15), drain(asked, load, 0.15)
    return (*(plain, pause, load, after) * windows, plain)


def _timed(measured: list[Subject], limits: Limits) -> tuple[tuple[str, tuple[Series, ...]], ...]:
    """One sender's requests one class after the other, three at most in a row: they disturb each other little."""
    senders: dict[str, list[Series]] = {}
    for subject in measured:
        senders.setdefault(subject.way.sender, []).append(requests(subject, limits))
    return tuple(
        (sender, tuple(series[start : start + 3]))
        for sender, series in senders.items()
        for start in range(0, len(series), 3)
    )


def _sends(subject: Subject, limits: Limits) -> tuple[tuple[Series, ...], list[Stage]]:
    """A subject's part of the common stage, and stages of its own."""
    flow, asked = subject.way, subject.asked
    numbered, load = train(subject, limits), overload(subject, limits)
    quiet = Series("wait", flow.id, limit=0.3 + asked.delay + asked.jitter)
    alone: list[Stage] = []
    common: tuple[Series, ...] = (numbered, quiet)
    if asked.shared:  # a counter shared with another direction: nothing else may count
        alone.append(Stage(f"packets {flow.id}", ((flow.sender, common),)))
        common = ()
    if load and asked.rate > HEAVY:
        alone.append(Stage(f"rate {flow.id}", ((flow.sender, _alone(subject, load, limits)),)))
    elif load:
        common = (*common, load, drain(asked, load))
    return common, alone
