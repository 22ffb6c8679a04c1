# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The triage of h1 — r1 — r2 — h2: hosts are namespaces, routers have kernels of their own.

The kernels are Debian's, which has to say that it lacks IPTFS, or that of `make kernel` where it is in the cache.
Judged by what tcpdump sees between the routers, by ping and by ip-xfrm(8).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.places import Lab
from tests.integration.uml import built

pytestmark = [pytest.mark.lab, pytest.mark.sources]
MODES = ["tunnel", "iptfs"] if built() else ["tunnel"]
PINGS = 60


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("triage")
    inventory = folder / "kinds.yml"
    routers = {"lab_node_kernel": "built"} if built() else {}
    hosts: dict[str, Any] = {name: {"lab_node_kind": "netns"} for name in ("h1", "h2")}
    hosts |= dict.fromkeys(("r1", "r2"), routers)
    inventory.write_text(json.dumps({"testbed": {"hosts": hosts}}))
    secret = f"ipsec_secret_file={folder}/secret"
    made = Lab(f"triagetest-{os.getpid()}", inventory, "inventories/chain", (secret,))
    try:
        made.playbook("lab_up")
        yield made
    finally:
        made.playbook("lab_down")


def test_the_triage_prints_what_gets_through_beside_the_sources_figures(chain: Lab, tmp_path: Path) -> None:
    argv = ["ssh", "-F", str(chain.run_dir / "ssh_config"), "r1", "timeout 280 tcpdump -nn -c 300 -i eth1 esp"]
    watch = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        asked = {"triage_sizes": [64], "triage_seconds": 1, "triage_report": str(tmp_path / "triage.json")}
        said = chain.playbook("triage", "-e", json.dumps(asked)).stdout
        assert watch.communicate(timeout=60)[0].count("ESP(spi=") == 300
    finally:
        watch.kill()
        watch.wait()
    run = json.loads((tmp_path / "triage.json").read_text())
    assert run["cpus"] == 1 and run["nodes"].startswith("uml, Linux ")
    for mode in ("routed", *MODES):
        found = run["modes"][mode]
        assert not found["failed"], said
        assert 0 < found["rtt"] < 1000 and found["one_way"] > 0.1 and len(found["both_ways"]) == 2, said
        assert found["packets"]["64"] > 10, said
    if not built():
        assert "CONFIG_XFRM_IPTFS" in run["modes"]["iptfs"]["lacks"]
        assert "IP-TFS: " in said and "CONFIG_XFRM_IPTFS" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["1225490", "816ns", "12254901", "81ns", "49019607", "20ns", "122549019", "8ns"] in [
        row[1:9] for row in rows
    ]
    assert any(row[-3:] == ["120", "920", "7200"] and "IPsec" in row for row in rows), said
    for router in ("r1", "r2"):
        assert not chain.run(router, ["ip", "xfrm", "state"]).stdout
        assert not chain.run(router, ["ip", "xfrm", "policy"]).stdout


@pytest.mark.parametrize("mode", MODES)
def test_delay_and_loss_that_host_vars_put_on_the_routers_link_hold_for_the_tunnel(
    chain: Lab, tmp_path: Path, mode: str
) -> None:
    """30 ms from r1, 20 ms from r2, and each fourth packet from r2 lost."""
    hosts = {
        "r1": {"impairment_interfaces": [{"name": "eth1", "delay": "30ms"}]},
        "r2": {"impairment_interfaces": [{"name": "eth1", "delay": "20ms", "drop": {"every": 4}}]},
    }
    wanted = tmp_path / "wanted.yml"
    wanted.write_text(json.dumps({"testbed": {"hosts": hosts}}))
    routers = ("--tags", "ipsec,impairment", "-l", "r1,r2", "-e", "ipsec_state=present", "-e", f"ipsec_mode={mode}")
    drop_time = json.dumps(
        {"ipsec_iptfs": {"drop_time": "10ms"}}
    )  # else a lost packet holds up the next ones for a second
    chain.playbook("site", "-i", str(wanted), *routers, "-e", drop_time)
    ping = ["ping", "-c", str(PINGS), "-i", "0.05", "-W", "4", "10.0.2.4"]
    said = chain.enter("h1", ping, check=False).stdout
    late = [float(text) for text in re.findall(r"time=([\d.]+) ms", said)]
    assert abs(len(late) - PINGS * 3 / 4) <= 4, said
    assert min(late) >= 49.9 and statistics.median(late) < 150, said
    chain.playbook("clear", "--tags", "impairment,ipsec", "-l", "r1,r2")
    said = chain.enter("h1", ["ping", "-c", "10", "-i", "0.05", "-W", "4", "10.0.2.4"], check=False).stdout
    assert "10 received" in said and min(float(text) for text in re.findall(r"time=([\d.]+) ms", said)) < 49, said
    assert not chain.run("r1", ["ip", "xfrm", "state"]).stdout
