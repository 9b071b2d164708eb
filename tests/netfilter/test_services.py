# SPDX-License-Identifier: Apache-2.0
"""A Service's connections keep to netfilter; the direct flows of the same pods do not."""

from __future__ import annotations

import itertools
import time

import pytest
from dialogue import Call, answered, call, calling, serving
from kubeproxy import PORT as SERVICE_PORT
from kubeproxy import VIRTUAL
from paths import approved_ports, bypassed, judged

MANY = 200
PORTS = itertools.count(5001)
"""Source ports that no other test has left a record of."""


def service(**more):
    """A call to the Service."""
    return Call(VIRTUAL, SERVICE_PORT, **more)


@pytest.mark.parametrize(
    ("backend", "learner", "ways"),
    [
        ("node2-pod1", "to_nic", {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}),
        ("node1-pod2", "to_pod", {("from_pod", "switched")}),
    ],
    ids=["another-node", "same-node"],
)
def test_beside_direct_connections(lab, kube_proxy, backend, learner, ways):
    """200 connections by the Service and 200 straight to its backend: only the latter bypass."""
    client, address = "node1-pod1", lab.address(backend)
    proxy = kube_proxy("node1", backends=[address])
    kinds = [{"count": MANY // 2}, {"count": MANY // 2, "rounds": 25, "pause": 0.06}]
    approved = set()
    calls = [make(**kind) for make in (service, direct(address)) for kind in kinds]

    with (
        serving(lab, backend),
        lab.verdicts("node1") as seen,
        calling(lab, client, *calls) as reports,
    ):
        for _ in range(8):
            time.sleep(0.2)
            approved |= approved_ports(lab, "node1", client)
    answered(reports, *calls)
    assert set.union(*(report.servers() for report in reports)) == {backend}
    assert set.union(*(report.seen_as() for report in reports)) == {lab.address(client)}
    short_service, long_service, _, long_direct = (report.ports() for report in reports)
    assert long_direct <= approved
    assert not (short_service | long_service) - long_direct & approved
    assert set(bypassed(seen)) == ways
    # All that went to the Service came out as something else and taught nothing.
    assert seen["from_pod", "no_peer"] >= MANY * (3 + 25) // 2
    assert seen[learner, "translated"] >= seen["from_pod", "no_peer"]
    assert proxy.invalid() == 0


def direct(address):
    """A way to call the pod at `address`."""

    def make(**more):
        return Call(address, **more)

    return make


def test_to_itself(lab, kube_proxy):
    """A pod that is its own backend hears itself as its gateway, by netfilter alone."""
    pod = "node1-pod1"
    proxy = kube_proxy("node1", backends=[lab.address(pod)])
    wanted = service(count=MANY, rounds=5)
    with serving(lab, pod), lab.verdicts("node1") as seen:
        reports = call(lab, pod, wanted)
    answered(reports, wanted)
    assert reports[0].seen_as() == {"10.42.1.1"}
    # Requests and answers alike enter once, and come out of the kernel path as something else.
    data, control = ("from_pod", "no_peer"), ("from_pod", "tcp_control")
    assert set(judged(seen)) == {data, control, ("to_pod", "translated")}
    assert seen[data] >= MANY * 2 * 5
    assert seen["to_pod", "translated"] == seen[data] + seen[control]
    assert proxy.invalid() == 0


def test_datagrams(lab, kube_proxy):
    """Each of 50 questions to the Service, and each answer, crosses the client's netfilter."""
    client, backend, count = "node1-pod1", "node2-pod1", 50
    kube_proxy("node1", backends=[lab.address(backend)])
    wanted = service(protocol="udp", rounds=count)
    with serving(lab, backend), lab.verdicts("node1") as seen, lab.verdicts("node2") as there:
        reports = call(lab, client, wanted)
    answered(reports, wanted)
    assert reports[0].servers() == {backend}
    assert judged(seen) == {
        ("from_pod", "no_peer"): count,
        ("to_nic", "translated"): count,
        ("from_nic", "flow_unknown"): count,
        ("to_pod", "translated"): count,
    }
    # The backend's node sees a plain flow, which it is there.
    assert judged(there) == {
        ("from_nic", "flow_unknown"): 1,
        ("to_pod", "learned"): 1,
        ("from_pod", "flow_half"): 1,
        ("to_nic", "learned"): 1,
        ("from_nic", "decapsulated"): count - 1,
        ("from_pod", "encapsulated"): count - 1,
    }


@pytest.mark.parametrize("first", ["service", "direct"])
def test_one_socket_for_both(lab, kube_proxy, first):
    """Datagrams from one port to a Service and to its backend are answered each by the one asked.

    conntrack moves the flow that comes second to another port: it leaves as nobody sent it, and
    what the first left behind must not approve it.
    """
    client, backend, count = "node1-pod1", "node2-pod1", 20
    kube_proxy("node1", backends=[lab.address(backend)])
    common = {"protocol": "udp", "port": next(PORTS), "rounds": count, "pause": 0.02}
    both = [service(**common), Call(lab.address(backend), **common)]
    if first == "direct":
        both.reverse()
    with (
        serving(lab, backend),
        lab.verdicts("node1") as seen,
        calling(lab, client, both[0]) as one,
    ):
        time.sleep(0.3)
        other = call(lab, client, both[1])
    answered(one + other, *both)
    assert one[0].talks[0][:3] == (backend, lab.address(client), common["port"])
    assert other[0].talks[0][2] != common["port"]
    assert judged(seen) == (NO_HALVES if first == "service" else WHOLE_FIRST)


NO_HALVES = {
    ("from_pod", "no_peer"): 20,
    ("from_pod", "flow_unknown"): 20,
    ("to_nic", "translated"): 40,
    ("from_nic", "flow_unknown"): 40,
    ("to_pod", "translated"): 40,
}
WHOLE_FIRST = {
    ("from_pod", "flow_unknown"): 1,
    ("to_nic", "learned"): 1,
    ("from_nic", "flow_half"): 1,
    ("to_pod", "learned"): 1,
    ("from_pod", "encapsulated"): 19,
    ("from_nic", "decapsulated"): 19,
    ("from_pod", "no_peer"): 20,
    ("to_nic", "translated"): 20,
    ("from_nic", "flow_unknown"): 20,
    ("to_pod", "translated"): 20,
}


def test_one_port_for_both(lab, kube_proxy):
    """Two TCP connections from one port, to a Service and to its backend, do not get mixed up."""
    client, backend = "node1-pod1", "node2-pod1"
    proxy = kube_proxy("node1", backends=[lab.address(backend)])
    common = {"port": next(PORTS), "rounds": 50, "pause": 0.02}
    both = [service(**common), Call(lab.address(backend), **common)]
    with (
        serving(lab, backend),
        lab.verdicts("node1") as seen,
        calling(lab, client, both[0]) as one,
    ):
        time.sleep(0.3)
        other = call(lab, client, both[1])
    answered(one + other, *both)
    assert one[0].talks[0][2] == common["port"] != other[0].talks[0][2]
    assert bypassed(seen) == {}
    assert seen["to_nic", "translated"] >= 2 * common["rounds"]
    assert proxy.invalid() == 0
