# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible over a node's console: what the plugin's options are and how its methods use a session."""

from __future__ import annotations

DOCUMENTATION = r"""
name: serial
short_description: run tasks over a serial console
description:
  - Runs modules and commands, and copies files, over a node's serial console, before there is a network or when it is
    gone.
  - Consoles are serial ports (by pyserial), unix sockets as QEMU has them, and TCP ports of console servers.
  - Logs in where a login is asked for, uses the shell where there is one, and ends what is in its way, such as a
    half-typed line, a pager or an open quote.
  - A kernel may print at any moment. What it tears is noticed and sent again; a result is the right one or an error.
  - An oops or a panic that is seen on the console is reported with its lines.
author:
  - impair.testbed contributors (@impair-testbed)
version_added: 0.1.0
notes:
  - Standard output and standard error are told apart, exit codes are those of the command; one that a signal ended has
    128 and the signal's number. Commands have no terminal, as with ssh without C(-t).
  - One process uses a console at a time, others wait. End a terminal program such as C(picocom) before.
  - The shell that was found is left as it was. A shell that was logged in to is left logged in.
  - "The node needs a POSIX shell, and C(awk), C(base64), C(gzip), C(sha256sum) and C(stty); busybox has them all.
    Modules also need Python there."
  - Ansible's pipelining saves half of the time; set it.
options:
  port:
    description:
      - "The console: a device such as V(/dev/ttyUSB0), V(unix:/path/of/a/socket), V(tcp:host:port), or a URL that
        pyserial knows, such as V(rfc2217://host:port)."
    type: string
    required: true
    vars:
      - name: ansible_serial_port
  baudrate:
    description: Bits in a second; eight data bits, no parity, one stop bit. Sockets use it to know how long to wait.
    type: integer
    default: 115200
    vars:
      - name: ansible_serial_baudrate
  flow:
    description: How a serial port stops the other side.
    type: string
    choices: [none, rtscts, xonxoff]
    default: none
    vars:
      - name: ansible_serial_flow
  remote_user:
    description: Who logs in where the console asks for it. A shell that is already there is used as it is.
    type: string
    vars:
      - name: ansible_user
      - name: ansible_serial_user
  password:
    description: Given where the console asks for one.
    type: string
    vars:
      - name: ansible_password
      - name: ansible_serial_password
  login_prompt:
    description: Regular expression for the end of what the console says when it asks for a user.
    type: string
    default: '(?:^|[\r\n])[^\r\n]*(?<!Last )[Ll]ogin: *$'
    vars:
      - name: ansible_serial_login_prompt
  password_prompt:
    description: Regular expression for the end of what the console says when it asks for a password.
    type: string
    default: '[Pp]assword: *$'
    vars:
      - name: ansible_serial_password_prompt
  timeout:
    description: Seconds until a shell has to answer; a node that boots needs more.
    type: float
    default: 60
    vars:
      - name: ansible_serial_timeout
  command_timeout:
    description: Seconds that a command may take; V(0) for as long as it likes. Ansible is told, the command goes on.
    type: float
    default: 0
    vars:
      - name: ansible_serial_command_timeout
  lock_timeout:
    description: Seconds to wait for another process that uses the console.
    type: float
    default: 120
    vars:
      - name: ansible_serial_lock_timeout
extends_documentation_fragment:
  - ansible.builtin.connection_pipelining
"""

import contextlib
import hashlib
import re
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

from ..module_utils.errors import TestbedError
from ..plugin_utils.console import become, port, session
from ..plugin_utils.console.door import Login

HASH = "sha256sum <{path} >&2"


