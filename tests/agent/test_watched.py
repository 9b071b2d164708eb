# SPDX-License-Identifier: Apache-2.0
"""How the agent is watched: probes, metrics, logs."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from agentnode import AgentNode, eventually

FETCH = """
import sys, urllib.request, urllib.error
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


def fetch(node: AgentNode, url: str) -> str:
    """Status and body that the node's own HTTP server answers."""
    return node.sh(f"/usr/bin/python3 -Ic '{FETCH}' {url}").strip()


def test_probes_answer_as_flannels(node: AgentNode) -> None:
    """/healthz and /readyz have flannel's bodies; ready is told when the node's network is up."""
    node.nodes_file.rename(node.nodes_file.with_suffix(".away"))
    node.start("--healthz-port", "8081", "--healthz-ip=127.0.0.1", wait=False)
    base = "http://127.0.0.1:8081"
    eventually(lambda: "127.0.0.1:8081" in node.sh("ss -Hltn"), "the server", seconds=10)
    assert fetch(node, f"{base}/healthz") == "200 flanneld is running"
    assert fetch(node, f"{base}/readyz") == "503 flanneld is not ready yet"
    assert fetch(node, f"{base}/other").startswith("404 ")
    node.nodes_file.with_suffix(".away").rename(node.nodes_file)
    eventually(
        lambda: fetch(node, f"{base}/readyz") == "200 flanneld is ready", "ready", seconds=20
    )


CROWD = """
import resource, socket, urllib.request
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
ports = (8081, 9090)
idle = [socket.create_connection(("127.0.0.1", ports[n % 2]), timeout=5) for n in range(3000)]
for url in ("8081/readyz", "9090/metrics"):
    urllib.request.urlopen("http://127.0.0.1:" + url, timeout=5).read()
"""


def test_a_crowd_that_says_nothing(node: AgentNode) -> None:
    """Beside 3,000 idle connections probes and scrapes are answered, by the same few threads."""
    node.start("--healthz-port=8081", "--metrics-port=9090")
    assert node.process
    tasks = Path(f"/proc/{node.process.pid}/task")
    before = len(list(tasks.iterdir()))
    node.sh(f"/usr/bin/python3 -Ic '{CROWD}'")
    assert len(list(tasks.iterdir())) == before
    assert node.is_ready()


def test_an_agent_that_stands_by_answers_on_a_port_of_its_own(node: AgentNode) -> None:
    """For the one that serves, which answers on the other port: an update may change it."""
    node.start("--healthz-port=8081")
    first = node.process
    assert first is not None
    node.start("--healthz-port=8082", "--stand-by", wait=False)
    second = node.process
    assert second is not None
    eventually(lambda: ":8082" in node.sh("ss -Hltn"), "the second one's server", seconds=10)
    assert fetch(node, "http://127.0.0.1:8082/readyz") == "200 flanneld is ready"
    first.terminate()
    first.wait(timeout=10)
    eventually(lambda: node.is_ready() and node.status()["pid"] == second.pid, "the take-over")
    assert fetch(node, "http://127.0.0.1:8082/readyz") == "200 flanneld is ready"


def test_metrics_are_the_maps_counters(node: AgentNode) -> None:
    """A scrape has every verdict of every program, and what the agent says of itself."""
    node.start("--metrics-port=9090", "--metrics-ip", "127.0.0.1")
    text = fetch(node, "http://127.0.0.1:9090/metrics")
    assert 'vxlane_info{bypass="on",mode="own",node="node1",wanted="on"} 1.0' in text
    assert "vxlane_peers 2.0" in text
    assert "vxlane_ready 1.0" in text
    assert "vxlane_source_up 1.0" in text
    decapsulated = '{kind="bypassed",program="from_nic",verdict="decapsulated"}'
    assert f"vxlane_packets_total{decapsulated} 0.0" in text
    attached = '{action="attach",program="from_nic",result="done"}'
    assert f"vxlane_hook_changes_total{attached} 1.0" in text
    assert 'vxlane_withdrawals_total{reason="start"} 1.0' in text
    assert 'vxlane_reconcile_duration_seconds_count{reason="all"} ' in text
    assert 'vxlane_flows{state="approved",translated="no"} 0.0' in text
    assert 'vxlane_map_pressure_ratio{map="veths"} 0.0' in text
    assert "vxlane_build_info{" in text
    with node.maps() as maps:
        expected = sum(len(verdicts) for verdicts in maps.counters().values())
    assert len(re.findall("^vxlane_packets_total", text, re.MULTILINE)) == expected


def test_logs_are_json_on_demand(node: AgentNode) -> None:
    """With --log-format json every line is an object with time, level and message."""
    node.start("--log-format=json")
    lines = [json.loads(line) for line in node.log().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any(line["message"].startswith("put route 10.42.2.0/24") for line in lines)


def test_the_status_file_is_the_status(running: AgentNode) -> None:
    """agent.json holds what the socket answers."""
    status, file = running.status(), json.loads((running.state / "agent.json").read_text())
    assert status.keys() == file.keys()
    for key in ("node", "mode", "pid", "ready", "bypass", "address", "pod_cidr", "peers"):
        assert status[key] == file[key]


def test_flanneld_flags_come_from_the_environment(node: AgentNode) -> None:
    """FLANNELD_IFACE and its like count where the command line does not say."""
    node.start(env={"FLANNELD_IFACE": "wire0"}, wait=False)
    eventually(lambda: "wire0 has no IPv4 address" in node.log(), "the refusal", seconds=10)
    assert node.process
    node.stop(signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--public-ipv6", "fd00::1"], 2, "--public-ipv6 is not supported"),
        (["--net-config-path", "/nowhere"], 1, "/nowhere: No such file"),
        (["--nodes-file", "/nowhere/nodes"], 1, "/nowhere can't be watched"),
    ],
    ids=["ipv6", "net-conf", "nodes"],
)
def test_a_wrong_option_is_one_sentence(
    node: AgentNode, options: list[str], status: int, sentence: str
) -> None:
    """What can't work from the start ends the agent with one sentence."""
    node.start(*options, wait=False)
    assert node.process
    assert node.process.wait(timeout=10) == status
    [line] = node.log().splitlines()
    assert sentence in line
