# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shells on terminals behind bad wires: noise at any byte, lost bytes, whatever somebody left on the console."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from plugins.plugin_utils.console import hearing, port, session
from plugins.plugin_utils.console.door import Login
from tests.integration.consoles import CLEAN, Console, Wire, ansible

pytestmark = pytest.mark.minutes

NOBODY = Login("", "", re.compile(rb"login: *$"), re.compile(rb"[Pp]assword: *$"))
SHELLS = {"sh": ["sh", "-i"], "bash": ["bash", "--norc", "-i"]}
_numbers = itertools.count()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short path, as a socket is in it."""
    return tmp_path_factory.mktemp(f"c{next(_numbers)}")


def opened(console: Console, seconds: float = 100) -> session.Session:
    made = session.Session(port.open_port(console.name, 115200, "none", 5), 115200)
    made.open(NOBODY, seconds)
    return made


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(Wire, id="clean"),
        pytest.param(lambda: Wire(noise=0.003), id="kernel lines"),
        pytest.param(lambda: Wire(noise=0.0005, times=False), id="lines without times"),
        pytest.param(lambda: Wire(lost=0.0002), id="lost bytes"),
        pytest.param(lambda: Wire(noise=0.0005, lost=0.0001, times=False), id="all of it"),
    ],
)
def test_what_a_command_reads_and_says_is_exact(shell: str, wire: type[Wire], folder: Path) -> None:
    given = random.Random(3).randbytes(60_000)
    with Console(SHELLS[shell], folder / "tty", wire()) as console:
        made = opened(console)
        assert made.run(b"cat; seq 1 3000 >&2; exit 113", given) == (
            113,
            given,
            "".join(f"{n}\n" for n in range(1, 3001)).encode(),
        )
        assert made.run(b"printf %s '$HOME \"x\" \\n~'; cat", None) == (0, b'$HOME "x" \\n~', b"")
        assert made.run(b"kill -TERM $$").code == 143
        assert made.run(b"no-such-program").code == 127
        assert made.run(b"umask; test -t 0 || test -t 1 || : </dev/tty").code != 0, "no terminal"
        made.close()


class OneByte(Wire):
    """Loses one byte of each request that begins or ends something, the first time that it is typed."""

    def __init__(self) -> None:
        super().__init__()
        self.place = 0
        self.hit: set[bytes] = set()

    def typed(self, data: bytes) -> bytes:
        request = re.fullmatch(rb"[0-9a-f]{8} ([u.r]) [^\n]*\n", data)
        if request is None or self.place >= len(data) or request[1] in self.hit:
            return data
        self.hit.add(request[1])
        return data[: self.place] + data[self.place + 1 :]


def test_any_byte_of_a_request_may_be_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE", 0.2)
    monkeypatch.setattr(session, "UNPACKING", 0.3)
    with Console(SHELLS["sh"], folder / "tty", wire := OneByte()) as console:
        made = opened(console)
        made._ids = 100  # a number that lost a digit is another number
        longest = len("01234567 u 100 100 s\n")
        for wire.place in range(longest):
            wire.hit.clear()
            assert made.run(b"cat; no-such-program", b"here" if wire.place % 2 else None)[:2] == (
                127,
                b"here" if wire.place % 2 else b"",
            ), wire.place
            assert {b"u", b"r"} <= wire.hit, "the byte was there to be lost"
        made.close()


def test_a_slow_node_is_given_time(folder: Path) -> None:
    """As an emulated board is: the shell answers at once, and each program takes seconds to start."""
    slow = folder / "bin"
    slow.mkdir()
    (slow / "stty").write_text('#!/bin/sh\nsleep 4\nexec /bin/stty "$@"\n')
    (slow / "stty").chmod(0o755)
    with Console(["env", f"PATH={slow}:{os.environ['PATH']}", "sh", "-i"], folder / "tty") as console:
        made = opened(console)
        assert made.run(b"echo here") == (0, b"here\n", b"")
        taken = Path(made.folder)
        assert taken.is_dir()
        made.close()
        assert not taken.exists(), "the node's side ended by itself"


LEFT = {
    "a half-typed line": b"touch {}/harm",
    "a half-typed line, cursor in the midst": b"touch {}/harm\x1b[D\x1b[D\x1b[D",
    "an open quote": b"touch '{}/harm\n",
    "an open here-document": b"sh <<END\ntouch {}/harm\n",
    "a backslash at the end": b"touch \\\n",
    "cat": b"cat\n",
    "more": b"seq 1 500 | more\n",
    "less": b"seq 1 500 | LESS= LESSHISTFILE=- less\n",
    "an interpreter": b"python3 -Iq\n",
    "something that minds no Ctrl-C": b"trap '' INT; sleep 600; trap - INT\n",
    "stopped output": b"\x13",
    "no echo": b"stty -echo\n",
    "a raw terminal": b"stty raw\n",
    "a prompt of its own": b"PS1='> '\n",
}


# bash makes its terminal right by itself, and its line is its own; sh leaves both to the kernel.
BOTH = ("a half-typed line", "an open quote", "no echo", "stopped output")
ONLY_SH = ("a raw terminal",)


@pytest.mark.parametrize(
    ("left", "shell"),
    [(left, "bash") for left in LEFT if left not in ONLY_SH] + [(left, "sh") for left in (*BOTH, *ONLY_SH)],
)
def test_whatever_was_left_is_ended_and_not_carried_out(left: str, shell: str, folder: Path) -> None:
    with Console(SHELLS[shell], folder / "tty") as console:
        console.wait_for(b"node# ")
        console.type(LEFT[left].replace(b"{}", str(folder).encode()))
        time.sleep(0.3)  # it is typed by then; there is nothing to wait for that all have in common
        made = opened(console)
        assert made.run(b"echo here") == (0, b"here\n", b"")
        made.close()
        assert os.listdir(folder) == ["tty"], "nothing was carried out or saved"


LOGIN = """
while :; do
    printf '\nDebian GNU/Linux 12 node ttyS0\n\nnode login: '; read -r user
    [ -n "$user" ] || continue
    stty -echo; printf 'Password: '; read -r password; stty echo; echo
    [ "$user:$password" != 'root:open it' ] || break
    sleep 1; echo 'Login incorrect'
