# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what two nodes exchanged, and that the program notices a byte that was changed on the way."""

from __future__ import annotations

import importlib.util
import socket
import threading
from pathlib import Path
from typing import Any

from plugins.plugin_utils import exchange

PROGRAM = Path(__file__).resolve().parents[2] / "roles/exchange/files/exchange.py"
SOURCE: list[dict[str, Any]] = [
    {"what": "get", "bytes": 1024000, "server": "node0", "rate": 958636},
    {"what": "get", "bytes": 1024000, "rate": 1},
    {"what": "ping", "median": 196},
]
ROW = {"server": "node0", "client": "node1", "good": True}


def program() -> Any:
    spec = importlib.util.spec_from_file_location("exchange_program", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_of_a_source_stand_beside_the_rows_that_they_are_about() -> None:
    rows: list[dict[str, Any]] = [
        {**ROW, "what": "ping", "median": 150.4},
        {**ROW, "what": "message", "bytes": 64, "rate": 2500.0, "median": 176.0},
        {**ROW, "what": "get", "bytes": 1024000, "buffer": 65536, "rate": 20853318.2},
        {**ROW, "what": "get", "bytes": 1024000, "buffer": 1 << 20, "rate": 7.0, "server": "node1", "good": False},
        {**ROW, "what": "put", "bytes": 1024000, "buffer": 1 << 20, "rate": 7.0},
    ]
    lines = [line.split("  ") for line in exchange.render(rows, SOURCE).splitlines()]
    found = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert found[1] == ["ping", "node0", "node1", "150 µs", "196 µs"]
    assert found[2] == ["message", "node0", "node1", "64 B", "2 500/s, 176 µs"]
    assert found[3] == ["get", "node0", "node1", "1 024 000 B", "64 KiB", "20 853 318 B/s", "958 636 B/s"]
    assert found[4] == ["get", "node1", "node1", "1 024 000 B", "1 MiB", "7 B/s", "NOT WHAT WAS SENT", "1 B/s"]
    assert found[5] == ["put", "node0", "node1", "1 024 000 B", "1 MiB", "7 B/s"]
    assert exchange.joined(rows, SOURCE)[2]["source"] == {"rate": 958636}


def between(address: tuple[str, int], spoil: bool) -> int:
    """A port of this machine that carries one connection there and back; may change the last byte of each answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket, changing: bool) -> None:
        while piece := source.recv(1 << 16):
            if changing and len(piece) > 1000:  # of the file, not of what is said about it
                piece = piece[:500] + bytes([piece[500] ^ 1]) + piece[501:]
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        near = listener.accept()[0]
        far = socket.create_connection(address)
        back = threading.Thread(target=carry, args=(far, near, spoil), daemon=True)
        back.start()
        carry(near, far, spoil)
        back.join()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def test_a_changed_byte_is_noticed_in_both_directions(tmp_path: Path) -> None:
    made = program()
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            made.answer(listener.accept()[0], there)

    threading.Thread(target=serve, daemon=True).start()
    for what in ("get", "put"):
        for spoil in (False, True):
            port = between(listener.getsockname(), spoil)
            row = getattr(made.Client(str(here), "127.0.0.1", port), what)(200_000, 65536)
            assert row["good"] is not spoil, what
            assert row["rate"] > 0
    port = between(listener.getsockname(), spoil=True)
    assert not made.Client(str(here), "127.0.0.1", port).block(65536)["good"]
