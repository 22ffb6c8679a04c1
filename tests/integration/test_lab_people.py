# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `testbed` and the playbook lab_pause, as people use them: on a terminal, in tmux."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.labs import processes, wait_for
from tests.integration.places import CHECKOUT, Done, Lab, run

TESTBED = str(CHECKOUT / "scripts" / "testbed")


@pytest.fixture(scope="module")
def chain() -> Iterator[Lab]:
    made = Lab(f"people-{os.getpid()}", base="inventories/chain", extra=("lab_node_kind=netns",))
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def command(lab: Lab, *words: str, stdin: str = "") -> Done:
    return run([TESTBED, "--lab", lab.name, *words], stdin, check=False)


def test_run_gives_output_and_exit_code_of_the_command(chain: Lab) -> None:
    assert " 0% packet loss" in command(chain, "run", "h1", "ping", "-c", "1", "-w", "10", "10.0.2.4").stdout
    done = command(chain, "run", "r1", "sh", "-c", "cat; exit 7", stdin="said\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "said\n", "")
    assert command(chain, "run", "r2", "hostname", "-s").stdout == "r2\n"


def test_what_cannot_be_is_said_with_what_there_is(chain: Lab) -> None:
    for words, said in (
        (("run", "h9", "true"), "'h9' is refused; nodes of"),
        (("run", "h1"), "run what?"),
        (("console", "h1"), "h1 has no serial port"),
        (("windows",), "there is no tmux around"),
    ):
        done = run(["env", "-u", "TMUX", TESTBED, "--lab", chain.name, *words], check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    missing = run([TESTBED, "--lab", "nobody", "list"], check=False)
    assert missing.returncode == 2 and chain.name in missing.stderr
    assert run([TESTBED, "--dir", "/nowhere", "list"], check=False).returncode == 2


def test_enter_is_a_shell_on_the_terminal(chain: Lab) -> None:
    listed = command(chain, "list").stdout
    assert str(chain.run_dir) in listed and f"--lab {chain.name} enter r1" in listed
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(TESTBED, [TESTBED, "--dir", str(chain.run_dir), "enter", "r1"])
    said = b""
    os.write(terminal, b"echo $((6 * 7)) $(hostname); tty >/dev/null && exit 5\n")
    end = time.monotonic() + 60
    while b"42 r1" not in said:
        assert select.select([terminal], [], [], max(end - time.monotonic(), 0))[0], said
        said += os.read(terminal, 4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)


def test_windows_of_tmux(chain: Lab) -> None:
    """A server of tmux for this test alone."""
    tmux = ["tmux", "-L", chain.name]
    run([*tmux, "new-session", "-d", "-s", "test", "sleep 600"])
    try:
        here = run([*tmux, "display-message", "-p", "#{socket_path},#{pid},0"]).stdout.strip()
        done = run(["env", f"TMUX={here}", TESTBED, "--lab", chain.name, "windows", "h1", "r2"])
        assert (done.stdout, done.stderr) == ("", "")
        names = run([*tmux, "list-windows", "-F", "#{window_name}"]).stdout.split()
        assert names[1:] == ["h1", "r2"]
        run([*tmux, "send-keys", "-t", "test:r2", "echo $((6 * 7)) $(hostname)", "Enter"])
        wait_for(lambda: "42 r2" in run([*tmux, "capture-pane", "-p", "-t", "test:r2"]).stdout, 60)
    finally:
        run([*tmux, "kill-server"])


def test_the_run_directory_is_as_users_of_munet_know_it(chain: Lab) -> None:
    """`mucmd` reads names from config.json and enters the process that nspid names."""
    config = json.loads((chain.run_dir / "config.json").read_text())
    assert list(config["topology"]["nodes"]) == ["h1", "r1", "r2", "h2"]
    pid = (chain.run_dir / "r1" / "nspid").read_text().strip()
    words = ["-u", "-i", "-m", "-n", f"--pid=/proc/{pid}/ns/pid_for_children", f"--wd={chain.run_dir}/r1", "-t", pid]
    assert run(["nsenter", *words, "hostname"]).stdout == "r1\n"


def test_pause_tells_how_to_get_in_and_ends_the_lab() -> None:
    lab = Lab(f"pause-{os.getpid()}", base="inventories/chain", extra=("lab_node_kind=netns", "lab_pause_seconds=1"))
    argv = ["ansible-playbook", "playbooks/lab_pause.yml", *lab._inventory()]
    environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTBED} --lab {lab.name} enter h2" in done.stdout.replace("\n", " ")
    wait_for(lambda: not processes(lab))
    assert not lab.run_dir.exists()


MUNET = """version: 1
topology:
  networks-autonumber: true
  networks:
    - name: net0
    - name: lan
      ip: 10.7.0.0/16
  nodes:
    - name: a
      connections: [net0]
    - name: r
      connections: [net0, {to: lan, name: inner}]
    - {name: b, connections: [lan], cmd: sleep 5}
    - {name: c, connections: [{to: lan, ip: 10.7.9.9/16, delay: 2000}]}
"""


def test_a_topology_of_munet_becomes_a_lab(tmp_path: Path) -> None:
    """Three on one network too; what it says beyond is told."""
    said = tmp_path / "munet.yaml"
    said.write_text(MUNET)
    inventory = tmp_path / "taken"
    argv = ["ansible-playbook", "playbooks/lab_import.yml", "-e", f"munet={said}", "-e", f"inventory={inventory}"]
    told = run(["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", *argv]).stdout
    assert "nodes.b.cmd" in told
    assert "delay: 2000us" in (inventory / "hosts.yml").read_text()
    lab = Lab(f"munettest-{os.getpid()}", base=str(inventory))
    try:
        lab.playbook("lab_up")
        for node, address in (("a", "10.0.0.2"), ("b", "10.7.9.9"), ("b", "10.7.0.2"), ("c", "10.7.0.3")):
            assert " 0% packet loss" in lab.enter(node, ["ping", "-c", "1", "-w", "20", address]).stdout
    finally:
        lab.playbook("lab_down")
