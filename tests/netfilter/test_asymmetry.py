# SPDX-License-Identifier: Apache-2.0
"""vxlane on one side only: everything connects, and the side that has it bypasses."""

from __future__ import annotations

import pytest
from dialogue import Call, answered, call, serving
from kubeproxy import dropping_invalid
from paths import CONNECTING, bypassed, judged

MANY, COUNT = 200, 50
BOTH_WAYS = {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}


def talk(lab, client, server, *nodes):
    """MANY connections at once, then COUNT datagrams in turns; what of each the nodes counted."""
    connections = Call(lab.address(server), count=MANY, rounds=5)
    questions = Call(lab.address(server), protocol="udp", rounds=COUNT)
    with serving(lab, server):
        with lab.verdicts(*nodes) as by_tcp:
            reports = call(lab, client, connections)
        with lab.verdicts(*nodes) as by_udp:
            reports += call(lab, client, questions)
    answered(reports, connections, questions)
    assert reports[0].servers() == reports[1].servers() == {server}
    assert reports[0].seen_as() == reports[1].seen_as() == {lab.address(client)}
    if reports[0].are_moved():
        by_tcp = {key: count for key, count in by_tcp.items() if key[1] != "translated"}
    return by_tcp, judged(by_udp)


def learned(first, way_out, second, way_in):
    """COUNT questions and answers on a node where the first of each takes the kernel path.

    They enter it by `first` and `second`, and are learned at `way_out` and `way_in`.
    """
    return {
        (first, "flow_unknown"): 1,
        (way_out, "learned"): 1,
        (second, "flow_half"): 1,
        (way_in, "learned"): 1,
        ("from_pod", "encapsulated"): COUNT - 1,
        ("from_nic", "decapsulated"): COUNT - 1,
    }


AS_CLIENT = learned("from_pod", "to_nic", "from_nic", "to_pod")
AS_SERVER = learned("from_nic", "to_pod", "from_pod", "to_nic")


@pytest.mark.parametrize(
    ("client", "server", "datagrams"),
    [("node1-pod1", "node3-pod1", AS_CLIENT), ("node3-pod1", "node1-pod1", AS_SERVER)],
    ids=["to-a-stock-node", "from-a-stock-node"],
)
def test_one_node_of_two(lab, client, server, datagrams):
    """Between a node with vxlane and one without it 200 connections go, bypassed on the one."""
    with dropping_invalid(lab, ("node1", "node3")) as dropped:
        by_tcp, by_udp = talk(lab, client, server, "node1")
    assert set(bypassed(by_tcp)) == BOTH_WAYS
    assert set(judged(by_tcp)) <= BOTH_WAYS | CONNECTING
    assert by_udp == datagrams
    assert dropped == [0, 0]


@pytest.fixture
def plain_pod(lab):
    """A pod of node1 that its agent has let go."""
    pod = lab.lab.add_pod(lab.node("node1"))
    assert lab.ask("node1", op="remove", container_id=pod.name, ifname="eth0")["ok"]
    yield pod.name.removeprefix(f"{lab.lab.name}-")
    lab.lab.remove_pod(pod)


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_one_pod_of_two_on_one_node(lab, plain_pod, is_server):
    """A pod with vxlane and one without it, on one node, talk by the bridge alone."""
    pair = ["node1-pod1", plain_pod]
    by_tcp, by_udp = talk(lab, *(pair if is_server else reversed(pair)), "node1")
    assert set(judged(by_tcp)) == {
        ("from_pod", "no_peer"),
        ("from_pod", "tcp_control"),
    }
    assert by_udp == {("from_pod", "no_peer"): COUNT}


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_one_pod_of_two_on_two_nodes(lab, plain_pod, is_server):
    """A pod without vxlane talks by flannel's device, and is bypassed on the other pod's node."""
    pair = ["node2-pod1", plain_pod] if is_server else [plain_pod, "node2-pod1"]
    with dropping_invalid(lab) as dropped:
        here, here_by_udp = talk(lab, *pair, "node1")
        there, there_by_udp = talk(lab, *pair, "node2")
    assert set(judged(here)) == {("from_nic", "no_pod")}
    assert here_by_udp == {("from_nic", "no_pod"): COUNT}
    assert set(bypassed(there)) == BOTH_WAYS
    assert there_by_udp == (AS_CLIENT if is_server else AS_SERVER)
    assert dropped == [0, 0]


def test_two_pods_of_one_node(lab):
    """Two pods of a node are switched into each other, all but the first packet each way."""
    with dropping_invalid(lab, ["node1"]) as dropped:
        by_tcp, by_udp = talk(lab, "node1-pod1", "node1-pod2", "node1")
    assert set(bypassed(by_tcp)) == {("from_pod", "switched")}
    assert set(judged(by_tcp)) <= {("from_pod", "switched")} | CONNECTING
    assert by_udp == {
        ("from_pod", "flow_unknown"): 1,
        ("from_pod", "flow_half"): 1,
        ("to_pod", "learned"): 2,
        ("from_pod", "switched"): 2 * COUNT - 2,
    }
    assert dropped == [0]
