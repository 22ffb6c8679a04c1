# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a console says beside the answers: kernels in distress, nodes that start anew, the last words for an error."""

from __future__ import annotations

import pytest

from plugins.plugin_utils.console import hearing
from plugins.plugin_utils.console.frames import said
from plugins.plugin_utils.console.hearing import Ear
from plugins.plugin_utils.console.port import ConsoleError

HERE = said("aabb", "here")
PANIC = (
    b"[    7.1] sysrq: Trigger a crash\r\n",
    b"[    7.2] Kernel panic - not syncing: sysrq triggered crash\r\n[    7.3] CPU: 0 PID: 1 Comm: sh",
    b" Not tainted\r\n[    7.4] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\r\n",
)


class Said:
    """A console that says this and nothing more."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read(self, seconds: float) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        """Nothing is open."""


def test_what_comes_in_pieces_is_heard() -> None:
    assert Ear(Said(b"\r\n~aabb:he", b"re:he", b"re~\r\n")).until(HERE, 1)


def test_a_kernel_line_in_the_midst_of_it_is_heard_past() -> None:
    assert Ear(Said(b"~aabb:here:h[   12.345678] usb 1-1: new", b" device\r\nere~")).until(HERE, 1)


def test_nothing_is_none() -> None:
    assert Ear(Said(b"~aabb:hero:hero~")).until(HERE, 0.05) is None


def test_a_panic_is_an_error_with_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "LAST_WORDS", 0.05)
    ear = Ear(Said(*PANIC))
    with pytest.raises(ConsoleError) as caught:
        ear.until(HERE, 30)
    assert "kernel panicked" in str(caught.value)
    assert "sysrq triggered crash" in str(caught.value)
    assert "CPU: 0 PID: 1 Comm: sh Not tainted" in str(caught.value)


def test_words_of_a_panic_from_a_node_that_lives_are_a_warning_only() -> None:
    ear = Ear(Said(*PANIC, b"~aabb:here:here~"))
    assert ear.until(HERE, 30)
    assert ear.trouble


def test_an_oops_does_not_end_the_wait() -> None:
    ear = Ear(
        Said(
            b"[    9.1] BUG: kernel NULL pointer dereference, address: 0000\r\n",
            b"[    9.2] Oops: 0002 [#1] PREEMPT SMP\r\n[    9.3] RIP: 0010:f+0x1/0x2\r\n",
            b"~aabb:here:here~",
        )
    )
    assert ear.until(HERE, 1)
    assert [line.partition("] ")[2] for line in ear.trouble] == [
        "BUG: kernel NULL pointer dereference, address: 0000",
        "Oops: 0002 [#1] PREEMPT SMP",
        "RIP: 0010:f+0x1/0x2",
    ]


@pytest.mark.parametrize(
    "line", [b"[    0.000000] Linux version 6.1.0-18-armmp (gcc) #1 SMP", b"U-Boot SPL 2023.01+dfsg"]
)
def test_a_node_that_starts_anew_is_an_error(line: bytes) -> None:
    ear = Ear(Said(line + b"\r\n"))
    assert ear.until(HERE, 0.05) is None, "while a shell is looked for it may boot"
    ear = Ear(Said(line + b"\r\n"))
    ear.mind_restart()
    with pytest.raises(ConsoleError, match="started anew"):
        ear.until(HERE, 30)


def test_the_last_words_are_readable() -> None:
    ear = Ear(Said(b"\x1b[1mgrub>\x1b[0m \r\n\r\n~aabb:e 1 1:e 1 1~\r\nError: no such device\r\n\x1b[?2004h"))
    ear.until(HERE, 0.05)
    assert ear.tail() == "grub> | Error: no such device"
