# SPDX-License-Identifier: Apache-2.0
"""The bandwidth plugin's limits hold, and its ADD works, whatever stands on which veth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flood import flood
from machinecan import BOTH_OPTIONS
from numbered import Listener, Talk, traffic
from rig import AGENT, ROUNDS, counted

from vxlane.lab import namespaces, pods
from vxlane.runtime.chain import ContainerInterface

LIMIT, BURST = 16_000_000, 3_200_000
"""bit/s and bits: a burst that outlasts the pauses of a busy machine."""


@pytest.fixture(scope="module", params=BOTH_OPTIONS)
def attached(make_module_lab, request):
    """Two nodes with a pod each, their programs attached by either method; and which one."""
    options = (*AGENT, "--attach", request.param)
    lab = make_module_lab(nodes=2, pods_per_node=1, kernel_only=0, agent_options=options)
    return lab, request.param


@pytest.fixture
def shaped(attached, make_netns):
    """Make a pod on node2 as k3s does, with limits: its namespace and address."""
    lab, _ = attached
    made = []

    def make(**limits):
        usual = pods.chain(lab.node("node2"))
        bridge, vxlane = usual.conflist["plugins"]
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
        plugins = [bridge, portmap, bandwidth, vxlane]
        chain = replace(usual, conflist={**usual.conflist, "plugins": plugins})
        name = make_netns("shaped")
        pod = ContainerInterface(name, namespaces.path(name), capabilities={"bandwidth": limits})
        made.append((chain, pod))
        return name, chain.add(pod)["ips"][0]["address"].partition("/")[0]

    yield make
    for chain, pod in made:
        chain.delete(pod)


def measure(source, target, address):
    """Flood with twice the limit; the rate that arrives, in limits."""
    arrival = flood(source, target, address, rate=2 * LIMIT, seconds=1.5)
    return arrival.rate(skip=2 * BURST // 8) / LIMIT


def exchange(lab, client, server, address):
    """Datagrams and answers between two pods of two nodes; what was counted."""
    with traffic() as talks:
        talks.join(Listener(server, "server"))
        talks.join(Talk(client, address))
        talks.begin()
        with lab.verdicts("node1", "node2") as seen:
            talks.exchange(ROUNDS)
        assert talks.lost == 0
    return counted(seen)


def test_limit_to_the_pod(attached, shaped):
    """What a pod is sent is held to its limit, and what it sends is bypassed."""
    lab, _ = attached
    name, address = shaped(ingressRate=LIMIT, ingressBurst=BURST)
    other = lab.netns("node1-pod1")
    assert 0.9 < measure(other, name, address) < 1.1
    assert exchange(lab, other, name, address) == {
        ("from_pod", "encapsulated"): 2 * ROUNDS,
        ("from_nic", "decapsulated"): ROUNDS,
        ("from_nic", "guarded"): ROUNDS,
        ("to_pod", "no_stamp"): ROUNDS,
    }


def test_limit_to_the_pod_from_its_neighbour(attached, shaped):
    """What a pod is sent by a pod of its node is held to its limit, and its answers switched."""
    lab, _ = attached
    name, address = shaped(ingressRate=LIMIT, ingressBurst=BURST)
    neighbour = lab.netns("node2-pod1")
    assert 0.9 < measure(neighbour, name, address) < 1.1
    assert exchange(lab, neighbour, name, address) == {
        ("from_pod", "switched"): ROUNDS,
        ("from_pod", "guarded"): ROUNDS,
        ("to_pod", "learned"): ROUNDS,
    }


def test_limit_from_the_pod(attached, shaped):
    """What a pod sends is held to its limit.

    By TCX what it is sent is bypassed; by clsact it has the kernel path, for a shaper's qdisc has
    no place for a filter on the way to the pod.
    """
    lab, method = attached
    name, address = shaped(egressRate=LIMIT, egressBurst=BURST)
    other = lab.netns("node1-pod1")
    assert 0.9 < measure(name, other, lab.address("node1-pod1")) < 1.1
    by_tcx = {
        ("from_pod", "encapsulated"): ROUNDS,
        ("from_nic", "decapsulated"): 2 * ROUNDS,
        ("from_pod", "guarded"): ROUNDS,
    }
    by_clsact = {
        ("from_pod", "encapsulated"): ROUNDS,
        ("from_nic", "decapsulated"): ROUNDS,
        ("from_nic", "no_pod"): ROUNDS,
    }
    assert exchange(lab, other, name, address) == (by_tcx if method == "tcx" else by_clsact)


def test_limit_from_the_pod_to_its_neighbour(attached, shaped):
    """What a pod sends to a pod of its node is held to its limit."""
    lab, method = attached
    name, address = shaped(egressRate=LIMIT, egressBurst=BURST)
    neighbour = lab.netns("node2-pod1")
    assert 0.9 < measure(name, neighbour, lab.address("node2-pod1")) < 1.1
    by_tcx = {
        ("from_pod", "switched"): ROUNDS,
        ("from_pod", "guarded"): ROUNDS,
        ("to_pod", "no_stamp"): ROUNDS,
    }
    by_clsact = {("from_pod", "no_peer"): ROUNDS, ("to_pod", "no_stamp"): ROUNDS}
    assert exchange(lab, neighbour, name, address) == (by_tcx if method == "tcx" else by_clsact)
