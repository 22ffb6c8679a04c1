# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are open, and nodes that another has taken the place of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.module_utils.errors import TestbedError
from plugins.module_utils.usb.held import wait_until_closed
from plugins.module_utils.usb.probe import Echo


def test_who_has_a_device_open_is_told() -> None:
    master, terminal = os.openpty()
    try:
        device = os.fstat(terminal).st_rdev
        number = f"{os.major(device)}:{os.minor(device)}"
        with pytest.raises(TestbedError, match=rf"\(pid {os.getpid()}\) did not close it within 0.1 s"):
            wait_until_closed(number, 0.1)
    finally:
        os.close(terminal)
    wait_until_closed(number, 0.1)
    os.close(master)


def test_the_echo_sees_that_its_node_is_another_one(tmp_path: Path) -> None:
    """A name that was given again, as /dev/hidg0 is when a gadget is made anew."""
    node = tmp_path / "hidg0"
    os.mkfifo(node)
    echo = Echo(str(node))
    assert not echo.gone()
    os.rename(node, tmp_path / "away")
    assert echo.gone()
    os.mkfifo(node)
    assert echo.gone()
    os.close(echo.descriptor)
