# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's part of measuring: what has to happen between several nodes. See the module's documentation."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.errors import TestbedError
from ..module_utils.measure import probe, table
from ..module_utils.measure.flows import Flow, calibration_matches
from ..module_utils.measure.schedule import REQUEST, TRAIN, Limits
from ..module_utils.measure.session import ON_NODE, Session, parse_events
from ..module_utils.measure.topology import VARIABLES
from ..plugin_utils.addresses import in_interfaces, in_matches

display = Display()
SOURCES = Path(__file__).resolve().parents[2] / "files" / "probe"
HOME = "/var/lib/impair.testbed/measure"  # on the node
PROBE = f"{HOME}/probe"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "phase": {
        "required": True,
        "choices": ["plan", "begin", "send", "collect", "judge", "again", "end", "report", "remove"],
    },
    "nodes": {"type": "list", "elements": "str"},
    "limits": {"type": "dict", "default": {}},
    "directory": {"type": "path"},
    "stage": {"type": "int"},
    "path": {"type": "path"},
}


class ActionModule(ActionBase):
    """Phases of a measuring run; each works on one node, or on the controller alone."""

    TRANSFERS_FILES = False  # most phases need no temporary directory; _put makes its own
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(ARGUMENTS)
        variables = task_vars or {}
        self.node = str(variables.get("inventory_hostname", ""))
        phase = getattr(self, "phase_" + arguments["phase"])
        try:
            session = Session(Path(arguments["directory"])) if arguments["directory"] else None
            result.update(phase(session, arguments, variables))
        except TestbedError as error:
            raise AnsibleActionFail(str(error)) from error
        return result

    # On the controller

    def phase_plan(
        self, session: Session | None, arguments: dict[str, Any], variables: dict[str, Any]
    ) -> dict[str, Any]:
        """Choose the flows and have the probe ready."""
        hosts = variables["hostvars"]
        nodes = {
            str(node): {name: _plain(hosts[node][name]) for name in VARIABLES if name in hosts[node]}
            for node in arguments["nodes"]
        }
        for known in nodes.values():
            known.update(_merged(known))
        probe.compiled(SOURCES)
        made = Session.plan(nodes, Limits(**arguments["limits"]))
        seconds = sum(stage.seconds for stage in made.first)
        display.display(f"{len(made.subjects)} classes to measure, about {seconds:.0f} s of packets")
        if self._task.check_mode:
            for flow in made.flows.values():
                display.display("  " + _through(flow))
            shutil.rmtree(made.directory)
        impaired = sorted({subject.node for subject in made.subjects})
        unimpaired = {node: calibration_matches(made.lab, node, made.limits.port) for node in impaired}
        found = {"directory": str(made.directory), "stages": len(made.first), "nodes": made.nodes}
        return {**found, "impaired": impaired, "unimpaired": unimpaired}

    def phase_judge(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Say what a stage has shown."""
        found = session.judge(arguments["stage"])
        for row in found:
            display.display("  " + table.brief(row), color=None if row.ok else "red")
        return {"rows": len(found)}

    def phase_again(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Which stages are worth a second try."""
        found = session.again()
        if found:
            display.display(f"{len(found)} to be measured again, each with nothing else on the wire")
        return {"stages": found}

    def phase_report(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """The table, the file, and the verdict."""
        found, problems = session.rows(), session.problems()
        path = Path(arguments["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([row.as_dict() for row in found], indent=1, ensure_ascii=False) + "\n")
        display.display("\n" + "\n".join(table.render(found)) + "\n")
        warnings = []
        for node in session.nodes:
            told = variables["hostvars"][node].get("impairment_result") or {}
            warnings += session.superpackets(node, _plain(told.get("rules") or []))
        shutil.rmtree(session.directory)
        bad = sum(not row.ok for row in found)
        result = {"rows": len(found), "failed_rows": bad, "path": str(path), "problems": problems}
        result["warnings"] = warnings
        if problems:
            return {**result, "failed": True, "msg": "the measurement itself failed: " + "; ".join(problems)}
        if bad:
            return {**result, "failed": True, "msg": f"{bad} of {len(found)} rows are not as asked; see the table"}
        return {**result, "msg": f"all {len(found)} rows are as asked" if found else "nothing is impaired here"}

    # On a node

    def phase_begin(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Install the probe where it is missing, and start recording."""
        if self.node not in session.nodes:
            return {"skipped": True}
        changed = self._install()
        lines = [f"{PROBE} stop dir={ON_NODE} >/dev/null", f"rm -rf {ON_NODE}", f"mkdir -p -m 0700 {ON_NODE}"]
        for number, text in session.scripts(self.node).items():
            lines.append(f"printf %s {shlex.quote(text)} > {ON_NODE}/stage-{number}")
        watch = session.watch_line(self.node)
        if watch:
            lines.append(f"{PROBE} {watch}")
        self._shell(" && ".join(lines))
        told = variables.get("impairment_result") or {}  # of the role that has let the calibration pass
        session.add(self.node, "backends", json.dumps(_plain(told.get("backends") or [])).encode())
        session.add(self.node, "rules", json.dumps(_plain(told.get("rules") or [])).encode())
        session.add(self.node, "macs", self._shell("cat /sys/class/net/*/address").encode())
        return {"changed": changed}

    def phase_send(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Send this node's packets of one stage, and wait until they are sent."""
        number = arguments["stage"]
        if number not in session.scripts(self.node):
            return {"skipped": True}
        offset = session.size(self.node, "events")
        self._shell(f"{PROBE} run dir={ON_NODE} stage={number}")
        deadline = time.monotonic() + 2 * session.stages[number].seconds + 30
        shown = 0
        while time.monotonic() < deadline:
            events = parse_events(self._shell(f"tail -c +{offset + 1} {ON_NODE}/events").encode())
            for event in events[shown:]:
                self._tell(session, event)
            shown = len(events)
            if any(event["event"] == "end" and event["stage"] == str(number) for event in events):
                return {}
            time.sleep(0.5)  # the node works in the background; asking is all that the controller can do
        return {"failed": True, "msg": f"stage {number} did not end in time"}

    def phase_collect(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Bring in what was recorded and said since the last time."""
        if self.node not in session.nodes:
            return {"skipped": True}
        if self.node in session.watches:
            offset = session.size(self.node, "records")
            data = base64.b64decode(self._shell(f"{PROBE} dump dir={ON_NODE} offset={offset}"))
            session.add(self.node, "records", data)
        offset = session.size(self.node, "events")
        session.add(self.node, "events", self._shell(f"tail -c +{offset + 1} {ON_NODE}/events").encode())
        return {}

    def phase_end(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """End our processes and remove their files; the program stays for the next time."""
        if self.node not in session.nodes:
            return {"skipped": True}
        offset = session.size(self.node, "events")
        stop = f"test ! -d {ON_NODE} || {{ {PROBE} stop dir={ON_NODE} >/dev/null"
        text = self._shell(f"{stop}; tail -c +{offset + 1} {ON_NODE}/events; rm -rf {ON_NODE}; }}")
        session.add(self.node, "events", text.encode())
        return {}

    def phase_remove(self, session: Session, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Take the program off the node as well."""
        there = self._shell(f"test -e {HOME} -o -e {ON_NODE} && echo there || true").strip()
        if there and not self._task.check_mode:
            self._shell(f"test ! -x {PROBE} || {PROBE} stop dir={ON_NODE} >/dev/null; rm -rf {ON_NODE} {HOME}")
        return {"changed": bool(there)}

    def _shell(self, command: str) -> str:
        # With something to read, ssh makes no terminal: what sshd says beside the command stays out of its output.
        done = self._low_level_execute_command(command, in_data=b"\n")
        if done["rc"]:
            said = (done["stderr"] or done["stdout"]).strip()
            raise AnsibleActionFail(f"`{command[:200]}` failed on {self.node}: {said}")
        return str(done["stdout"])

    def _tell(self, session: Session, event: dict[str, Any]) -> None:
        if event["event"] != "start":
            return
        flow = session.flows.get(event["flow"] % 1000)
        if flow is None:
            return
        kind = {REQUEST: "timed requests", TRAIN: "numbered packets"}.get(event["kind"], "packets of load")
        what = (
            "the unimpaired path"
            if event["flow"] > 1000
            else f"class {flow.class_name} at {flow.node} {flow.interface}"
        )
        display.display(
            f"  {flow.sender} → {flow.receiver}: {event['count']} {kind} through {what}, {event['rate']:.0f}/s"
        )

    def _install(self) -> bool:
        """Bring the probe to the node; True where it was not there."""
        machine, _newline, found = self._shell(
            f"uname -m; test ! -e {PROBE} || sha256sum {PROBE}; cat {PROBE}.from 2>/dev/null || true"
        ).partition("\n")
        if machine.strip() == platform.machine():
            program = probe.compiled(SOURCES)
            if hashlib.sha256(program.read_bytes()).hexdigest() in found:
                return False
            self._put([program], f"install -m 0700 {program.name} {PROBE}")
            self._shell(f"echo {hashlib.sha256(program.read_bytes()).hexdigest()} {PROBE} | sha256sum -c >/dev/null")
            return True
        if probe.digest(SOURCES) in found:
            return False
        self._shell(
            "command -v cc >/dev/null || { echo 'no C compiler (cc): install gcc and libc6-dev on this node, '"
            f"'or measure from a controller of the same architecture ({machine.strip()})' >&2; exit 1; }}"
        )
        flags = " ".join(probe.FLAGS)
        self._put(probe.sources(SOURCES), f"cc {flags} -o {PROBE} *.c && echo {probe.digest(SOURCES)} > {PROBE}.from")
        return True

    def _put(self, files: list[Path], then: str) -> None:
        """Copy files to a temporary directory of the node and run a command there."""
        directory = self._make_tmp_path()
        for path in files:
            self._transfer_file(str(path), self._connection._shell.join_path(directory, path.name))
        self._shell(f"mkdir -p -m 0700 {HOME} && cd {directory} && {then}")
        self._remove_tmp_path(directory)


def _through(flow: Flow) -> str:
    return f"{flow.sender} → {flow.receiver} through class {flow.class_name} at {flow.node} {flow.interface}"


def _merged(variables: dict[str, Any]) -> dict[str, Any]:
    """What stands in a node's variables of impairments, with sets of addresses as networks. Raises InvalidInput."""
    ways = {"impairment_interfaces": in_interfaces, "impairment_management": in_matches}
    return {name: merge(variables[name], name) for name, merge in ways.items() if name in variables}


def _plain(value: Any) -> Any:
    """A value without Ansible's tags and lazy containers."""
    return json.loads(json.dumps(value, default=str))
