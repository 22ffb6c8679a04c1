# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node's side says, read on a bad wire: the same, or known to be missing, and never anything else."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.plugin_utils.console.frames import Answer, Frames, Torn, said, views

CHECKOUT = Path(__file__).resolve().parents[4]
TOKEN = "4e8a01b7"
SCRIPT = """seq 1 400; head -c 700 /dev/zero; printf 'no newline at the end'; echo >&2 "some error"; exit 41"""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The whole of what the node's side says to one command, from its real program."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "s").write_text(SCRIPT)
    settings = f"token_={TOKEN}; dir_={folder}; tty_=; mask_=022; . {CHECKOUT}/files/console/agent"
    done = subprocess.run(
        ["sh", "-c", settings],
        input=f"noise\n{TOKEN} r 3 3 n\n{TOKEN} x\n".encode(),
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    return done.stdout.replace(b"\n", b"\r\n")  # as a terminal does


def expected() -> Answer:
    done = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


EXPECTED = expected()


def count_of(spoken: bytes) -> int:
    found = said(TOKEN, r"e 3 (\d+)").search(spoken)
    assert found
    return int(found[2])


KERNEL_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
KERNEL_LINES = st.builds(
    lambda seconds, text, end: b"[%5d.%06d] %s%s" % (seconds, seconds * 7919 % 10**6, text.encode(), end),
    st.integers(0, 10**6),
    KERNEL_TEXT,
    st.sampled_from([b"\n", b"\r\n"]),
)
NOISE = st.one_of(
    KERNEL_LINES,
    st.binary(min_size=1, max_size=30),
    st.builds(lambda text: text.encode() + b"\r\n", KERNEL_TEXT),
    st.text("0123456789:~e ", min_size=1, max_size=6).map(str.encode),  # what frames and counts are made of
    st.just(f"~{TOKEN}:".encode()),
)
PLACES = st.integers(0, 10**6)


def insert(text: bytes, noise: list[tuple[int, bytes]]) -> bytes:
    """Each piece of noise at its place (modulo the length), as a second writer to the same wire would."""
    out = bytearray()
    last = 0
    for place, piece in sorted((place % (len(text) + 1), piece) for place, piece in noise):
        out += text[last:place] + piece
        last = place
    return bytes(out + text[last:])


def decoded(heard: bytes, count: int) -> Answer | None:
    frames = Frames(TOKEN, 3)
    frames.take(heard)
    if frames.missing(count):
        return None
    try:
        return frames.answer(count)
    except Torn:
        return None


def test_undisturbed(spoken: bytes) -> None:
    assert count_of(spoken) > 3, "several frames, or there is nothing to tear"
    assert decoded(spoken, count_of(spoken)) == EXPECTED


@given(st.lists(st.tuples(PLACES, KERNEL_LINES), max_size=40))
def test_lines_of_a_kernel_with_times_cost_nothing(spoken: bytes, noise: list[tuple[int, bytes]]) -> None:
    heard = insert(spoken, noise)
    assert decoded(heard, count_of(spoken)) == EXPECTED
    assert any(said(TOKEN, r"e 3 (\d+)").search(view) for view in views(heard))


@given(st.lists(st.tuples(PLACES, NOISE), min_size=1, max_size=40))
def test_any_noise_leaves_the_same_or_something_missing(spoken: bytes, noise: list[tuple[int, bytes]]) -> None:
    heard = insert(spoken, noise)
    assert decoded(heard, count_of(spoken)) in (EXPECTED, None)
    for view in views(heard):
        for found in said(TOKEN, r"e 3 (\d+)").finditer(view):
            assert int(found[2]) == count_of(spoken)


@given(st.lists(PLACES, min_size=1, max_size=20), st.lists(st.tuples(PLACES, NOISE), max_size=10))
def test_lost_bytes(spoken: bytes, lost: list[int], noise: list[tuple[int, bytes]]) -> None:
    gone = {place % len(spoken) for place in lost}
    heard = insert(bytes(byte for place, byte in enumerate(spoken) if place not in gone), noise)
    assert decoded(heard, count_of(spoken)) in (EXPECTED, None)


@given(st.lists(st.tuples(PLACES, st.integers(1, 255)), min_size=1, max_size=20))
def test_changed_bytes(spoken: bytes, changed: list[tuple[int, int]]) -> None:
    heard = bytearray(spoken)
    for place, bits in changed:
        heard[place % len(heard)] ^= bits
    assert decoded(bytes(heard), count_of(spoken)) in (EXPECTED, None)


@given(st.lists(st.tuples(PLACES, NOISE), min_size=1, max_size=60), st.data())
def test_what_is_asked_for_again_completes_it(
    spoken: bytes, noise: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """Told twice over two bad wires, whatever came whole once is enough."""
    frames = Frames(TOKEN, 3)
    frames.take(insert(spoken, noise))
    before = frames.missing(count_of(spoken))
    frames.take(insert(spoken, data.draw(st.lists(st.tuples(PLACES, NOISE), max_size=3))))
    after = frames.missing(count_of(spoken))
    assert {n for a, b in after for n in range(a, b)} <= {n for a, b in before for n in range(a, b)}
    frames.take(spoken)
    assert frames.missing(count_of(spoken)) == []
    assert frames.answer(count_of(spoken)) == EXPECTED


def test_frames_of_another_request_or_connection_do_not_count(spoken: bytes) -> None:
    other = Frames(TOKEN, 4)
    other.take(spoken)
    assert other.missing(2) == [(0, 2)]
    other = Frames("ffffffff", 3)
    other.take(spoken)
    assert other.missing(2) == [(0, 2)]


def test_exchanged_frames_are_noticed(spoken: bytes) -> None:
    numbers = re.compile(rf"~{TOKEN}:(\d+):(\d+):".encode())
    first, second = (found.start(1) for found in list(numbers.finditer(spoken))[:2])
    exchanged = bytearray(spoken)
    exchanged[first], exchanged[second] = exchanged[second], exchanged[first]
    assert decoded(bytes(exchanged), count_of(spoken)) is None
