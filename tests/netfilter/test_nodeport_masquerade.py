# SPDX-License-Identifier: Apache-2.0
"""Traffic between pods and the world outside keeps to netfilter, in and out."""

from __future__ import annotations

import dataclasses

import pytest
from dialogue import OUTSIDE, PORT, Call, answered, call, calling, serving
from kubeservice import NODE_PORT
from paths import CONNECTING, UNSTAMPED, bypassed, judged
from servicecalls import NEARLY_ALL

from vxlane.lab import namespaces, pods
from vxlane.lab.cni import ContainerInterface

MANY, COUNT = 200, 20
HOST_PORT = 8081


@pytest.mark.parametrize(
    ("backend", "seen_as", "translated", "bypasses"),
    [
        (
            "node1-pod1",
            "10.42.1.1",
            {("from_pod", "no_peer"), ("to_nic", "no_peer")},
            {("from_pod", "switched")},
        ),
        (
            "node2-pod1",
            "10.42.1.0",
            {("from_nic", "no_pod"), ("to_nic", "no_pod")},
            {("from_pod", "encapsulated"), ("from_nic", "decapsulated")},
        ),
    ],
    ids=["this-node", "another-node"],
)
def test_node_port(lab, kube_proxy, outside, backend, seen_as, translated, bypasses):
    """200 connections from outside reach a pod as its node's own; 200 direct ones are bypassed."""
    proxy = kube_proxy("node1", backends=[lab.address(backend)])
    by_port = Call(lab.address("node1"), NODE_PORT, count=MANY, rounds=5)
    directly = Call(lab.address(backend), count=MANY, rounds=5)
    with (
        serving(lab, backend),
        lab.verdicts("node1") as seen,
        calling(lab, outside, by_port) as from_outside,
    ):
        from_pod = call(lab, "node1-pod2", directly)
    answered(from_outside + from_pod, by_port, directly)
    assert from_outside[0].servers() == from_pod[0].servers() == {backend}
    assert from_outside[0].seen_as() == {seen_as}
    assert from_pod[0].seen_as() == {lab.address("node1-pod2")}
    # A connection that netfilter moved to another port is bypassed as a translated one.
    moved = {("from_pod", "nat"), ("from_nic", "nat")} if from_pod[0].are_moved() else set()
    assert bypasses <= set(bypassed(seen)) <= bypasses | moved
    expected = translated | bypasses | moved | CONNECTING
    assert translated <= set(judged(seen)) <= expected
    assert all(seen[counter] >= MANY * 5 for counter in translated)
    assert proxy.invalid() == 0


@pytest.fixture(scope="module")
def host_port(lab):
    """A pod of node1 with the portmap plugin in its chain: HOST_PORT of the node is its PORT."""
    name = f"{lab.lab.name}-node1-pod9"
    chain = pods.chain(lab.node("node1"))
    bridge, *rest = chain.conflist["plugins"]
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    conflist = {**chain.conflist, "plugins": [bridge, portmap, *rest]}
    chain = dataclasses.replace(chain, conflist=conflist)
    mappings = [
        {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": protocol}
        for protocol in ("tcp", "udp")
    ]
    interface = ContainerInterface(
        name, namespaces.path(name), capabilities={"portMappings": mappings}
    )
    namespaces.create(name)
    chain.add(interface)
    yield "node1-pod9"
    chain.delete(interface)
    namespaces.remove([name])


@pytest.mark.parametrize(
    ("caller", "seen_as"),
    [
        ("outside", OUTSIDE),
        ("node2-pod1", "192.168.77.12"),
        ("node1-pod1", "10.42.1.1"),
        ("node1-pod9", "10.42.1.1"),
    ],
    ids=["outside", "pod-of-another-node", "pod-of-this-node", "itself"],
)
def test_host_port(lab, host_port, outside, caller, seen_as):  # noqa: ARG001 (outside is a caller)
    """Whoever connects to a node's hostPort, the pod's answers come back from the node's port."""
    connections = Call(lab.address("node1"), HOST_PORT, count=MANY, rounds=5)
    questions = Call(lab.address("node1"), HOST_PORT, protocol="udp", rounds=COUNT)
    with serving(lab, host_port):
        with lab.verdicts("node1") as seen:
            reports = call(lab, caller, connections)
        with lab.verdicts("node1") as datagrams:
            reports += call(lab, caller, questions)
    answered(reports, connections, questions)
    assert reports[0].servers() == reports[1].servers() == {host_port}
    assert reports[0].seen_as() == reports[1].seen_as() == {seen_as}
    aged = seen["from_pod", "flow_aged"], datagrams["from_pod", "flow_aged"]
    if caller == "node1-pod1":
        # The first question, and the first answer, are netfilter's.
        assert set(bypassed(seen)) == set(bypassed(datagrams)) == {("from_pod", "nat")}
        assert seen["from_pod", "nat"] + aged[0] >= NEARLY_ALL * 2 * MANY * 5
        assert datagrams["from_pod", "nat"] + aged[1] == 2 * (COUNT - 1)
        assert datagrams["from_pod", "no_peer"] == datagrams["to_pod", "translated"] == 1
    else:
        assert bypassed(seen) == bypassed(datagrams) == {}
        left_alone(datagrams, near=caller == host_port)


def left_alone(datagrams, *, near):
    """Assert that each of COUNT questions and answers crossed netfilter; `near`: to itself."""
    # Of the pod itself both questions and answers leave and enter a pod. Answers to any other
    # caller leave the node, in its name.
    crossings = COUNT * (2 if near else 1)
    out = {("to_pod", "translated"): crossings} if near else {("to_nic", "no_peer"): COUNT}
    assert judged(datagrams) == {("from_pod", "no_peer"): crossings, **out}
    # What comes from outside is none of the overlay's, so it carries no stamp.
    assert near or datagrams[UNSTAMPED] >= COUNT


def test_masquerade(lab, outside):
    """A pod appears outside as its node, and each packet of it crosses netfilter both ways."""
    connections = Call(OUTSIDE, count=MANY, rounds=5)
    questions = Call(OUTSIDE, protocol="udp", rounds=COUNT)
    with serving(lab, outside):
        with lab.verdicts("node1") as seen:
            reports = call(lab, "node1-pod1", connections)
        with lab.verdicts("node1") as datagrams:
            reports += call(lab, "node1-pod1", questions)
    answered(reports, connections, questions)
    assert reports[0].seen_as() == reports[1].seen_as() == {lab.address("node1")}
    each = {("from_pod", "no_peer"), ("to_nic", "no_peer")}
    assert set(judged(seen)) == each | {("from_pod", "tcp_control")}
    assert judged(datagrams) == dict.fromkeys(each, COUNT)
    assert datagrams[UNSTAMPED] >= COUNT
