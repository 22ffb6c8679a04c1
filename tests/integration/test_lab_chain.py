# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""h1 — r1 — r2 — h2 with hosts that are namespaces and routers with kernels of their own; judged by ping."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.labs import host, processes, recap, wait_for
from tests.integration.places import Lab

pytestmark = [pytest.mark.lab, pytest.mark.testbed, pytest.mark.minutes]
PING = ["ping", "-c", "200", "-i", "0.02", "-W", "4", "10.0.2.4"]


@pytest.fixture(scope="module")
def before() -> dict[str, object]:
    return host()


@pytest.fixture(scope="module")
def chain(before: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    inventory = tmp_path_factory.mktemp("inventory") / "kinds.yml"
    hosts = {name: {"lab_node_kind": "netns"} for name in ("h1", "h2")}
    inventory.write_text(json.dumps({"testbed": {"hosts": hosts}}))
    made = Lab(f"mixedtest-{os.getpid()}", inventory, "inventories/chain")
    made.playbook("lab_up")
    yield made
    made.playbook("lab_down")


def forwarded(lab: Lab) -> int:
    """Bytes that left r1 towards r2 so far."""
    (link,) = json.loads(lab.run("r1", ["ip", "-j", "-s", "link", "show", "dev", "eth1"]).stdout)
    return int(link["stats64"]["tx"]["bytes"])


def replies(said: str) -> dict[int, float]:
    """Number of each echo that came back → milliseconds."""
    return {int(number): float(late) for number, late in re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", said)}


def test_kinds_are_joined_and_routers_forward_both_versions(chain: Lab) -> None:
    assert chain.run("r1", ["hostname"]).stdout == "r1\n"
    assert not (chain.run_dir / "h1" / "ssh").exists()
    for address in ("10.0.2.4", "fd00:10:0:2::4"):
        assert " 0% packet loss" in chain.enter("h1", ["ping", "-c", "2", "-w", "20", address]).stdout
    assert recap(chain.playbook("lab_up").stdout)["changed"] == 0


def test_delay_and_loss_that_host_vars_put_on_the_routers_link_are_what_hosts_see(chain: Lab, tmp_path: Path) -> None:
    """30 ms from r1, 20 ms from r2, each fourth packet lost on the way back; then as it was."""
    # Echoes alone: without a match, questions for neighbours count too.
    echo = {"name": "echo", "match": {"protocol": "icmp"}, "delay": "20ms", "drop": {"every": 4}}
    hosts = {
        "r1": {"impairment_interfaces": [{"name": "eth1", "delay": "30ms"}]},
        "r2": {"impairment_interfaces": [{"name": "eth1", "classes": [echo]}]},
    }
    wanted = tmp_path / "wanted.yml"
    wanted.write_text(json.dumps({"testbed": {"hosts": hosts}}))
    asked = ("-i", str(wanted), "-l", "r1,r2")
    unimpaired = replies(chain.enter("h1", PING).stdout)
    assert len(unimpaired) == 200
    assert "failed=0" in chain.playbook("site", *asked).stdout
    got = replies(chain.enter("h1", PING, check=False).stdout)
    assert len(got) == 150
    times = sorted(got.values())
    assert min(times) >= 50
    assert times[len(times) // 2] < 2 * 50, times
    again = chain.playbook("site", *asked, "--tags", "impairment").stdout
    assert re.search(r"^r1 .*changed=0 ", again, re.MULTILINE) and re.search(r"^r2 .*changed=0 ", again, re.MULTILINE)
    assert "failed=0" in chain.playbook("clear", "-l", "r1,r2", "--tags", "impairment").stdout
    after = replies(chain.enter("h1", PING).stdout)
    assert len(after) == 200
    assert sorted(after.values())[100] < 50


def test_a_link_says_itself_what_it_does_in_both_directions(chain: Lab, tmp_path: Path) -> None:
    """Written at the link, found at both of its ends: 10 ms each way."""
    links = [
        {"name": "left", "ends": [{"node": "h1", "interface": "eth0"}, {"node": "r1", "interface": "eth0"}]},
        {
            "name": "core",
            "impairment": {"delay": "10ms"},
            "ends": [{"node": "r1", "interface": "eth1"}, {"node": "r2", "interface": "eth1"}],
        },
        {"name": "right", "ends": [{"node": "r2", "interface": "eth0"}, {"node": "h2", "interface": "eth0"}]},
    ]
    said = tmp_path / "links.json"
    said.write_text(json.dumps({"lab_links": links}))
    assert "failed=0" in chain.playbook("site", "-l", "r1,r2", "--tags", "impairment", "-e", f"@{said}").stdout
    for router in ("r1", "r2"):
        assert "delay 10ms" in chain.run(router, ["tc", "qdisc", "show", "dev", "eth1"]).stdout
        assert "netem" not in chain.run(router, ["tc", "qdisc", "show", "dev", "eth0"]).stdout
    assert min(replies(chain.enter("h1", PING, check=False).stdout).values()) >= 20
    assert "failed=0" in chain.playbook("clear", "-l", "r1,r2", "--tags", "impairment").stdout


def test_the_triage_measures_the_chain_routed(chain: Lab, tmp_path: Path) -> None:
    """Its short form, judged by what the router forwarded; `make test-sources` has the whole."""
    report = tmp_path / "new" / "triage.json"
    asked = {"triage_modes": ["routed"], "triage_sizes": [], "triage_seconds": 1, "triage_report": str(report)}
    before = forwarded(chain)
    said = chain.playbook("triage", "-e", json.dumps(asked)).stdout
    found = json.loads(report.read_text())["modes"]["routed"]
    assert not found["failed"] and 0 < found["rtt"] < 1000 and len(found["both_ways"]) == 2, said
    carried = (forwarded(chain) - before) * 8 / 1e6  # Mbit of streams that lasted a second each
    assert found["one_way"] > 0.1 and carried > (found["one_way"] + found["both_ways"][0]) * 0.9, said
    assert any("routed" in row and row[-3:] == ["2000", "9400", "9400"] for row in map(str.split, said.splitlines())), (
        said
    )


def test_nothing_is_left(chain: Lab, before: dict[str, object]) -> None:
    assert recap(chain.playbook("lab_down").stdout)["changed"] == 1
    wait_for(lambda: not processes(chain))
    assert not chain.run_dir.exists()
    after = host()
    for kind in ("links", "routes", "forward"):  # other tests' mounts come and go meanwhile
        assert after[kind] == before[kind]
