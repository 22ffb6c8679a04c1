# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible over the console of a kernel of its own, which prints meanwhile; a getty and login stand at the door.

Nothing else leads into the node. What it did is seen in a folder of this machine's that it has mounted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.lab.kinds.table import DRIVERS
from tests.integration.consoles import VARIABLES, Console, ansible
from tests.integration.places import CHECKOUT, run
from tests.integration.uml import CACHE

pytestmark = pytest.mark.minutes

_numbers = itertools.count()
USERS = {"root": "s3 cret", "guest": "welc'ome"}
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=vt100
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
mkdir -p /run/out; mount -t hostfs -o {folder}/out none /run/out
useradd -m -s /bin/bash guest
chpasswd <<'END'
{passwords}
END
hostname nobody; ip link set lo up; ip link add lan0 type dummy
echo 7 >/proc/sys/kernel/printk; echo Y >/sys/module/printk/parameters/time
while :; do setsid agetty -L 115200 tty0 vt100; done
"""
NOISE = """#!/bin/sh
# Some twenty-five lines a second; a process started for each would take most of this machine's time.
while :; do
    for n in 1 2 3 4 5; do echo "br0: port $n(eth$n) entered forwarding state" >/dev/kmsg; done
    sleep 0.2
done >/dev/null 2>&1 &
echo $! >/run/noise
"""


def kernel(folder: Path) -> list[str]:
    """A node of the lab's root file system, all but its first process."""
    image = DRIVERS["uml"].image(CACHE / "lab")[0]
    argv = ["unshare", "--pid", "--fork", "--kill-child", "linux.uml", "mem=256M", f"uml_dir={folder}/uml"]
    argv += [f"ubd0={folder}/disk.cow,{image}", "root=/dev/ubda", "rootfstype=ext4", "rw", "quiet"]
    argv += ["con=null", "con0=fd:0,fd:1", "ssl=null", "initcall_blacklist=raid6_select_algo,calibrate_xor_blocks"]
    return argv


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Console]:
    """A node with a login on its console."""
    out = folder / "out"
    out.mkdir()
    out.chmod(0o777)
    init = folder / "init"
    init.write_text(
        INIT.format(folder=folder, passwords="\n".join(f"{user}:{password}" for user, password in USERS.items()))
    )
    argv = [
        *kernel(folder),
        "init=/bin/sh",
        "--",
        "-c",
        f'"mount -t hostfs -o {folder} none /mnt && exec sh /mnt/init"',
    ]
    with Console(argv, folder / "tty") as console:
        console.wait_for(b"login: ", 60)
        yield console


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Console, Path]]:
    folder = tmp_path_factory.mktemp("node")
    with started(folder) as console:
        yield console, folder


def as_user(user: str, **more: Any) -> list[str]:
    return ["-e", json.dumps({"ansible_user": user, "ansible_password": USERS[user], **more})]


def test_a_wrong_password_is_told(node: tuple[Console, Path]) -> None:
    console, _folder = node
    done = ansible(console, "raw", "true", *as_user("root", ansible_password="wrong"), check=False)
    assert done.returncode == 4, "unreachable"
    assert "does not let root in" in done.stdout and "Login incorrect" in done.stdout
    assert "wrong" not in done.stdout
    console.wait_for(b"login: ")


PLAY = """
- hosts: node
  gather_facts: false
  tasks:
    - ansible.builtin.raw: sh /run/out/noise
    - ansible.builtin.ping:
    - ansible.builtin.setup: {{gather_subset: ["!all", "min"]}}
      register: facts
    - ansible.builtin.copy: {{src: "{folder}/here", dest: /run/out/there, mode: "0640"}}
    - ansible.builtin.command: sh -c "cat; echo error >&2; exit 3"
      args: {{stdin: "line 1\\nline 2"}}
      register: command
      failed_when: command.rc != 3
    - ansible.builtin.copy:
        dest: {folder}/told
        content: "{{{{ [facts.ansible_facts.ansible_hostname, command] | to_json }}}}"
      delegate_to: localhost
      connection: local
    - ansible.builtin.raw: kill $(cat /run/noise)
"""


def test_a_play_while_the_kernel_prints(node: tuple[Console, Path]) -> None:
    console, folder = node
    content = random.Random(7).randbytes(100_000)
    (folder / "here").write_bytes(content)
    play = folder / "play.yml"
    play.write_text(PLAY.format(folder=folder))
    (folder / "out/noise").write_text(NOISE)
    before = console.log.count(b"entered forwarding")
    argv = ["ansible-playbook", str(play), "-i", "node,", "-c", "impair.testbed.serial", *as_user("root")]
    variables = f"ansible_serial_port={console.name} {VARIABLES}"
    run(["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", *argv, "-e", variables], timeout=560)
    assert console.log.count(b"entered forwarding") > before + 50, "there was noise"
    assert (folder / "out/there").read_bytes() == content
    assert (folder / "out/there").stat().st_mode & 0o777 == 0o640
    hostname, command = json.loads((folder / "told").read_text())
    assert hostname == "nobody"
    assert (command["rc"], command["stdout"], command["stderr"]) == (3, "line 1\nline 2", "error")


