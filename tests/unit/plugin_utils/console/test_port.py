# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of consoles, sockets, and one process at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.module_utils.errors import InvalidInput
from plugins.plugin_utils.console.port import ConsoleError, locked, open_port

CHECKOUT = Path(__file__).resolve().parents[4]
HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from plugins.plugin_utils.console.port import locked
with locked(sys.argv[2], 1):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_unix_sockets_both_ways_and_their_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "tty"))
        listener.listen()
        port = open_port(f"unix:{tmp_path}/tty", 115200, "none", 1)
        there = listener.accept()[0]
    there.sendall(b"login: ")
    assert port.read(1) == b"login: "
    assert port.read(0.01) == b""
    port.write(b"root\r")
    assert there.recv(9) == b"root\r"
    there.close()
    with pytest.raises(ConsoleError, match="closed by the other side"):
        port.read(1)
    port.close()


def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = open_port(f"tcp:127.0.0.1:{listener.getsockname()[1]}", 115200, "none", 1)
        there = listener.accept()[0]
    there.sendall(b"# ")
    assert port.read(1) == b"# "
    port.close()
    assert there.recv(1) == b""
    there.close()


@pytest.mark.parametrize("name", ["unix:/nowhere/tty", "tcp:127.0.0.1:1", "/dev/nowhere"])
def test_what_is_not_there_is_told_with_its_name(name: str) -> None:
    with pytest.raises(ConsoleError, match=name):
        open_port(name, 115200, "none", 1)


def test_a_name_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="tcp:HOST:PORT"):
        open_port("tcp:host", 115200, "none", 1)


def test_one_process_at_a_time_by_whatever_name(tmp_path: Path) -> None:
    real = tmp_path / "ttyS9"
    real.touch()
    (tmp_path / "by-id").symlink_to(real)
    argv = [sys.executable, "-c", HOLD, str(CHECKOUT), str(real)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)) as holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == b"held\n"
        told = f"used by process {holder.pid} .*ansible_serial_lock_timeout"
        with pytest.raises(ConsoleError, match=told), locked(str(tmp_path / "by-id"), 0.1):
            pass
        with locked(str(tmp_path / "another"), 0.1):
            pass
        holder.stdin.close()
        with locked(str(tmp_path / "by-id"), 10):
            pass
