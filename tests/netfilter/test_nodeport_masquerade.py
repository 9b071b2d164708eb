# SPDX-License-Identifier: Apache-2.0
"""Traffic between pods and the world outside keeps to netfilter, in and out."""

from __future__ import annotations

import dataclasses

import pytest
from dialogue import OUTSIDE, PORT, Call, answered, call, calling, serving
from kubeproxy import NODE_PORT
from paths import CONNECTING, bypassed, judged

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
            {("from_pod", "no_peer"), ("to_nic", "no_pod"), ("to_pod", "no_peer")},
            {("from_pod", "switched")},
        ),
        (
            "node2-pod1",
            "10.42.1.0",
            {("from_nic", "no_pod")},
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
    assert set(bypassed(seen)) == bypasses
    expected = translated | bypasses | CONNECTING
    if from_pod[0].are_moved():
        # The answer to a moved port is translated back.
        expected |= {("to_nic", "translated"), ("to_pod", "translated")}
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
    assert bypassed(seen) == bypassed(datagrams) == {}
    # Of a pod of this node both questions and answers leave and enter a pod. Answers to any other
    # caller leave the node, in its name.
    is_near = caller.startswith("node1")
    crossings = COUNT * (2 if is_near else 1)
    out = {} if is_near else {("to_nic", "no_pod"): COUNT}
    into_pod = {key: n for key, n in judged(datagrams).items() if key[0] == "to_pod"}
    assert judged(datagrams) == {("from_pod", "no_peer"): crossings, **out, **into_pod}
    assert sum(into_pod.values()) == crossings
    assert set(into_pod) <= {("to_pod", "no_peer"), ("to_pod", "translated")}


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
    each = {("from_pod", "no_peer"), ("to_nic", "no_pod"), ("to_pod", "no_peer")}
    assert set(judged(seen)) == each | {("from_pod", "tcp_control")}
    assert judged(datagrams) == dict.fromkeys(each, COUNT)