class Connection(ConnectionBase):
    """One console. Opened by the first command of a task, and given back after the task."""

    transport = "impair.testbed.serial"
    has_pipelining = True
    has_tty = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._session: session.Session | None = None
        self._held = contextlib.ExitStack()
        self._told = 0
        self._connected = False

    def _connect(self) -> Connection:
        if not self._connected:
            with self._errors():
                self._open()
            self._connected = True
        return self

    def _open(self) -> None:
        name = self.get_option("port")
        self._say(f"open {name}")
        self._held.enter_context(port.locked(name, self.get_option("lock_timeout")))
        seconds = self.get_option("timeout")
        opened = port.open_port(name, self.get_option("baudrate"), self.get_option("flow"), seconds)
        self._session = session.Session(opened, self.get_option("baudrate"))
        login = Login(
            self.get_option("remote_user") or "",
            self.get_option("password") or "",
            *(re.compile(self.get_option(option).encode()) for option in ("login_prompt", "password_prompt")),
        )
        self._session.open(login, seconds)

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Exit code, standard output and standard error."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._say(f"run {cmd}")
        asked = self.become if sudoable and self.become and self.become.expect_prompt() else None
        script = cmd.encode()
        if asked:
            prompt = asked.prompt if isinstance(asked.prompt, str) else ""
            password = asked.get_option("become_pass")
            script = become.with_password(cmd, str(password), prompt, asked.success, self._own.folder).encode()
        code, stdout, stderr = self._run(script, in_data)
        if asked:
            if asked.check_incorrect_password(stdout + stderr):
                raise AnsibleError("incorrect become password")
            stderr = asked.strip_become_prompt(stderr)
        return code, stdout, stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """A file to the node; written there only when all of it has arrived, and read back."""
        super().put_file(in_path, out_path)
        try:
            data = Path(in_path).read_bytes()
        except FileNotFoundError:
            raise AnsibleFileNotFound(f"file or module does not exist: {in_path}") from None
        self._say(f"put {in_path} to {out_path}")
        with self._errors():
            self._own.upload(data, "f")
        path, arrived = shlex.quote(out_path), f"{self._own.folder}/f"
        script = f"cat <{arrived} >{path} && {HASH.format(path=path)}; c=$?; rm -f {arrived}; exit $c"
        self._check(self._run(script.encode(), None), hashlib.sha256(data).hexdigest(), out_path)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """A file from the node."""
        super().fetch_file(in_path, out_path)
        self._say(f"fetch {in_path} to {out_path}")
        path = shlex.quote(in_path)
        answer = self._run(f"cat <{path} && {HASH.format(path=path)}".encode(), None)
        self._check(answer, hashlib.sha256(answer[1]).hexdigest(), in_path)
        Path(out_path).write_bytes(answer[1])

    def close(self) -> None:
        """Give the console back."""
        if self._session is not None:
            self._session.close()
            self._warn()
        self._session = None
        self._held.close()
        self._connected = False

    def reset(self) -> None:
        """The next command finds its way to the shell anew."""
        self.close()

    @property
    def _own(self) -> session.Session:
        if self._session is None:
            raise AnsibleConnectionFailure("the console was closed")
        return self._session

    def _run(self, script: bytes, stdin: bytes | None) -> tuple[int, bytes, bytes]:
        with self._errors():
            code, stdout, stderr = self._own.run(script, stdin, self.get_option("command_timeout"))
        self._warn()
        return code, stdout, stderr

    @contextlib.contextmanager
    def _errors(self) -> Any:
        """What goes wrong with a console makes the node unreachable; the next task begins from the start."""
        try:
            yield
        except TestbedError as error:
            self.close()
            raise AnsibleConnectionFailure(str(error)) from None

    @staticmethod
    def _check(answer: tuple[int, bytes, bytes], digest: str, path: str) -> None:
        code, _stdout, stderr = answer
        if code != 0:
            raise AnsibleError(f"{path}: {stderr.decode(errors='replace').strip()}")
        if stderr.split()[:1] != [digest.encode()]:
            raise AnsibleError(f"{path}: the copy is not the same; did something else write it meanwhile?")

    def _warn(self) -> None:
        """Once for what a kernel in distress said."""
        trouble = self._own.ear.trouble
        if len(trouble) > self._told:
            lines = "\n".join(trouble[self._told :])
            Display().warning(f"{self.get_option('port')}: the node's kernel reports trouble:\n{lines}", formatted=True)
            self._told = len(trouble)

    def _say(self, what: str) -> None:
        Display().vvv(f"CONSOLE {what}", host=self.get_option("port"))
