# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be measured of what is asked."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.module_utils.measure.asked import parse_asked


@pytest.mark.parametrize(
    ("keys", "rate"),
    [
        ({"rate": "128kbit"}, 128_000),
        ({"rate": "1mbit", "ceil": "10mbit"}, 10_000_000),
        ({"rate": "10mbit", "overhead": "100B"}, 10_000_000 * 1514 / 1614),
        ({"rate": "10mbit", "linklayer": "atm", "overhead": "10B"}, 10_000_000 * 1514 / 1696),
        ({"rate": "1mbit", "linklayer": "atm"}, 1_000_000 * 514 / (11 * 53)),  # packets of 514 bytes measure it
        ({"rate": "1mbit", "mpu": "1028B"}, 1_000_000),
        ({"rate": "100kbit", "mpu": "1028B"}, 50_000),
    ],
    ids=str,
)
def test_rate_at_layer_2(keys: dict[str, Any], rate: float) -> None:
    found = parse_asked({**keys, "queue": "100ms", "discipline": "pfifo"})
    assert found.rate == pytest.approx(rate)
    assert not found.unjudged


def test_the_middle_and_the_spread_of_distributions() -> None:
    plain = {"delay": "50ms", "jitter": "10ms"}
    assert parse_asked(plain) == parse_asked({**plain, "distribution": "uniform"})
    normal = parse_asked({**plain, "distribution": "normal"})
    assert (normal.middle, normal.spread) == (pytest.approx(0, abs=1e-5), pytest.approx(1.349, abs=1e-3))
    pareto = parse_asked({**plain, "distribution": "pareto"})
    assert pareto.middle == pytest.approx(-0.0032, abs=1e-4)  # most come early, a few very late
    measured = parse_asked({"distribution": ["10ms", "20ms", "20ms", "30ms"]})
    assert (measured.delay, measured.jitter) == (pytest.approx(0.02), pytest.approx(0.00707, abs=1e-5))
    assert not measured.unjudged


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"drop": {"every": 20}}, {"every": 20}),
        ({"drop": {"every": 20, "packet": 3}}, {"every": 20}),
        ({"drop": {"pattern": "0010"}}, {"pattern": "0010"}),
        ({"drop": {"random": "10%", "seed": 3}}, {"loss": 0.1}),
        ({"drop": {"random": "10%"}, "loss": "50%"}, {"loss": 0.55}),
        ({"drop": {"gemodel": {"p": "1%", "r": "9%"}}}, {"loss": 0.1, "loss_memory": 0.9}),
        ({"corrupt": {"every": 4, "offset": 3}}, {"corrupt": 0.25, "corrupt_pattern": "0001"}),
        ({"corrupt": "5%"}, {"corrupt": 0.05}),
        ({"corrupt": {"percent": "5%", "correlation": "10%"}}, {"corrupt": 0.05}),
        ({"duplicate": {"pattern": "110"}}, {"duplicate": 2 / 3, "duplicate_pattern": "110"}),
        ({"duplicate": {"random": "5%"}}, {"duplicate": 0.05}),
        ({"set_mark": "0x5/0xff"}, {"unjudged": ("set_mark",)}),
        ({"corrupt": {"every": 4, "checksum": "fix"}}, {"unjudged": ("corrupt",)}),
        ({"drop": {"state": {"p13": "1%"}}}, {"unjudged": ("drop",)}),
    ],
    ids=str,
)
def test_faults_of_chosen_packets(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    found = parse_asked(keys)
    shown = {name: value for name, value in found._asdict().items() if value != getattr(parse_asked({}), name)}
    assert shown == {
        name: value if isinstance(value, (str, tuple)) else pytest.approx(value) for name, value in expected.items()
    }


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({"drop": {"every": 4}}, 0.75),
        ({"drop": {"pattern": "110"}}, 1 / 3),
        ({"loss": "10%", "drop": {"every": 2}}, 0.45),
    ],
    ids=str,
)
def test_what_is_left_of_a_rate(keys: dict[str, Any], kept: float) -> None:
    assert parse_asked(keys).kept == pytest.approx(kept)
