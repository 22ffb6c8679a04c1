# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `testbed`: into the nodes of a running lab. It knows the lab by its run directory only."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .. import programs
from ..errors import InvalidInput, StepFailed, TestbedError
from . import access, control, inside

ESCAPE = "0x1d"  # Ctrl-]
TTY, GDB = "tty", "s/gdbserver"  # in a node's folder, under QEMU


class Command(NamedTuple):
    """What is run in our place, with an environment of its own where there is one."""

    argv: list[str]
    env: dict[str, str] | None = None


def labs() -> dict[str, Path]:
    """Run directories of this user's running labs, by name, where labs are unless they were told otherwise."""
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/impair.testbed-{os.geteuid()}"
    folders = sorted(Path(base, "impair.testbed").glob("*/"))
    return {folder.name: folder for folder in folders if control.recorded(folder) is not None}


def choose(directory: str | None, name: str | None) -> Path:
    """The lab that is meant. Raises TestbedError where that is not clear."""
    if directory:
        if control.recorded(Path(directory)) is None:
            raise InvalidInput("--dir", directory, "no lab runs there; `testbed list` has those that run")
        return Path(directory).resolve()
    running = labs()
    if name:
        if name not in running:
            raise InvalidInput("--lab", name, f"running labs are {', '.join(running) or 'none'}")
        return running[name]
    if len(running) != 1:
        raise TestbedError(f"which lab? running are {', '.join(running) or 'none'}; name it by --lab NAME or --dir DIR")
    return next(iter(running.values()))


def nodes(directory: Path) -> list[str]:
    return sorted(path.parent.name for path in directory.glob("*/tag"))


def folder(directory: Path, node: str) -> Path:
    if node not in nodes(directory):
        raise InvalidInput("NODE", node, f"nodes of {directory.name} are {', '.join(nodes(directory))}")
    return directory / node


def run(directory: Path, node: str, words: Sequence[str], terminal: bool = False) -> Command:
    """A program on a node, or without words a shell."""
    own = folder(directory, node)
    if not (own / access.SPACE).exists():
        ssh = ["ssh", "-F", str(directory / "ssh_config"), *(["-t"] if terminal else []), node]
        return Command(ssh + ([shlex.join(words)] if words else []))
    pid = control.living(own / access.SPACE)
    if pid is None:
        raise TestbedError(f"{node} has ended; lab_up starts it again")
    shell = ["/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh", "-i"]
    return Command([*inside.command(pid), *(words or shell)], inside.environment())


def console(directory: Path, node: str) -> Command:
    """The serial port of a node, on this terminal."""
    port = folder(directory, node) / TTY
    if not port.exists():
        raise TestbedError(f"{node} has no serial port; `testbed enter {node}` leads into it")
    if not sys.stdin.isatty():
        return Command(["socat", "-", f"UNIX-CONNECT:{port}"])
    sys.stderr.write(f"{node}: Ctrl-] ends this\n")
    return Command(["socat", f"-,raw,echo=0,escape={ESCAPE}", f"UNIX-CONNECT:{port}"])


def listing(directory: Path) -> list[str]:
    """How to get into each node, as a person types it."""
    mine = [] if labs().get(directory.name) == directory else ["--dir", str(directory)]
    if not mine and len(labs()) != 1:
        mine = ["--lab", directory.name]
    call = shlex.join([os.environ.get("TESTBED", "testbed"), *mine])
    lines = [f"{directory.name}: {directory}"]
    for node in nodes(directory):
        lines.append(f"  {call} enter {node}")
        if (directory / node / TTY).exists():
            lines.append(f"  {call} console {node}")
        if (directory / node / GDB).exists():
            lines.append(f"      gdb vmlinux -ex 'target remote {directory / node / GDB}'")
    return lines


def windows(directory: Path, names: Sequence[str]) -> None:
    """A window of tmux for each node. Raises TestbedError where there is no tmux around."""
    if not os.environ.get("TMUX"):
        raise TestbedError("there is no tmux around: start `tmux`, and `testbed windows` in it")
    program = os.environ.get("TESTBED", "testbed")
    program = os.path.abspath(program) if "/" in program else program
    for node in names or nodes(directory):
        folder(directory, node)
        words = [program, "--dir", str(directory), "enter", node]
        argv = ["tmux", "new-window", "-d", "-n", node, shlex.join(words)]
        made = programs.run(argv)
        if made.returncode != 0:
            raise StepFailed(" ".join(argv), made.stderr.strip())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="testbed", description="Into the nodes of a running lab.")
    made.add_argument("-l", "--lab", metavar="NAME", help="the lab, where more than one runs")
    made.add_argument("-d", "--dir", metavar="DIR", help="its run directory, where lab_run_dir says another than usual")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="running labs, and how to get into their nodes")
    entered = commands.add_parser("enter", help="a shell on a node")
    entered.add_argument("node", metavar="NODE")
    ran = commands.add_parser("run", help="a command on a node; its exit code is ours")
    ran.add_argument("node", metavar="NODE")
    ran.add_argument("words", metavar="CMD", nargs=argparse.REMAINDER)
    port = commands.add_parser("console", help="the serial port of a node under QEMU; away with Ctrl-]")
    port.add_argument("node", metavar="NODE")
    shown = commands.add_parser("windows", help="inside tmux: a window for each node, or for those that are named")
    shown.add_argument("nodes", metavar="NODE", nargs="*")
    return made


def prepare(arguments: argparse.Namespace) -> Command | None:
    """What is to be run in our place; None where everything is done."""
    if arguments.command == "list" and not (arguments.lab or arguments.dir):
        sys.stdout.write("".join(f"{line}\n" for one in labs().values() for line in listing(one)))
        return None
    directory = choose(arguments.dir, arguments.lab)
    if arguments.command == "list":
        sys.stdout.write("".join(f"{line}\n" for line in listing(directory)))
        return None
    if arguments.command == "windows":
        windows(directory, arguments.nodes)
        return None
    if arguments.command == "console":
        return console(directory, arguments.node)
    if arguments.command == "enter":
        return run(directory, arguments.node, (), terminal=True)
    if not arguments.words:
        raise TestbedError("run what? `testbed run NODE CMD …`; a shell is `testbed enter NODE`")
    return run(directory, arguments.node, arguments.words)


def main() -> int:
    """Exit code 2 for what cannot be, else that of the command."""
    try:
        command = prepare(parser().parse_args())
    except TestbedError as error:
        sys.stderr.write(f"testbed: {error}\n")
        return 2
    if command is None:
        return 0
    sys.stdout.flush()
    try:
        os.execvpe(command.argv[0], command.argv, command.env or dict(os.environ))
    except OSError as error:
        sys.stderr.write(f"testbed: {command.argv[0]}: {error.strerror}\n")
    return 2
