# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is typed into a console, and when nothing is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from plugins.plugin_utils.console.door import Door, Login, shows
from plugins.plugin_utils.console.hearing import Ear
from plugins.plugin_utils.console.port import ConsoleError

LOGIN = re.compile(rb"(?:^|[\r\n])[^\r\n]*(?<!Last )[Ll]ogin: *$")
PASSWORD = re.compile(rb"[Pp]assword: *$")
ROOT = Login("root", "secret", LOGIN, PASSWORD)


class Node:
    """Says `first`, and to each line of keys what `answer` says."""

    def __init__(self, first: list[bytes], answer: Callable[[bytes], bytes]) -> None:
        self._said = list(first)
        self._answer = answer
        self.typed = b""

    def read(self, seconds: float) -> bytes:
        if self._said:
            return self._said.pop(0)
        time.sleep(min(seconds, 0.01))
        return b""

    def write(self, data: bytes) -> None:
        self.typed += data
        said = self._answer(data)
        if said:
            self._said.append(said)

    def close(self) -> None:
        """Nothing is open."""


def enter(node: Node, login: Login = ROOT, seconds: float = 3) -> None:
    Door(Ear(node), node.write, login, "abcd").enter(seconds)


def shell(keys: bytes) -> bytes:
    """A shell with a name in its prompt, which carries out the question for it."""
    return b"\r\n~abcd:here:here~\r\nroot@node:~# " if b"here" in keys else b"\r\nroot@node:~# "


def test_a_shell_is_used_without_a_login() -> None:
    node = Node([], shell)
    enter(node)
    assert b"root" not in node.typed


def test_no_key_is_pressed_while_a_boot_loader_talks() -> None:
    """Any key would stop it. The login appears; from then on there are keys."""
    heard = [b"U-Boot 2023.01\r\nHit any key to stop autoboot:  2", b"\b\b\b 1", b"\r\nStarting kernel\r\n"]
    pressed: list[int] = []

    def answer(keys: bytes) -> bytes:
        pressed.append(len(node._said))
        return shell(keys)

    node = Node([*heard, b"\r\nnode login: "], answer)
    enter(node)
    assert set(pressed) == {0}, "all that it said was heard first"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\r\nLogin incorrect\r\nnode login: ", "does not let root in"),
        (b"\r\nNew password: ", "wants another password"),
        (b"\r\nCurrent password: ", "wants another password"),
    ],
)
def test_what_a_login_ends_in(said: bytes, told: str) -> None:
    def answer(keys: bytes) -> bytes:
        if keys == b"secret\r":
            return said
        return b"root\r\nPassword: " if keys == b"root\r" else b"\r\nnode login: "

    node = Node([], answer)
    with pytest.raises(ConsoleError, match=told) as caught:
        enter(node)
    assert "secret" not in str(caught.value)
    assert node.typed.count(b"secret") == 1


@pytest.mark.parametrize(
    ("login", "told"), [(ROOT._replace(user=""), "ansible_user"), (ROOT._replace(password=""), "ansible_password")]
)
def test_what_is_missing_is_told(login: Login, told: str) -> None:
    with pytest.raises(ConsoleError, match=told):
        enter(Node([], lambda keys: b"root\r\nPassword: " if keys == b"root\r" else b"\r\nnode login: "), login)


def test_a_password_prompt_is_left_first() -> None:
    """The password of somebody else's half login is not ours to give."""
    state = {"asked": b"Password: "}

    def answer(keys: bytes) -> bytes:
        if state["asked"] == b"Password: " and keys == b"\r":
            state["asked"] = b"login: "
            return b"\r\nLogin incorrect\r\nnode login: "
        if state["asked"] == b"Password: ":
            return b"Password: "
        if keys == b"root\r":
            return b"\r\nPassword: "
        return shell(keys)

    node = Node([], answer)
    enter(node)
    assert node.typed.index(b"\r") < node.typed.index(b"root\r") < node.typed.index(b"secret\r")


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        (b"\r\nnode login: ", True),
        (b"node login: [   12.345678] eth0: link up", True),
        (b"node login: br0: port 1(eth0) entered forwarding state\r\n", True),
        (b"Last login: Sat Nov 21 on ttyS0", False),
        (b"root@node:~# ", False),
    ],
)
def test_prompts_behind_which_a_kernel_went_on(text: bytes, asks: bool) -> None:
    assert shows(LOGIN, text) is asks