done
echo 'Last login: Sat Nov 21 09:00:00 on ttyS0'; sleep 0.3
exec sh -i
"""


@pytest.mark.parametrize("times", [True, False])
def test_a_login_while_the_kernel_prints(times: bool, folder: Path) -> None:
    """Fifty lines a second, also right behind each prompt."""
    with Console(["sh", "-c", LOGIN], folder / "tty", Wire(times=times)) as console:
        prompts = (r"(?:^|[\r\n])[^\r\n]*(?<!Last )[Ll]ogin: *$", r"[Pp]assword: *$")  # the plugin's defaults
        login = Login("root", "open it", *(re.compile(prompt.encode()) for prompt in prompts))
        over = threading.Event()

        def noise() -> None:
            while not over.wait(0.02):
                console.say(console.wire.line())

        thread = threading.Thread(target=noise)
        made = session.Session(port.open_port(console.name, 115200, "none", 5), 115200)
        thread.start()
        try:
            made.open(login, 100)
            assert made.run(b"echo here").stdout == b"here\n"
        finally:
            over.set()
            thread.join()
        assert b"incorrect" not in console.log
        assert b"open it" not in console.log


def test_the_shell_is_left_as_it_was_found(folder: Path) -> None:
    with Console(SHELLS["bash"], folder / "tty") as console:
        console.wait_for(b"node# ")
        console.type(b"stty -a | md5sum; shopt -u huponexit; cd /usr; X=5\n")
        console.wait_for(b"  -")
        made = opened(console)
        place = made.folder
        made.run(b"cd /; X=6; export Y=7")
        made.close()
        before = console.log.count(b"  -")
        console.type(b"stty -a | md5sum; echo $PWD $X $Y.\n")
        console.wait_for(b"/usr 5 .")
        assert console.log.count(b"  -") == before + 1
        sums = re.findall(rb"([0-9a-f]{32})  -", bytes(console.log))
        assert sums[0] == sums[-1]
        assert not os.path.exists(place)


def test_a_controller_that_was_killed_is_in_nobodys_way(folder: Path) -> None:
    """Its command goes on, as with ssh; its folder goes."""
    with Console(SHELLS["sh"], folder / "tty") as console:
        wire = port.open_port(console.name, 115200, "none", 5)
        first = session.Session(wire, 115200)
        first.open(NOBODY, 100)
        with pytest.raises(session.CommandTimeout):
            first.run(f"sleep 2; echo x >{folder}/done".encode(), None, 0.5)
        wire.close()  # all that the node sees of a kill
        second = opened(console)
        assert second.run(b"echo here").stdout == b"here\n"
        second.close()
        console.wait_for(b"# ")
        end = time.monotonic() + 10
        while not (folder / "done").exists():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_command_that_takes_too_long(folder: Path) -> None:
    with Console(SHELLS["sh"], folder / "tty") as console:
        made = opened(console)
        with pytest.raises(session.CommandTimeout, match=r"0.5 s .ansible_serial_command_timeout"):
            made.run(b"sleep 15", None, 0.5)
        made.close()
        made = opened(console)
        assert made.run(b"echo here").stdout == b"here\n"
        made.close()


def test_a_node_that_is_slow_is_not_flooded(folder: Path) -> None:
    """What waits to be read stays below N_TTY's threshold for throttling (4096 - 128), where bytes begin to be lost."""
    given = random.Random(4).randbytes(300_000)
    with Console(SHELLS["sh"], folder / "tty") as console:
        made = opened(console)
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(made.run(b"sha256sum", given)))
        thread.start()
        console.wait_for(b":c 2 3~")
        leader = console.foreground()
        reader = int(Path(f"/proc/{leader}/task/{leader}/children").read_text())
        while True:  # until it is caught with a line yet to read
            os.kill(reader, signal.SIGSTOP)
            time.sleep(0.2)
            if console.waiting() >= 2000:
                break
            os.kill(reader, signal.SIGCONT)
            time.sleep(0.01)
        waiting = []
        for _sample in range(60):
            waiting.append(console.waiting())
            time.sleep(0.1)
        os.kill(reader, signal.SIGCONT)
        thread.join()
        made.close()
        assert max(waiting) < 3968
        assert answers == [(0, f"{hashlib.sha256(given).hexdigest()}  -\n".encode(), b"")]


