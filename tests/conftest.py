# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: tests marked `long` run by `make test-long` (pytest --long) alone, and no example is timed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How long an example of hypothesis takes, or its data, is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that are marked long, and only these")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = bool(config.getoption("--long"))
    others = [item for item in items if bool(item.get_closest_marker("long")) != wanted]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
