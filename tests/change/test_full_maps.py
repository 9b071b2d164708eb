# SPDX-License-Identifier: Apache-2.0
"""Maps that are full: what does not fit takes the kernel path, is counted, and is said."""

from __future__ import annotations

import pytest
from numbered import Stream, traffic
from paths import ruleset
from rig import AGENT, ROUNDS, attach, counted, listen, talk

TINY = (*AGENT, "--max-peers", "1", "--max-pods", "1", "--max-flows", "16")
BOTH_WAYS = {("from_pod", "encapsulated"): 2 * ROUNDS, ("from_nic", "decapsulated"): 2 * ROUNDS}
"""What both nodes count of datagrams and their answers."""


@pytest.fixture(scope="module")
def tiny(make_module_lab):
    """Nodes whose maps hold one peer, one pod and 16 flows; node3, kernel-only, is one too many."""
    return make_module_lab(nodes=3, pods_per_node=2, kernel_only=1, agent_options=TINY)


@pytest.fixture
def talks():
    """Traffic for one test."""
    with traffic() as made:
        yield made


def problems(lab, node):
    """What a node's agent finds wrong."""
    return lab.ask(node, op="status")["status"]["problems"]


@pytest.fixture(params=["pass", "strict"])
def judging(tiny, request):
    """Run the test with an agent that lets strangers' packets pass, and one that drops them."""
    if request.param == "strict":
        tiny.kill_agent("node1")
        tiny.start_agent("node1", *TINY, "--strict")
    yield
    if request.param == "strict":
        tiny.kill_agent("node1")
        tiny.start_agent("node1", *TINY)


@pytest.mark.usefixtures("judging")
def test_one_peer_too_many(tiny, talks):
    """The peer that did not fit is talked to by the kernel path, even by a strict agent."""
    lab = tiny
    listen(talks, lab, "node1-pod1", "node2-pod1", "node3-pod1")
    talk(talks, lab, "node1-pod1", "node2-pod1")
    talk(talks, lab, "node1-pod1", "node3-pod1")
    talk(talks, lab, "node3-pod1", "node1-pod1")
    talks.begin()
    with lab.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen) == BOTH_WAYS | {
        ("from_pod", "no_peer"): 2 * ROUNDS,
        ("to_nic", "no_peer"): 2 * ROUNDS,
        ("from_nic", "unknown_vtep"): 2 * ROUNDS,
        ("to_pod", "no_stamp"): 2 * ROUNDS,
    }
    (said,) = problems(lab, "node1")
    assert "the map of peers is full; its packets take the kernel path" in said


def test_one_pod_too_many(tiny, talks):
    """The pod that did not fit has the kernel path, until there is room."""
    lab = tiny
    listen(talks, lab, "node1-pod1", "node1-pod2", "node2-pod1")
    talk(talks, lab, "node1-pod1", "node2-pod1")
    talk(talks, lab, "node1-pod2", "node2-pod1")
    talks.begin()
    with lab.verdicts("node1") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    assert counted(seen) == {
        ("from_pod", "encapsulated"): ROUNDS,
        ("from_nic", "decapsulated"): ROUNDS,
        ("from_nic", "no_pod"): ROUNDS,
    }
    first, second = lab.netns("node1-pod1"), lab.netns("node1-pod2")
    assert attach(lab, "node1", second)["reason"] == "the map of pods is full; raise --max-pods"
    lab.ask("node1", op="remove", container_id=first, ifname="eth0")
    assert attach(lab, "node1", second)["accelerated"]
    lab.ask("node1", op="remove", container_id=second, ifname="eth0")
    assert attach(lab, "node1", first)["accelerated"]


def test_more_flows_than_fit(tiny, talks):
    """Of far too many flows the map keeps some; all arrive, and none counts as anything else."""
    lab = tiny
    rule = ("FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    for node in ("node1", "node2"):
        with ruleset(lab, node):
            lab.exec(node, "iptables", "-I", *rule)
    client, server = lab.netns("node1-pod1"), lab.netns("node2-pod1")
    listen(talks, lab, "node2-pod1")
    for number in range(50):
        talk(talks, lab, "node1-pod1", "node2-pod1", local=7400 + number)
    talks.begin()
    with lab.verdicts("node1", "node2") as seen:
        talks.exchange(ROUNDS)
    assert talks.lost == 0
    from_pods = {verdict: n for (place, verdict), n in counted(seen).items() if place == "from_pod"}
    assert set(from_pods) <= {"encapsulated", "flow_unknown", "flow_half"}
    assert from_pods["flow_unknown"] > 0
    assert "map_full" not in {verdict for _, verdict in seen}
    assert sum(from_pods.values()) == 2 * 50 * ROUNDS
    for port in range(7500, 7550):
        talks.join(Stream(client, server, lab.address("node2-pod1"), port=port))
    talks.exchange(20)
    assert (talks.lost, talks.faults) == (0, [])
    for node in ("node1", "node2"):
        lab.exec(node, "iptables", "-D", *rule)