def test_a_panic_while_a_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "LAST_WORDS", 0.5)
    with Console(SHELLS["sh"], folder / "tty") as console:
        made = opened(console)
        said = b"[  812.101010] Kernel panic - not syncing: Fatal exception in interrupt\r\n[  812.2] Call Trace:\r\n"
        threading.Timer(0.5, console.say, [said]).start()
        with pytest.raises(port.ConsoleError, match=r"(?s)panicked.*Fatal exception in interrupt.*Call Trace"):
            made.run(b"sleep 15")
        made.close()


def test_a_console_where_nobody_is(folder: Path) -> None:
    with Console(["sleep", "600"], folder / "tty") as console:
        console.say(b"=> ")
        with pytest.raises(port.ConsoleError, match=r"no shell answered within 2 s .ansible_serial_timeout"):
            opened(console, 2)


def test_ansible_over_a_serial_port(folder: Path) -> None:
    """A device with a wire at a modem's speed would take minutes: this one has the noise, and a terminal's speed."""
    content = random.Random(5).randbytes(30_000)
    (folder / "here").write_bytes(content)
    with Console(SHELLS["bash"], folder / "tty", Wire(noise=0.001), serial=True) as console:
        done = ansible(console, "raw", "echo out; echo err >&2; exit 7", check=False)
        assert "rc=7 >>\nout\nerr\n" in done.stdout.replace("\r", "")
        assert '"pong"' in ansible(console, "ping").stdout
        ansible(console, "copy", f"src={folder}/here dest={folder}/there mode=0640")
        assert (folder / "there").read_bytes() == content
        assert (folder / "there").stat().st_mode & 0o777 == 0o640
        ansible(console, "fetch", f"src={folder}/there dest={folder}/back flat=yes", pipelining=False)
        assert (folder / "back").read_bytes() == content
        assert console.wire.lines > 50
        missing = ansible(console, "fetch", f"src={folder}/nowhere dest={folder}/back flat=yes", check=False)
        assert missing.returncode != 0 and "nowhere" in missing.stdout


