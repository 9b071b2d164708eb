# SPDX-License-Identifier: Apache-2.0
"""One port of a pod, used for what netfilter must tell apart: each flow is bypassed as its own."""

from __future__ import annotations

import socket

import pytest
from dialogue import PORT, Call, answered, calling, serving
from kubeservice import PORT as SERVICE_PORT
from kubeservice import SECOND, VIRTUAL, Service
from paths import BYPASSES, bypassed, came
from servicecalls import BACKENDS, CLIENT, NEARLY_ALL, PORTS

from vxlane.lab.waiting import wait_for

PROTOCOL = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
ROUNDS = 75


def each(address, port, *, to_port=PORT):
    """A connection and datagrams to `address`, both from `port`."""
    common = {"port": port, "rounds": ROUNDS, "pause": 0.02}
    return [Call(address, to_port, protocol=protocol, **common) for protocol in PROTOCOL]


def ask(lab, first, second):
    """What became of calls of which the second ones begin later, and what node1 counted."""
    with lab.verdicts("node1") as seen, calling(lab, CLIENT, *first) as one:
        await_records(lab, first)
        with calling(lab, CLIENT, *second) as other:
            pass
    answered(one + other, *first, *second)
    return one, other, seen


def await_records(lab, calls):
    """Return when the flows of the calls are known."""
    wanted = {(call.address, call.port, PROTOCOL[call.protocol]) for call in calls}

    def are_known():
        with lab.maps("node1") as maps:
            return wanted <= {
                (str(flow.tuple.remote), flow.tuple.local_port, flow.tuple.protocol)
                for flow in maps.flows()
                if flow.seen_out and flow.seen_in
            }

    wait_for(are_known, "the first flows' records")


def all_but_few(seen, backend):
    """Assert that of two calls by each protocol nearly all was bypassed, questions and answers."""
    questions = 2 * len(PROTOCOL) * ROUNDS
    by_pods = {key: n for key, n in bypassed(seen).items() if key[0] == "from_pod"}
    by_nic = {key: n for key, n in bypassed(seen).items() if key[0] == "from_nic"}
    if backend.startswith("node1"):
        assert sum(by_pods.values()) >= NEARLY_ALL * 2 * questions
    else:
        assert sum(by_pods.values()) >= NEARLY_ALL * questions
        assert sum(by_nic.values()) >= NEARLY_ALL * questions


def second_was_moved(one, other, own, port):
    """Assert that both calls reached `own` (server, caller), the second from another port."""
    assert [report.talks[0][:3] for report in one] == [(*own, port)] * 2
    assert [report.talks[0][:2] for report in other] == [own] * 2
    assert port not in {report.talks[0][2] for report in other}


@BACKENDS
@pytest.mark.parametrize("first", ["service", "direct"])
def test_service_and_backend(lab, kube_proxy, first, backend):
    """One port for a Service and for its backend: each is answered by whom it asked, by the bypass.

    conntrack moves the flow that comes second to another port.
    """
    proxy = kube_proxy("node1", backends=[lab.address(backend)])
    port = next(PORTS)
    calls = [each(VIRTUAL, port, to_port=SERVICE_PORT), each(lab.address(backend), port)]
    if first == "direct":
        calls.reverse()
    with serving(lab, backend):
        one, other, seen = ask(lab, *calls)
    second_was_moved(one, other, (backend, lab.address(CLIENT)), port)
    all_but_few(seen, backend)
    untranslated = came(seen, "from_pod", *(BYPASSES - {"nat"}))
    if first == "service":
        # The direct flow is one that netfilter translates now: its port is another.
        assert untranslated == 0
    else:
        assert untranslated >= NEARLY_ALL * 2 * ROUNDS
    assert proxy.invalid() == 0


@BACKENDS
def test_two_services(lab, kube_proxy, backend):
    """One port for two Services in front of one backend: each is answered by whom it asked."""
    services = [
        Service((lab.address(backend),), PORT),
        Service((lab.address(backend),), PORT, name="api", virtual=SECOND, node_port=30081),
    ]
    proxy = kube_proxy("node1", services=services)
    port = next(PORTS)
    calls = [each(virtual, port, to_port=SERVICE_PORT) for virtual in (VIRTUAL, SECOND)]
    with serving(lab, backend):
        one, other, seen = ask(lab, *calls)
    second_was_moved(one, other, (backend, lab.address(CLIENT)), port)
    all_but_few(seen, backend)
    assert came(seen, "from_pod", *(BYPASSES - {"nat"})) == 0
    assert proxy.invalid() == 0


def test_two_pods_and_one_address(lab, kube_proxy):
    """Two pods that their node masquerades, from one port of each: each hears its own answers."""
    backend = "node2-pod1"
    proxy = kube_proxy("node1", backends=[lab.address(backend)], masquerade_all=True)
    calls = each(VIRTUAL, next(PORTS), to_port=SERVICE_PORT)
    with (
        serving(lab, backend),
        lab.verdicts("node1") as seen,
        calling(lab, "node1-pod1", *calls) as one,
        calling(lab, "node1-pod2", *calls) as other,
    ):
        pass
    answered(one + other, *calls, *calls)
    assert {report.talks[0][:2] for report in one + other} == {(backend, "10.42.1.0")}
    for ours, theirs in zip(one, other, strict=True):
        assert ours.talks[0][2] != theirs.talks[0][2]
    assert set(bypassed(seen)) == {("from_pod", "nat"), ("from_nic", "nat")}
    all_but_few(seen, backend)
    assert proxy.invalid() == 0