def test_another_user_becomes_root_by_a_password(node: tuple[Console, Path]) -> None:
    """After a logout somebody else logs in; su asks for root's password, the command has its own input."""
    console, folder = node
    console.type(b"\x15exit\r")
    before = console.log.count(b"login: ")
    console.wait_for(b"login: ", before + 1)
    su = {"ansible_become_method": "ansible.builtin.su", "ansible_become_password": USERS["root"]}
    ansible(console, "raw", "id -un >/run/out/who", *as_user("guest"))
    assert (folder / "out/who").read_text() == "guest\n"
    ansible(console, "shell", "(id -un; cat) >/run/out/who stdin=mine", "-b", *as_user("guest", **su))
    assert (folder / "out/who").read_text() == "root\nmine\n"
    bad = ansible(console, "raw", "true", "-b", *as_user("guest", **su | {"ansible_become_password": "x"}), check=False)
    assert "incorrect become password" in bad.stdout.lower()
    console.type(b"\x15exit\r")


def playbook(name: str, node: tuple[Console, Path], wanted: dict[str, Any]) -> str:
    """What one of the project's playbooks says, for a node with these variables."""
    console, folder = node
    variables = {"ansible_connection": "impair.testbed.serial", "ansible_serial_port": console.name, **wanted}
    inventory = folder / "hosts.yml"
    inventory.write_text(json.dumps({"testbed": {"hosts": {"node": variables}}}))
    argv = ["ansible-playbook", f"playbooks/{name}.yml", "-i", str(inventory), *as_user("root")]
    return run(["env", "-C", str(CHECKOUT), "ANSIBLE_NOCOLOR=1", *argv, "-e", VARIABLES], timeout=560).stdout


def test_the_whole_testbed_over_the_console(node: tuple[Console, Path]) -> None:
    console, folder = node
    wanted = {"impairment_interfaces": [{"name": "lan0", "delay": "50ms"}], "impairment_management": []}
    assert "failed=0" in playbook("site", node, wanted)
    ansible(console, "raw", "tc qdisc show dev lan0 >/run/out/tc", *as_user("root"))
    assert "delay 50ms" in (folder / "out/tc").read_text()
    assert "changed=0" in playbook("site", node, wanted)


def test_first_contact_makes_ssh_work(node: tuple[Console, Path]) -> None:
    """Judged by an ssh from the node to itself by the new address, with the key that was given."""
    console, folder = node
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "out/key")])
    wanted = {
        "console_hostname": "slave7",
        "console_keys": [(folder / "out/key.pub").read_text()],
        "console_interfaces": [{"name": "lan0", "address": "192.168.77.7/24"}],
    }
    said = playbook("console", node, wanted)
    assert "changed=1" in said and "No key was set" not in said
    assert "changed=0" in playbook("console", node, wanted)
    assert "No key was set" in playbook("console", node, {**wanted, "console_keys": []})
    ssh = "ssh -i /run/key -o StrictHostKeyChecking=no -o BatchMode=yes root@192.168.77.7 'hostname; id -u'"
    ansible(console, "raw", f"install -m 600 /run/out/key /run/key && {ssh} >/run/out/ssh", *as_user("root"))
    assert (folder / "out/ssh").read_text() == "slave7\n0\n"
    ansible(console, "raw", "cat /etc/network/interfaces.d/console-lan0 >/run/out/stanza", *as_user("root"))
    assert "address 192.168.77.7/24" in (folder / "out/stanza").read_text()


def test_a_shell_instead_of_an_init(tmp_path: Path) -> None:
    """Nothing is mounted, and the shell has no terminal of its own: Ctrl-C does not reach it."""
    (tmp_path / "out").mkdir()
    with Console([*kernel(tmp_path), "init=/bin/sh"], tmp_path / "tty") as console:
        console.wait_for(b"# ", 60)
        mount = f"mount -t hostfs -o {tmp_path}/out none /mnt && echo rescued >/mnt/told; exit 4"
        assert "rc=4" in ansible(console, "raw", mount, check=False).stdout
        assert (tmp_path / "out/told").read_text() == "rescued\n"


def test_a_panic_is_reported_with_its_lines(tmp_path: Path) -> None:
    with started(tmp_path) as console:
        done = ansible(console, "raw", "echo c >/proc/sysrq-trigger; sleep 600", *as_user("root"), check=False)
        assert done.returncode == 4, "unreachable"
        assert "panicked" in done.stdout or "closed" in done.stdout
        assert "Kernel panic - not syncing: sysrq triggered crash" in done.stdout