SUDO = """#!/bin/sh
# As sudo -S: asks on standard error if it wants to, reads one line byte by byte, and three times at most.
while [ "$1" != /bin/sh ]; do [ "$1" != -p ] || prompt=$2; shift; done
for n in {tries}; do
    printf '%s' "$prompt" >&2
    IFS= read -r given || exit 1
    [ "$given" != 'pass "word' ] || exec "$@"
    echo 'Sorry, try again.' >&2
done
{otherwise}
"""


@pytest.mark.parametrize("asks", [True, False])
def test_a_password_is_given_where_it_is_asked_for_and_never_to_the_command(asks: bool, folder: Path) -> None:
    sudo = folder / "sudo"
    sudo.write_text(SUDO.format(tries="1 2 3" if asks else "", otherwise="exit 1" if asks else 'exec "$@"'))
    sudo.chmod(0o755)
    become = {"ansible_become_exe": str(sudo), "ansible_become_password": 'pass "word'}
    with Console(SHELLS["bash"], folder / "tty", Wire(noise=0.001)) as console:
        arguments = json.dumps({"cmd": "tr a-z A-Z", "stdin": "mine"})
        done = ansible(console, "command", arguments, "-b", "-e", json.dumps(become))
        assert done.stdout.endswith("rc=0 >>\nMINE\n")
        become["ansible_become_password"] = "wrong"
        done = ansible(console, "command", arguments, "-b", "-e", json.dumps(become), check=False)
        assert (done.returncode == 0) is not asks
        assert ("incorrect become password" in done.stdout.lower()) is asks
        assert b"wrong" not in console.log


def test_two_at_once_take_turns(folder: Path) -> None:
    with Console(SHELLS["bash"], folder / "tty") as console:
        outcomes: dict[int, str] = {}

        def use(number: int) -> None:
            outcomes[number] = ansible(console, "raw", f"sleep 0.5; echo it is {number}").stdout

        threads = [threading.Thread(target=use, args=[number]) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(f"it is {number}" in outcomes[number] for number in range(2))


@pytest.mark.alone
def test_an_open_console_costs_little(folder: Path) -> None:
    """A command on it takes a small part of what opening it takes, whatever the machine is like."""
    with Console(SHELLS["sh"], folder / "tty", CLEAN) as console:
        started = time.monotonic()
        made = opened(console)
        opening = time.monotonic() - started
        started = time.monotonic()
        for _number in range(10):
            made.run(b"true")
        took = (time.monotonic() - started) / 10
        data = os.urandom(1_000_000)
        started = time.monotonic()
        told = made.run(b"sha256sum", data).stdout
        rate = len(data) / (time.monotonic() - started)
        print(f"opened in {opening:.2f} s, a command {took * 1000:.0f} ms, upload {rate / 1e6:.2f} MB/s")
        assert told.split()[0].decode() == hashlib.sha256(data).hexdigest()
        assert took < opening and rate > 115_200 / 10  # bytes a second: what a serial line has
