# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""200 times detached in the middle of writing; a client whose power fails."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.usb import CLIENT, UsbLab

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]
CYCLES = 200


@pytest.fixture(scope="module")
def usb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsbLab]:
    made = UsbLab(f"usblong-{os.getpid()}")
    with made.running(tmp_path_factory.mktemp("disk")):
        yield made


def test_nothing_synced_is_lost_and_no_port_stays_taken(usb: UsbLab) -> None:
    usb.attached()
    counted = usb.cycles(CYCLES)
    print(counted)
    assert counted["cycles"] == CYCLES
    assert counted["found"] == counted["written"] > CYCLES
    usb.attached()
    usb.exchange()
    assert len(usb.ports()) == 1
    assert usb.trouble() == ""


def test_it_comes_back_after_a_restart_of_the_client(usb: UsbLab) -> None:
    """The server hears nothing of it: it frees the device by itself."""
    usb.attached()
    usb.restart(CLIENT)
    usb.attached()
    usb.exchange()
