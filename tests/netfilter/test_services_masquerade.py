# SPDX-License-Identifier: Apache-2.0
"""Pods' flows that get their node's address are bypassed where both ends are known as pods'."""

from __future__ import annotations

import pytest
from dialogue import Call, answered, call, serving
from kubeservice import NODE_PORT, VIRTUAL
from kubeservice import PORT as SERVICE_PORT
from paths import bypassed, came
from servicecalls import BACKENDS, CLIENT, NEARLY_ALL

COUNT, ROUNDS = 20, 20
OVERLAY, BRIDGE = "10.42.1.0", "10.42.1.1"
"""node1's addresses as flannel.1 and cni0 have them."""


def calls(address, port):
    """Connections and datagrams to a Service at `address`."""
    common = {"count": COUNT, "rounds": ROUNDS, "pause": 0.01}
    return [Call(address, port, protocol=kind, **common) for kind in ("tcp", "udp")]


def all_but_few(seen, backend):
    """Assert that nearly all was bypassed, questions and answers, and that as translated flows."""
    # A flow's first datagram, and one in BACKEND_AGE, is netfilter's.
    expected = NEARLY_ALL * 2 * COUNT * (ROUNDS - 1)
    out = came(seen, "from_pod", "nat", "flow_aged")
    if backend.startswith("node1"):
        assert set(bypassed(seen)) == {("from_pod", "nat")}
        assert out >= 2 * expected
    else:
        assert set(bypassed(seen)) == {("from_pod", "nat"), ("from_nic", "nat")}
        assert out >= expected
        assert came(seen, "from_nic", "nat", "flow_aged") >= expected


@pytest.mark.parametrize("how", ["masquerade-all", "node-port"])
@BACKENDS
def test_seen_as_the_node(lab, kube_proxy, backend, how):
    """By --masquerade-all, or a port of its node, a pod is seen as its node, and bypassed."""
    proxy = kube_proxy(
        "node1", backends=[lab.address(backend)], masquerade_all=how == "masquerade-all"
    )
    target = (
        (VIRTUAL, SERVICE_PORT) if how == "masquerade-all" else (lab.address("node1"), NODE_PORT)
    )
    wanted = calls(*target)
    with serving(lab, backend), lab.verdicts("node1") as seen, lab.verdicts("node2") as there:
        reports = call(lab, CLIENT, *wanted)
    answered(reports, *wanted)
    near = backend.startswith("node1")
    for report in reports:
        assert report.servers() == {backend}
        assert report.seen_as() == {BRIDGE if near else OVERLAY}
    all_but_few(seen, backend)
    # The backend's node sees plain flows of the node's own address.
    ways = {("from_nic", "decapsulated"), ("from_pod", "encapsulated")}
    assert set(bypassed(there)) == (set() if near else ways)
    assert proxy.invalid() == 0


@pytest.mark.parametrize("backend", ["node2-pod1", "node1-pod2"])
def test_port_of_another_node(lab, kube_proxy, backend):
    """By another node's NodePort a pod goes as its node to that one, by netfilter alone."""
    proxy = kube_proxy("node2", backends=[lab.address(backend)])
    wanted = calls(lab.address("node2"), NODE_PORT)
    with serving(lab, backend), lab.verdicts("node1", "node2") as seen:
        reports = call(lab, CLIENT, *wanted)
    answered(reports, *wanted)
    assert reports[0].servers() == reports[1].servers() == {backend}
    if backend.startswith("node2"):
        assert bypassed(seen) == {}
    else:
        # Back on its node a question is one of node2's own address, and a plain flow there.
        assert set(bypassed(seen)) == {("from_nic", "decapsulated"), ("from_pod", "encapsulated")}
    assert seen["from_pod", "no_peer"] >= 2 * COUNT * ROUNDS
    assert proxy.invalid() == 0
