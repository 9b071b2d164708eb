# SPDX-License-Identifier: Apache-2.0
"""Flows outlive their conntrack entries, and connections outlive vxlane."""

from __future__ import annotations

import time

import pytest
from dialogue import Call, answered, beating, calling, hearing, serving
from kubeproxy import dropping_invalid
from paths import STALL, bypassed

from vxlane.lab import agents
from vxlane.lab.waiting import wait_for

NODES = ("node1", "node2")
CLIENT, SERVER = "node1-pod1", "node2-pod1"
TCP, UDP = 3, 1
"""How long conntrack keeps an entry here, seconds. TCP's approvals age as UDP's entries do."""
PATIENCE = {"tcp_timeout_established": TCP, "udp_timeout": UDP, "udp_timeout_stream": UDP}


@pytest.fixture(scope="module")
def stock_lab(make_module_lab):
    """Two nodes with a stock overlay and a conntrack that forgets soon."""
    lab = make_module_lab(nodes=2, pods_per_node=1, kernel_only=2)
    for node in NODES:
        timeouts = [f"net.netfilter.nf_conntrack_{key}={value}" for key, value in PATIENCE.items()]
        lab.exec(node, "sysctl", "-qw", *timeouts)
    return lab


@pytest.fixture
def adopted(stock_lab):
    """The same with vxlane, which has adopted the overlay."""
    lab = stock_lab
    idle = [node for node in NODES if lab.agent_pid(node) is None]
    for node in idle:
        agents.start(lab.node(node), lab.lab.nodes_file, ["--mode", "adopt"])
    for node in idle:
        agents.await_ready(lab.node(node))
        assert attach(lab, node)["accelerated"]
    return lab


def attach(lab, node):
    """Ask a node's agent to accelerate its pod, as the CNI plugin would; its answer."""
    pod = lab.pod(f"{node}-pod1")
    return lab.ask(
        node,
        op="add",
        container_id=pod.name,
        ifname="eth0",
        netns=f"/run/netns/{pod.name}",
        host_ifname=pod.veth,
        mac=pod.mac,
        addresses=[str(pod.address)],
    )


def detach(lab, node):
    """Run `vxlane detach` on a node."""
    env = {"VXLANE_STATE_DIR": str(lab.node(node).directory)}
    lab.exec(node, agents.program("vxlane"), "detach", env=env)


def entries(lab):
    """How many open TCP connections of the client each node's conntrack knows."""
    argv = ["conntrack", "-L", "-p", "tcp", "-s", lab.address(CLIENT)]
    return [lab.exec(node, *argv).stdout.count("ESTABLISHED") for node in NODES]


def test_silence(adopted):
    """Connections that are silent until conntrack has forgotten them go on, and end well."""
    lab = adopted
    wanted = Call(lab.address(SERVER), count=10, rounds=20, pause=0.02, idle=TCP + 2)
    with (
        dropping_invalid(lab) as dropped,
        serving(lab, SERVER),
        lab.verdicts("node1") as seen,
        calling(lab, CLIENT, wanted) as reports,
    ):
        wait_for(lambda: entries(lab) == [wanted.count] * 2, "the entries")
        wait_for(lambda: entries(lab) == [0, 0], "their end", seconds=10)
        forgotten = time.monotonic()
    answered(reports, wanted)
    # In the silence: before and after it they are known, until the end.
    assert forgotten < reports[0].ended
    assert set(bypassed(seen)) == {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}
    assert seen["from_pod", "flow_aged"] >= wanted.count
    assert reports[0].longest() < STALL
    assert dropped == [0, 0]


def test_one_sided_stream(adopted):
    """A stream of datagrams that only the answerer carries on passes a pod's policy for ever."""
    lab, ports = adopted, (9001, 9000)
    policy = ["FORWARD", "-d", lab.address(CLIENT), "-m", "conntrack", "--ctstate", "NEW"]
    lab.exec("node1", "iptables", "-I", *policy, "-j", "DROP")
    with (
        lab.verdicts("node1") as seen,
        hearing(lab, CLIENT, ports[0], lab.address(SERVER), ports[1]) as heard,
        beating(lab, SERVER, "udp", lab.address(CLIENT), *ports),
    ):
        heard.await_more(5 * UDP * 50, seconds=60)
        times = [when for _, when in heard.all()]
    lab.exec("node1", "iptables", "-D", *policy, "-j", "DROP")
    assert set(bypassed(seen)) == {("from_nic", "decapsulated")}
    # From time to time one of them goes through netfilter, and keeps the entry there.
    aged = 3 * (times[-1] - times[0]) / UDP
    assert 0.6 * aged <= seen["from_nic", "flow_aged"] <= 1.3 * aged
    # One may have been between both programs when the counting began or ended.
    sent_past = seen["from_nic", "flow_aged"] + seen["from_nic", "flow_half"]
    assert abs(seen["to_pod", "learned"] - sent_past) <= 1


def test_detach(adopted):
    """None of 100 busy connections is reset or stalls when vxlane is detached from both nodes."""
    lab = adopted
    # With shorter pauses all of a machine's CPU is the test's own, and so are the stalls.
    wanted = Call(lab.address(SERVER), count=100, rounds=100, size=20000, pause=0.1)
    with (
        dropping_invalid(lab) as dropped,
        serving(lab, SERVER),
        calling(lab, CLIENT, wanted) as reports,
    ):
        with lab.verdicts(*NODES) as seen:
            time.sleep(2)
        for node in NODES:
            detach(lab, node)
        detached = time.monotonic()
    assert set(bypassed(seen)) == {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}
    answered(reports, wanted)
    assert reports[0].ended > detached + 1
    assert reports[0].longest() < STALL
    assert dropped == [0, 0]
    lenient = "net.netfilter.nf_conntrack_tcp_be_liberal"
    assert [lab.exec(node, "sysctl", "-n", lenient).stdout for node in NODES] == ["1\n", "1\n"]
