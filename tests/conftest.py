# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: `long` ones run by `make test-long` (pytest --long) alone; examples are not timed, and only
there are they others each time. What takes minutes comes first: no worker is left alone with it at the end."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How long an example of hypothesis takes, or its data, is no failure.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", UNTIMED)
settings.register_profile("repeat", UNTIMED, derandomize=True)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("explore" if config.getoption("--long") else "repeat")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that are marked long, and only these")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = bool(config.getoption("--long"))
    others = [item for item in items if bool(item.get_closest_marker("long")) != wanted]
    config.hook.pytest_deselected(items=others)
    chosen = [item for item in items if item not in others]
    items[:] = sorted(chosen, key=lambda item: item.get_closest_marker("minutes") is None)
